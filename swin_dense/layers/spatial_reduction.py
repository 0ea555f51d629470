"""Attention whose keys and values come from a coarser grid, as in PVT v1 and v2.

Sources: PVT (https://arxiv.org/abs/2102.12122), section 3.3; PVT v2
(https://arxiv.org/abs/2106.13797), section 3.2, for the linear kind.
Letters: B batch; H, W token grid; h, w the reduced grid; C channels; N heads; D = C / N.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.layers.linear import Linear

POOLED_SIDE = 7
"""Side of the grid that the linear kind pools to, whatever the image."""


class SpatialReductionAttention(nn.Module):
    """Every token attends to all tokens of the reduced grid.

    Args:
        dim: channels C.
        num_heads: heads N; they divide C.
        sr_ratio: the grid is reduced by this in height and width, by a convolution that drops what
            is left over at the right and the bottom; 1 reduces nothing. A grid must have at least
            this many tokens along each side.
        linear: pool the grid to 7x7 tokens instead, then a 1x1 convolution, norm and activation;
            ``sr_ratio`` then says nothing, and any grid goes.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop_rate, proj_drop_rate: dropout on attention weights and on the result.
        norm: maker of the LayerNorm on the reduced grid.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        sr_ratio: int = 1,
        linear: bool = False,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear = linear
        self.reduces = linear or sr_ratio > 1
        self.attn_drop_rate = attn_drop_rate
        self.q = Linear(dim, dim, bias=qkv_bias)
        self.kv = Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop_rate)
        if self.reduces:
            side = 1 if linear else sr_ratio
            self.sr = nn.Conv2d(dim, dim, side, stride=side)
            self.norm = norm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        batch, height, width, channels = tokens.shape
        heads, size = self.num_heads, channels // self.num_heads
        queries = self.q(tokens).view(batch, height * width, heads, size).transpose(1, 2)
        pairs = self.kv(self.reduce(tokens) if self.reduces else tokens).flatten(1, 2)
        # (B, hw, 2C) -> (2, B, N, hw, D)
        keys, values = pairs.unflatten(2, (2, heads, size)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            queries, keys, values, dropout_p=self.attn_drop_rate if self.training else 0.0
        )
        # (B, N, HW, D) -> (B, H, W, C)
        joined = attended.transpose(1, 2).reshape(batch, height, width, channels)
        return self.proj_drop(self.proj(joined))

    def reduce(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to the (B, h, w, C) that keys and values are made of."""
        grid = tokens.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
        if self.linear:
            grid = F.adaptive_avg_pool2d(grid, POOLED_SIDE)
        reduced = self.norm(self.sr(grid).permute(0, 2, 3, 1))  # (B, C, h, w) -> (B, h, w, C)
        return F.gelu(reduced) if self.linear else reduced
