"""The perceptron of PVT v2 (https://arxiv.org/abs/2106.13797), section 3.1: it sees a token's
neighbours.

Letters: B batch; H, W token grid; C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.layers.linear import Linear


class DepthwiseConv(nn.Module):
    """A 3x3 convolution of each channel by itself; zeros stand around the grid."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        # (B, H, W, C) -> (B, C, H, W) and back
        return self.dwconv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvMlp(nn.Module):
    """fc1, depthwise convolution, activation, dropout, fc2, dropout.

    Args:
        relu_first: a ReLU before the convolution, as the linear kind of PVT v2 has it.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        activation: Callable[[], nn.Module] = nn.GELU,
        drop_rate: float = 0.0,
        relu_first: bool = False,
    ) -> None:
        super().__init__()
        self.relu_first = relu_first
        self.fc1 = Linear(dim, hidden_dim)
        self.dwconv = DepthwiseConv(hidden_dim)
        self.act = activation()
        self.fc2 = Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        hidden = self.fc1(tokens)
        if self.relu_first:
            hidden = F.relu(hidden)
        return self.drop(self.fc2(self.drop(self.act(self.dwconv(hidden)))))
