"""``init_cfg=dict(type="swin_dense.Pretrained", checkpoint=...)`` for any model of the hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from swin_dense.checkpoints.load import MIN_COVERAGE, initialise_from
from swin_dense.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Fill a backbone, detector or segmentor by :func:`swin_dense.load_pretrained`, whose options
    these are.

    The hosts initialise a model's children after the model itself, which would undo the loading. So
    the children are initialised here, before it, and marked as done.
    """

    def __init__(
        self,
        *,
        checkpoint: str,
        min_coverage: float = MIN_COVERAGE,
        sha256: str | None = None,
        mirrors: Sequence[str] = (),
        classes: Sequence[str] | None = None,
    ) -> None:
        self.init_cfg = dict(
            type="swin_dense.Pretrained",
            checkpoint=checkpoint,
            min_coverage=min_coverage,
            sha256=sha256,
            mirrors=mirrors,
            classes=classes,
        )

    def __call__(self, module: nn.Module) -> None:
        """Fill ``module``.

        Raises:
            UserError: as :func:`swin_dense.load_pretrained`.
        """
        children: list[Any] = list(module.children())
        for child in children:
            if hasattr(child, "init_weights"):
                child.init_weights()
        initialise_from(module, self.init_cfg)
        parts: list[Any] = list(module.modules())
        for part in parts:
            if part is not module and hasattr(part, "is_init"):
                part.is_init = True
