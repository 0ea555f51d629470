"""What every backbone is: declared maps, refused options, loading, freezing, recomputation."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self

from swin_dense.backbones.stage_plugins import build_plugins, run_plugins
from swin_dense.checkpoints.families.family import Family
from swin_dense.checkpoints.load import initialise_from, register_key_translation
from swin_dense.errors import UserError, did_you_mean


class Backbone(BaseModule):
    """A model from images to a tuple of maps.

    A subclass names its parameters as the official code does, sets ``out_channels`` and
    ``out_strides``, and calls :meth:`freeze` at the end of its ``__init__``.

    Args:
        in_channels: channels of the input images.
        frozen_stages: how much does not train; -1 is nothing. See :meth:`frozen_parts`.
        with_cp: recompute each block in the backward pass, which saves memory and costs time.
        pretrained: a checkpoint's path or URL; short for ``init_cfg=dict(type="Pretrained", ...)``.
        init_cfg: None, or ``dict(type="swin_dense.Pretrained", checkpoint=...)``.

    Attributes:
        checkpoint_family: whose official names the parameters have: a row of
            :data:`swin_dense.checkpoints.families.MODULES`, or a Family of one's own; None where
            weights load as they are and :func:`swin_dense.load_pretrained` is not used. An instance
            may have one of its own.
        architectures: the options that each published ``arch`` stands for.
        out_channels: channels of each map that leaves.
        out_strides: pixels of the input per cell, for each map that leaves.
        plugins: by the number of a stage, the layers behind it; None where there are none.

    Raises:
        UserError: an argument that the subclass does not have, or both ``pretrained`` and
            ``init_cfg``.
    """

    checkpoint_family: str | Family | None = None
    architectures: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    out_channels: tuple[int, ...]
    out_strides: tuple[int, ...]
    plugins: nn.ModuleDict | None

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Refuse arguments that ``__init__`` does not have, by name, before anything is built."""
        parameters = inspect.signature(cls.__init__).parameters
        known = list(parameters)[1:]
        is_open = any(p.kind is p.VAR_KEYWORD for p in parameters.values())  # passed on to a parent
        for name in options:
            if name not in known and not is_open:
                raise UserError(
                    f"{cls.__name__} has no option {name!r}{did_you_mean(name, known)}: "
                    f"got {name}={options[name]!r}; expected some of {', '.join(known)}."
                )
        return super().__new__(cls)

    def __init__(
        self,
        *,
        in_channels: int,
        frozen_stages: int,
        with_cp: bool,
        pretrained: str | None,
        init_cfg: dict[str, Any] | None,
    ) -> None:
        super().__init__(init_cfg=_one_source(type(self).__name__, pretrained, init_cfg))
        self.in_channels = in_channels
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        self.plugins = None
        if self.checkpoint_family is not None:
            register_key_translation(self)

    def add_plugins(
        self, plugins: Sequence[Mapping[str, Any]] | None, channels: Sequence[int]
    ) -> None:
        """Put plugins behind stages; called after the model's initialisation, which is not theirs.

        Args:
            plugins: as :mod:`swin_dense.backbones.stage_plugins` says; None for none.
            channels: of each stage's map.
        """
        built = build_plugins(type(self).__name__, plugins, channels)
        if built is not None:
            self.plugins = built

    def after_stage(self, index: int, tokens: Tensor) -> Tensor:
        """Return a stage's tokens (B, H, W, C) as its plugins leave them: for the map that leaves,
        before its norm if it has one, and for the next stage.
        """
        if self.plugins is None or str(index) not in self.plugins:
            return tokens
        return run_plugins(self.plugins[str(index)], tokens)

    def frozen_parts(self, frozen_stages: int) -> Iterator[nn.Module | nn.Parameter]:
        """Yield what does not train; called with 0 or more."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Switch the frozen parts to evaluation and their gradients off."""
        if self.frozen_stages < 0:
            return
        plugins = [] if self.plugins is None else self.plugins.items()
        of_frozen = [layers for stage, layers in plugins if int(stage) < self.frozen_stages]
        for part in (*self.frozen_parts(self.frozen_stages), *of_frozen):
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def train(self, mode: bool = True) -> Self:
        """Switch to training; frozen parts stay in evaluation mode."""
        super().train(mode)
        self.freeze()
        return self

    def init_weights(self) -> None:
        """Load the checkpoint that ``init_cfg`` names; without one keep the fresh initialisation.

        Raises:
            UserError: the checkpoint is missing, unreadable or of another model, or ``init_cfg`` is
                of another type than "Pretrained".
        """
        initialise_from(self, self.init_cfg)
        self._is_init = True


def run_block(block: nn.Module, tokens: Tensor, *others: Any, with_cp: bool) -> Tensor:
    """Return ``block(tokens, *others)``; with ``with_cp`` the backward pass computes it again."""
    if with_cp and torch.is_grad_enabled():
        again: Tensor = checkpoint(block, tokens, *others, use_reentrant=False)
        return again
    once: Tensor = block(tokens, *others)
    return once


def as_map(grid: Tensor) -> Tensor:
    """Return a grid (B, H, W, C) as the map (B, C, H, W) that leaves a backbone.

    On a CPU it stays as it lies in memory, channels last, which convolutions there like best;
    elsewhere it is contiguous, as the hosts have it.
    """
    out = grid.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
    return out if out.device.type == "cpu" else out.contiguous()


def _one_source(
    owner: str, pretrained: str | None, init_cfg: dict[str, Any] | None
) -> dict[str, Any] | None:
    if pretrained is None:
        return init_cfg
    if init_cfg is not None:
        raise UserError(
            f"{owner} got both pretrained={pretrained!r} and init_cfg={init_cfg!r}; "
            "expected one of them. Keep init_cfg, which says the same."
        )
    return dict(type="Pretrained", checkpoint=pretrained)
