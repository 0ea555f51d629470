"""Multi-head self-attention of a plain vision transformer: over the whole grid, or in windows.

Sources: ViT (https://arxiv.org/abs/2010.11929), section 3.1; ViTDet
(https://arxiv.org/abs/2203.16527), section 3.
Letters: B batch; H, W token grid; T tokens that are no cell of the grid (class, distillation); L =
T + H * W; C channels; M window side; h heads; d = C / h.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from swin_dense.layers.linear import Linear
from swin_dense.ops import fused
from swin_dense.ops.decomposed import (
    attend_with_bias,
    attend_with_positions,
    relative_vectors,
)
from swin_dense.ops.dot_product import attend
from swin_dense.ops.windows import pad_to_multiple, window_partition, window_reverse


class GridAttention(nn.Module):
    """Every token attends to every token, or to those of its window.

    Args:
        dim: C.
        num_heads: h.
        window_size: M; 0 for the whole grid. A ragged grid is padded with zero tokens, which take
            part like any other.
        position_hw: rows and columns of the grid that the relative positions are learned for; None
            for none. Other grids interpolate them.
    """

    rel_pos_h: nn.Parameter | None
    rel_pos_w: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int = 0,
        position_hw: tuple[int, int] | None = None,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop_rate)
        self.rel_pos_h = self.rel_pos_w = None
        if position_hw is not None:
            height, width = position_hw
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * height - 1, dim // num_heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * width - 1, dim // num_heads))

    def forward(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Map (B, L, C) to (B, L, C); with windows or relative positions T is 0."""
        if not self.window_size:
            return self._attend(tokens, grid_hw)
        window, (height, width) = self.window_size, grid_hw
        grid = pad_to_multiple(tokens.unflatten(1, grid_hw), window)  # type: ignore[no-untyped-call]
        mixed = self._attend(window_partition(grid, window), (window, window))
        whole = window_reverse(mixed, window, (grid.shape[1], grid.shape[2]))
        return whole[:, :height, :width].flatten(1, 2)

    def _attend(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        batch, length, channels = tokens.shape
        # (B, L, 3C) -> (3, B, h, L, d)
        heads = (self.num_heads, channels // self.num_heads)
        qkv = self.qkv(tokens).view(batch, length, 3, *heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        dropout_p = self.attn_drop.p if self.training else 0.0
        if self.rel_pos_h is None or self.rel_pos_w is None:
            mixed = attend(query, key, value, scale=self.scale, dropout_p=dropout_p)
        else:
            with_positions = attend_with_positions if fused.enabled() else attend_with_bias
            mixed = with_positions(
                query,
                key,
                value,
                relative_vectors(self.rel_pos_h, grid_hw[0]),
                relative_vectors(self.rel_pos_w, grid_hw[1]),
                scale=self.scale,
                dropout_p=dropout_p,
            )
        # (B, h, L, d) -> (B, L, C)
        joined = mixed.transpose(1, 2).reshape(batch, length, channels)
        return self.proj_drop(self.proj(joined))
