"""A pyramid from the one map of a plain backbone.

Source: ViTDet (https://arxiv.org/abs/2203.16527), section 3, "simple feature pyramid".
Letters: B batch; C channels of the map; H, W the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from swin_dense.errors import UserError
from swin_dense.layers.channel_norm import LayerNorm2d
from swin_dense.registry import MODELS

MODELS.register_module(module=LayerNorm2d)


class ConvNorm(nn.Conv2d):
    """A convolution without bias and a LayerNorm, under the names of the official code."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False
        )
        self.norm = LayerNorm2d(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        return self.norm(super().forward(maps))


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Maps of several strides, each made from the last map of the backbone by itself.

    Args:
        in_channels: C, or the backbone's ``out_channels``, of which the last counts.
        out_channels: channels of every level.
        num_outs: levels; those beyond the scales halve the one before by skipping cells.
        scale_factors: of each level against the map: 4, 2, 1 or 0.5.
        in_stride: pixels of the input per cell of the map; the official names have the levels'
            strides in them.
        init_cfg: as in the hosts.

    Raises:
        UserError: a scale that does not exist, or fewer levels than scales.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int = 256,
        *,
        num_outs: int = 5,
        scale_factors: Sequence[float] = (4.0, 2.0, 1.0, 0.5),
        in_stride: int = 16,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not scale_factors or not set(scale_factors) <= {4.0, 2.0, 1.0, 0.5}:
            raise UserError(
                f"SimpleFeaturePyramid got scale_factors={tuple(scale_factors)}; expected some of "
                "4, 2, 1 and 0.5."
            )
        if num_outs < len(scale_factors):
            raise UserError(
                f"SimpleFeaturePyramid got num_outs={num_outs} for {len(scale_factors)} scales; "
                "expected at least as many. Leave scales out, or raise num_outs."
            )
        channels = in_channels if isinstance(in_channels, int) else in_channels[-1]
        self.in_channels = channels
        self.out_channels = out_channels
        self.num_outs = num_outs
        self.levels = []
        for scale in scale_factors:
            name = f"simfp_{round(math.log2(in_stride / scale))}"
            self.levels.append(name)
            self.add_module(name, _level(channels, out_channels, scale))

    def forward(self, maps: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map (B, C, H, W), the last of several, to one (B, out_channels, H * scale, W * scale) map
        for each level; odd sides are rounded up where they are halved.

        Raises:
            UserError: the map has other than ``in_channels`` channels.
        """
        last = maps if isinstance(maps, Tensor) else maps[-1]
        if last.shape[1] != self.in_channels:
            raise UserError(
                f"SimpleFeaturePyramid got a map of {last.shape[1]} channels; expected "
                f"in_channels={self.in_channels}. Set in_channels to the backbone's."
            )
        levels: list[Tensor] = [getattr(self, name)(last) for name in self.levels]
        while len(levels) < self.num_outs:
            levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        return tuple(levels)


def _level(channels: int, out_channels: int, scale: float) -> nn.Sequential:
    def enlarge(width: int) -> nn.Module:
        return nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2)

    resize: list[nn.Module]
    if scale == 4:
        half = channels // 2
        resize, width = [enlarge(channels), LayerNorm2d(half), nn.GELU(), enlarge(half)], half // 2
    elif scale == 2:
        resize, width = [enlarge(channels)], channels // 2
    elif scale == 1:
        resize, width = [], channels
    else:
        resize, width = [nn.MaxPool2d(2, stride=2, ceil_mode=True)], channels
    return nn.Sequential(
        *resize, ConvNorm(width, out_channels, 1), ConvNorm(out_channels, out_channels, 3)
    )
