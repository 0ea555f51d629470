"""Build a config's model without memory and count its parameters and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from swin_dense.engine.config import host_of
from swin_dense.errors import UserError
from swin_dense.evaluation.complexity import (
    NUM_BOX_PROPOSALS,
    NUM_MASK_PROPOSALS,
    ModuleCost,
    count_model,
)
from swin_dense.host.repairs import repair_hosts

DETECTION_HW = (800, 1280)
"""Height and width in pixels at which the FLOPs of detectors are published."""


def build_on_meta(cfg: Config) -> nn.Module:
    """Build the config's model in evaluation mode on the meta device: shapes, and no memory.

    A model whose classes cannot be built there, such as the hosts' own Swin, is built on the CPU
    and then moved.

    Raises:
        UserError: the config names no host.
    """
    repair_hosts()
    if host_of(cfg) == "mmdet":
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules
    else:
        from mmseg.registry import MODELS
        from mmseg.utils import register_all_modules
    register_all_modules(init_default_scope=True)
    try:
        with torch.device("meta"):
            model: nn.Module = MODELS.build(cfg.model)
    except (RuntimeError, NotImplementedError):  # a class that reads numbers while it is built
        model = MODELS.build(cfg.model).to("meta")
    return model.eval()


def count_config(cfg: Config, image_hw: tuple[int, int] | None = None) -> list[ModuleCost]:
    """Count the config's model on one image of ``image_hw`` pixels, by default the published size.

    Raises:
        UserError: a model whose parts are not known here.
    """
    return count_model(build_on_meta(cfg), image_hw or published_hw(cfg))


def describe_counting(cfg: Config) -> str:
    """Return in one sentence what the counted figures hold, for below the table."""
    what = "convolutions and matrix products are counted"
    if "roi_head" in cfg.model:
        what += (
            f"; each box head runs on {NUM_BOX_PROPOSALS:,} proposals, each mask head on "
            f"{NUM_MASK_PROPOSALS}"
        )
    if cfg.model.get("auxiliary_head") is not None:
        what += "; the auxiliary head trains only: its parameters count, it does not run"
    return what


def published_hw(cfg: Config) -> tuple[int, int]:
    """Return the height and width at which FLOPs of such a model are published.

    800x1280 for a detector; for a segmenter the wide scale that its images are resized into.

    Raises:
        UserError: a segmenter whose test pipeline resizes to no fixed scale.
    """
    if host_of(cfg) == "mmdet":
        return DETECTION_HW
    for step in _test_pipeline(cfg):
        scale = step.get("scale") if step["type"] == "Resize" else None
        if scale is not None and len(scale) == 2:
            return min(scale), max(scale)
    raise UserError(
        "the config's test pipeline has no Resize with a scale of two numbers, so the size to "
        "count at is not known. Give it: --shape HEIGHT WIDTH"
    )


def _test_pipeline(cfg: Config) -> list[Mapping[str, Any]]:
    loader = cfg.get("test_dataloader") or {}
    return list((loader.get("dataset") or {}).get("pipeline") or [])
