"""The layers that mmcv's plugin protocol can build: ``dict(type="swin_dense.CBAM", ratio=16)``."""

from __future__ import annotations

from swin_dense.layers.attention_plugins import PEGPosition, SelfAttention, SinePosition
from swin_dense.layers.gates import CBAM, SE
from swin_dense.layers.spatial_transformer import STN
from swin_dense.registry import MODELS

for _plugin in (SE, CBAM, STN, SelfAttention, SinePosition, PEGPosition):
    MODELS.register_module(module=_plugin)
