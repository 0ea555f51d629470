"""The layers that mmcv's plugin protocol can build: ``dict(type="swin_dense.CBAM", ratio=16)``."""

from __future__ import annotations

from swin_dense.layers.gates import CBAM, SE
from swin_dense.registry import MODELS

MODELS.register_module(module=SE)
MODELS.register_module(module=CBAM)
