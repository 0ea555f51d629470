"""Backbones: each gives a pyramid of maps and declares ``out_channels`` and ``out_strides``."""

from swin_dense.backbones.swin import SwinTransformer

__all__ = ["SwinTransformer"]
