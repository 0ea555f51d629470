"""A bottleneck of convolutions beside a shortcut; ViTDet's other way between windows.

Source: ViTDet (https://arxiv.org/abs/2203.16527), section 3, "convolutional propagation".
Letters: B batch; H, W map; C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from swin_dense.layers.channel_norm import LayerNorm2d


class ResidualBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with LayerNorm; starts as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = dim // 2
        self.conv1 = nn.Conv2d(dim, hidden, 1, bias=False)
        self.norm1 = LayerNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)
        self.norm2 = LayerNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, dim, 1, bias=False)
        self.norm3 = LayerNorm2d(dim)
        self.act = nn.GELU()
        nn.init.zeros_(self.norm3.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        hidden = self.act(self.norm1(self.conv1(maps)))
        hidden = self.act(self.norm2(self.conv2(hidden)))
        return maps + self.norm3(self.conv3(hidden))
