"""Self-attention and positions for maps of any size, each keeping the map's shape.

Letters: B batch; C channels; H, W the map; N = H W; d channels of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from swin_dense.errors import UserError
from swin_dense.layers.position import PEG


def sine_encoding(channels: int, height: int, width: int, *, device: torch.device) -> Tensor:
    """Return the (C, H, W) float32 sinusoids of DETR: C/2 channels for rows, then for columns.

    Rows count 1..H, scaled to 2 pi; sines and cosines take turns; temperature 10000
    (https://arxiv.org/abs/2005.12872, as mmdet's ``SinePositionalEncoding(normalize=True)``).
    """
    half = channels // 2
    index = torch.arange(half, device=device, dtype=torch.float32)
    period = 10000 ** (2 * (index // 2) / half)

    def axis(length: int) -> Tensor:
        place = torch.arange(1, length + 1, device=device, dtype=torch.float32)
        angle = (place / (length + 1e-6) * 2 * math.pi)[:, None] / period
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], 2).flatten(1)

    # (H, C/2), (W, C/2) -> (C/2, H, W) each
    rows = axis(height).T[:, :, None].expand(-1, -1, width)
    columns = axis(width).T[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])


class SinePosition(nn.Module):
    """Add the sinusoids of :func:`sine_encoding`; no parameters.

    Raises:
        UserError: ``in_channels`` is not a multiple of 4.
    """

    _abbr_ = "sine_position"

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        if in_channels % 4:
            raise UserError(
                f"`in_channels` (={in_channels}) is not a multiple of 4, a sine and a cosine for "
                "each axis; expected one: use swin_dense.PEGPosition here."
            )
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        height, width = x.shape[2:]
        return x + sine_encoding(self.in_channels, height, width, device=x.device).to(x.dtype)


class PEGPosition(nn.Module):
    """:class:`~swin_dense.layers.position.PEG` on (B, C, H, W) maps."""

    _abbr_ = "peg_position"

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.peg = PEG(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        moved: Tensor = self.peg(x.permute(0, 2, 3, 1))  # (B, C, H, W) -> (B, H, W, C)
        return moved.permute(0, 3, 1, 2)


class SelfAttention(nn.Module):
    """x + proj(softmax(Q K^T / sqrt(d)) V) over all positions of the map; starts as the identity.

    The cost grows with N squared: meant for coarse maps.

    Args:
        in_channels: C.
        num_heads: of C/num_heads channels each.

    Raises:
        UserError: heads that do not divide the channels.
    """

    _abbr_ = "self_attention"

    def __init__(self, in_channels: int, *, num_heads: int = 8) -> None:
        super().__init__()
        if num_heads < 1 or in_channels % num_heads:
            raise UserError(
                f"`num_heads` (={num_heads}) does not divide `in_channels` (={in_channels}); "
                "expected heads that do: set for example `num_heads=1`."
            )
        self.num_heads = num_heads
        self.norm = nn.GroupNorm(1, in_channels)
        self.qkv = nn.Conv2d(in_channels, 3 * in_channels, 1)
        self.proj = nn.Conv2d(in_channels, in_channels, 1)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        # (B, 3C, H, W) -> 3 x (B, heads, N, d)
        parts = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.num_heads, -1))
        query, key, value = parts.transpose(3, 4).unbind(1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        # (B, heads, N, d) -> (B, C, H, W)
        mixed = mixed.transpose(2, 3).reshape(x.shape)
        return x + self.proj(mixed)
