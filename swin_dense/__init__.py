"""swin_dense: train, evaluate and look at Swin detectors and segmenters.

Importing it costs next to nothing: the public names below load on first use, and the only side
effect is that ``mmcv.ops`` becomes importable without a compiled mmcv (see
:mod:`swin_dense.host.mmcv_ext`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from swin_dense.host.finder import install_mmcv_ext_finder
from swin_dense.version import __version__

if TYPE_CHECKING:
    from swin_dense import ops
    from swin_dense.backbones.focal import FocalTransformer
    from swin_dense.backbones.pvt import PVT
    from swin_dense.backbones.pvt_v2 import PVTv2
    from swin_dense.backbones.scalable_vit import ScalableViT
    from swin_dense.backbones.swin import SwinTransformer
    from swin_dense.backbones.swin_v2 import SwinTransformerV2
    from swin_dense.backbones.timm_backbone import TimmBackbone
    from swin_dense.backbones.vit import VisionTransformer
    from swin_dense.checkpoints.load import load_pretrained
    from swin_dense.checkpoints.report import LoadReport
    from swin_dense.errors import UserError
    from swin_dense.inference.predictor import Predictor

__all__ = [
    "FocalTransformer",
    "PVT",
    "LoadReport",
    "PVTv2",
    "Predictor",
    "ScalableViT",
    "SwinTransformer",
    "SwinTransformerV2",
    "TimmBackbone",
    "UserError",
    "VisionTransformer",
    "__version__",
    "load_pretrained",
    "ops",
]

_HOME = {
    "FocalTransformer": "swin_dense.backbones.focal",
    "LoadReport": "swin_dense.checkpoints.report",
    "PVT": "swin_dense.backbones.pvt",
    "PVTv2": "swin_dense.backbones.pvt_v2",
    "Predictor": "swin_dense.inference.predictor",
    "ScalableViT": "swin_dense.backbones.scalable_vit",
    "SwinTransformer": "swin_dense.backbones.swin",
    "SwinTransformerV2": "swin_dense.backbones.swin_v2",
    "TimmBackbone": "swin_dense.backbones.timm_backbone",
    "UserError": "swin_dense.errors",
    "VisionTransformer": "swin_dense.backbones.vit",
    "load_pretrained": "swin_dense.checkpoints.load",
}

install_mmcv_ext_finder()


def __getattr__(name: str) -> Any:
    if name == "ops":
        return import_module("swin_dense.ops")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'swin_dense' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
