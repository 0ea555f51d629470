"""Attention gates that keep a map's shape: SE and CBAM.

SE: squeeze-and-excitation (https://arxiv.org/abs/1709.01507). CBAM: channel, then spatial attention
(https://arxiv.org/abs/1807.06521). Letters: B batch; C channels; H, W the map; R hidden channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from swin_dense.errors import UserError


def _hidden_channels(in_channels: int, ratio: int) -> int:
    """Return R = C // ratio; refuse what leaves no hidden channel."""
    if ratio < 1 or in_channels // ratio < 1:
        raise UserError(
            f"`ratio` (={ratio}) leaves no hidden channel of `in_channels` (={in_channels}); "
            f"expected a ratio from 1 to {in_channels}: set `ratio` to at most that."
        )
    return in_channels // ratio


class SE(nn.Module):
    """Scale each channel by sigmoid(W2 relu(W1 mean(x)))."""

    _abbr_ = "se"

    def __init__(self, in_channels: int, *, ratio: int = 16) -> None:
        super().__init__()
        hidden = _hidden_channels(in_channels, ratio)
        self.fc1 = nn.Conv2d(in_channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        squeezed = x.mean((2, 3), keepdim=True)
        return x * self.fc2(self.fc1(squeezed).relu()).sigmoid()


class ChannelGate(nn.Module):
    """CBAM's channel gate: one perceptron on the mean and on the maximum, summed, sigmoid."""

    def __init__(self, in_channels: int, *, ratio: int = 16) -> None:
        super().__init__()
        hidden = _hidden_channels(in_channels, ratio)
        # The official key names count a Flatten as number 0: mlp.1, mlp.3.
        self.mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, in_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        logits = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * logits.sigmoid()[:, :, None, None]


class SpatialGate(nn.Module):
    """CBAM's spatial gate: 7x7 convolution of the channels' maximum and mean, sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.ModuleDict(
            {
                "conv": nn.Conv2d(2, 1, 7, padding=3, bias=False),
                "bn": nn.BatchNorm2d(1, momentum=0.01),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * self.spatial["bn"](self.spatial["conv"](pooled)).sigmoid()


class CBAM(nn.Module):
    """Channel gate, then (``no_spatial=False``) spatial gate; the official parameter names."""

    _abbr_ = "cbam"

    def __init__(self, in_channels: int, *, ratio: int = 16, no_spatial: bool = False) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(in_channels, ratio=ratio)
        self.SpatialGate = nn.Identity() if no_spatial else SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return self.SpatialGate(self.ChannelGate(x))
