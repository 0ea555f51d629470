"""A neck with plugins behind each of its maps. Letters: B batch; C channels; H, W a level's map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_plugin_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn

from swin_dense.errors import UserError
from swin_dense.registry import MODELS


@MODELS.register_module()
class NeckWithPlugins(BaseModule):
    """Any neck whose maps have ``out_channels`` channels, then for each map its own plugins.

    Args:
        neck: config of the wrapped neck, for example ``dict(type="mmdet.FPN", ...)``.
        plugins: configs of layers that keep the shape, for example ``dict(type="swin_dense.SE")``.
        num_levels: how many maps the neck returns.
    """

    def __init__(
        self,
        neck: dict[str, Any],
        *,
        plugins: Sequence[dict[str, Any]],
        num_levels: int,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.neck = MMENGINE_MODELS.build(neck)
        channels = self.neck.out_channels
        self.plugins = nn.ModuleList(
            nn.Sequential(*(build_plugin_layer(cfg, in_channels=channels)[1] for cfg in plugins))
            for _ in range(num_levels)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map the backbone's maps to the neck's, each (B, out_channels, H, W)."""
        levels = self.neck(maps)
        if len(levels) != len(self.plugins):
            raise UserError(
                f"The neck returns {len(levels)} maps; expected `num_levels` (="
                f"{len(self.plugins)}): set `num_levels={len(levels)}`."
            )
        return tuple(plugin(level) for plugin, level in zip(self.plugins, levels, strict=True))
