"""LayerNorm over the channels of a map, each cell by itself. Letters: B batch; C channels."""

from __future__ import annotations

from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm of (B, C, H, W) maps; the norm "LN" of ViTDet's necks and heads.

    Args:
        num_channels: C.
        eps: added to the variance.
    """

    _abbr_ = "ln"

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        # (B, C, H, W) -> (B, H, W, C) and back
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
