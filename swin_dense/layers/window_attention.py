"""Multi-head self-attention inside (shifted) windows with a learned relative position bias.

Source: Swin Transformer (https://arxiv.org/abs/2103.14030), section 3.2.
Letters: B batch; H, W token grid; C channels; M window side; N = M * M; nW windows an image; h heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from swin_dense.ops.windows import (
    pad_to_multiple,
    relative_position_index,
    window_partition,
    window_reverse,
)


class WindowAttention(nn.Module):
    """W-MSA (``shift`` 0) or SW-MSA: each token attends to the tokens of its window.

    Window and shift are constants whatever the grid; a grid that is no multiple of the window is padded
    with zero tokens, and these take part like any other (the "detection" semantics of the official code).
    """

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int,
        shift: int = 0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift = shift
        self.scale = qk_scale if qk_scale is not None else (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window_size - 1) ** 2, num_heads)
        )
        self.register_buffer(
            "relative_position_index", relative_position_index(window_size), persistent=False
        )
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop_rate)

    def relative_position_bias(self) -> Tensor:
        """Return the bias (h, N, N) of every (query, key) pair."""
        pairs = self.relative_position_bias_table[self.relative_position_index.flatten()]
        tokens = self.window_size * self.window_size
        # (N * N, h) -> (h, N, N)
        return pairs.view(tokens, tokens, -1).permute(2, 0, 1)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend inside windows; ``mask`` (nW, N, N) belongs to the padded, shifted grid.

        Args:
            tokens: (B, H, W, C), any H and W.
            mask: from :func:`swin_dense.ops.windows.shifted_window_mask`; needed where ``shift`` > 0.

        Returns:
            (B, H, W, C).
        """
        height, width = tokens.shape[1:3]
        padded = pad_to_multiple(tokens, self.window_size)
        padded_hw = (padded.shape[1], padded.shape[2])
        if self.shift:
            padded = torch.roll(padded, (-self.shift, -self.shift), dims=(1, 2))
        windows = window_partition(padded, self.window_size)
        attended = window_reverse(self._attend(windows, mask), self.window_size, padded_hw)
        if self.shift:
            attended = torch.roll(attended, (self.shift, self.shift), dims=(1, 2))
        return attended[:, :height, :width]

    def _attend(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Self-attention of each window by itself: (B * nW, N, C) -> (B * nW, N, C)."""
        count, tokens, channels = windows.shape
        # (B * nW, N, 3C) -> (3, B * nW, h, N, C / h)
        qkv = self.qkv(windows).view(count, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        logits = (query * self.scale) @ key.transpose(-2, -1)
        logits = logits + self.relative_position_bias().to(logits.dtype)
        if mask is not None:
            per_image = logits.view(-1, mask.shape[0], self.num_heads, tokens, tokens)
            logits = (per_image + mask[:, None].to(logits.dtype)).view_as(logits)
        weights = self.attn_drop(logits.softmax(dim=-1))
        # (B * nW, h, N, C / h) -> (B * nW, N, C)
        mixed = (weights @ value).transpose(1, 2).reshape(count, tokens, channels)
        return self.proj_drop(self.proj(mixed))
