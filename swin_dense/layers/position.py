"""Positions from the neighbourhood: PEG (https://arxiv.org/abs/2102.10882), section 3.2.

Letters: B batch; H, W token grid; C channels.
"""

from __future__ import annotations

from torch import Tensor, nn


class PEG(nn.Module):
    """Position encoding generator: a depthwise convolution of the map, added to it.

    Zero padding lets it see where the border is, so that it encodes absolute positions at any size.
    Parameters are ``proj.0.weight`` and ``proj.0.bias``, as in the official code.

    Args:
        channels: C.
        kernel_size: odd side of the convolution's window in tokens.
    """

    def __init__(self, channels: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        assert kernel_size % 2 == 1, "an even window would move the map"
        self.proj = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        # (B, H, W, C) -> (B, C, H, W) -> (B, H, W, C)
        encoded: Tensor = self.proj(tokens.permute(0, 3, 1, 2))
        return tokens + encoded.permute(0, 2, 3, 1)
