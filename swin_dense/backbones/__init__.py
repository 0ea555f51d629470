"""Backbones: each gives a pyramid of maps and declares ``out_channels`` and ``out_strides``."""

from swin_dense.backbones.focal import FocalTransformer
from swin_dense.backbones.pvt import PVT
from swin_dense.backbones.pvt_v2 import PVTv2
from swin_dense.backbones.scalable_vit import ScalableViT
from swin_dense.backbones.swin import SwinTransformer
from swin_dense.backbones.swin_v2 import SwinTransformerV2
from swin_dense.backbones.timm_backbone import TimmBackbone
from swin_dense.backbones.vit import VisionTransformer

__all__ = [
    "FocalTransformer",
    "PVT",
    "PVTv2",
    "ScalableViT",
    "SwinTransformer",
    "SwinTransformerV2",
    "TimmBackbone",
    "VisionTransformer",
]
