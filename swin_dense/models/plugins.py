"""The layers that mmcv's plugin protocol can build: ``dict(type="swin_dense.CBAM", ratio=16)``."""

from __future__ import annotations

from typing import Any

from mmcv.cnn import build_plugin_layer

from swin_dense.layers.attention_plugins import PEGPosition, SelfAttention, SinePosition
from swin_dense.layers.gates import CBAM, SE
from swin_dense.layers.spatial_transformer import STN as SpatialTransformer
from swin_dense.registry import MODELS

for _plugin in (SE, CBAM, SelfAttention, SinePosition, PEGPosition):
    MODELS.register_module(module=_plugin)


@MODELS.register_module()
class STN(SpatialTransformer):
    """The spatial transformer, its ``block`` given as the config of another plugin.

    Args:
        in_channels: C.
        block: such as ``dict(type="swin_dense.CBAM")``, with ``mode="restore"``.
        options: as :class:`swin_dense.layers.spatial_transformer.STN` takes them.
    """

    def __init__(
        self, in_channels: int, *, block: dict[str, Any] | None = None, **options: Any
    ) -> None:
        built = None if block is None else build_plugin_layer(block, in_channels=in_channels)[1]
        super().__init__(in_channels, block=built, **options)
