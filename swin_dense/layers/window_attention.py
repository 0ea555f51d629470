"""Multi-head self-attention inside (shifted) windows with a learned relative position bias.

Source: Swin Transformer (https://arxiv.org/abs/2103.14030), section 3.2.
Letters: B batch; H, W token grid; C channels; M window side; N = M * M; nW windows an image; h
heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from swin_dense.layers.linear import Linear
from swin_dense.ops import fused
from swin_dense.ops.windows import (
    pad_to_multiple,
    relative_position_index,
    window_partition,
    window_reverse,
)


class ShiftedWindows(nn.Module):
    """What the attention of Swin V1 and V2 share: cut the grid into (shifted) windows, attend, put
    back.

    Window and shift are constants whatever the grid; a grid that is no multiple of the window is
    padded with zero tokens, and these take part like any other (the "detection" semantics of the
    official code). With ``clamp_small_maps`` a grid that is not larger than the window is one
    window of its own size, without a shift (the "classification" semantics).
    """

    cosine = False
    attn_drop: nn.Module
    proj: nn.Module
    proj_drop: nn.Module

    def __init__(
        self, *, num_heads: int, window_size: int, shift: int, clamp_small_maps: bool
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift = shift
        self.clamp_small_maps = clamp_small_maps

    def relative_position_bias(self, window_size: int | None = None) -> Tensor:
        """Return the bias (h, N, N) of every (query, key) pair of a window."""
        raise NotImplementedError

    def scaled_for_products(self, tokens: Tensor) -> tuple[Tensor, Tensor | None, float]:
        """Map (B, H, W, C) to queries, keys and values whose plain dot products are the logits.

        Returns:
            They, (B, H, W, 3C); those of a zero token, (3C,), or None where these are zero; and
            the factor of the products.
        """
        raise NotImplementedError

    def attend_in_kernel(self, tokens: Tensor, window_size: int, shift: int) -> Tensor:
        """Map (B, H, W, C) to the mixed values (B, H, W, C), in one kernel on a GPU."""
        raise NotImplementedError

    def queries_keys_values(self, windows: Tensor) -> Tensor:
        """Map (B * nW, N, C) to (B * nW, N, 3C): queries, keys, values."""
        raise NotImplementedError

    def logits(self, query: Tensor, key: Tensor) -> Tensor:
        """Compare (B * nW, h, N, C / h) queries and keys: (B * nW, h, N, N)."""
        raise NotImplementedError

    def window_and_shift(self, grid_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the side of the windows and the shift, in tokens, that a grid is attended with."""
        if self.clamp_small_maps and min(grid_hw) <= self.window_size:
            return min(grid_hw), 0
        return self.window_size, self.shift

    def is_fused(self, tokens: Tensor) -> bool:
        """Whether the fast path takes these tokens; it has no dropout of attention weights."""
        drops = self.training and getattr(self.attn_drop, "p", 0.0) > 0.0
        return not drops and (fused.attends(tokens) or self._has_kernel(tokens))

    def _has_kernel(self, tokens: Tensor) -> bool:
        window, _ = self.window_and_shift((tokens.shape[1], tokens.shape[2]))
        return fused.has_attention_kernel(
            tokens, num_heads=self.num_heads, window_size=window, cosine=self.cosine
        )

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend inside windows; ``mask`` (nW, N, N) belongs to the padded, shifted grid.

        Args:
            tokens: (B, H, W, C), any H and W.
            mask: from :func:`swin_dense.ops.windows.shifted_window_mask`; needed where the shift is
                > 0 and the fast path is not taken.

        Returns:
            (B, H, W, C).
        """
        height, width = tokens.shape[1:3]
        window, shift = self.window_and_shift((height, width))
        if self.is_fused(tokens) and self._has_kernel(tokens):
            mixed = self.attend_in_kernel(tokens, window, shift)
            return self.proj_drop(self.proj(mixed))
        if self.is_fused(tokens):
            qkv, pad, scale = self.scaled_for_products(tokens)
            bias = self.relative_position_bias(window)
            mixed = fused.window_attention(
                qkv, pad, bias, window_size=window, shift=shift, scale=scale
            )
            return self.proj_drop(self.proj(mixed))
        padded = pad_to_multiple(tokens, window)
        padded_hw = (padded.shape[1], padded.shape[2])
        if shift:
            padded = torch.roll(padded, (-shift, -shift), dims=(1, 2))
        windows = window_partition(padded, window)
        bias = self.relative_position_bias(window)
        attended = self._attend(windows, bias, mask if shift else None)
        attended = window_reverse(attended, window, padded_hw)
        if shift:
            attended = torch.roll(attended, (shift, shift), dims=(1, 2))
        return attended[:, :height, :width]

    def _attend(self, windows: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """Self-attention of each window by itself: (B * nW, N, C) -> (B * nW, N, C)."""
        count, tokens, channels = windows.shape
        # (B * nW, N, 3C) -> (3, B * nW, h, N, C / h)
        qkv = self.queries_keys_values(windows).view(count, tokens, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        logits = self.logits(query, key)
        logits = logits + bias.to(logits.dtype)
        if mask is not None:
            per_image = logits.view(-1, mask.shape[0], self.num_heads, tokens, tokens)
            logits = (per_image + mask[:, None].to(logits.dtype)).view_as(logits)
        weights = self.attn_drop(logits.softmax(dim=-1)).to(value.dtype)
        # (B * nW, h, N, C / h) -> (B * nW, N, C)
        mixed = (weights @ value).transpose(1, 2).reshape(count, tokens, channels)
        return self.proj_drop(self.proj(mixed))


class WindowAttention(ShiftedWindows):
    """W-MSA (``shift`` 0) or SW-MSA of Swin V1: scaled dot products, a table of position biases."""

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
        clamp_small_maps: bool = False,
    ) -> None:
        super().__init__(
            num_heads=num_heads,
            window_size=window_size,
            shift=shift,
            clamp_small_maps=clamp_small_maps,
        )
        self.scale = qk_scale if qk_scale is not None else (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window_size - 1) ** 2, num_heads)
        )
        self.register_buffer(
            "relative_position_index", relative_position_index(window_size), persistent=False
        )
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop_rate)

    def relative_position_bias(self, window_size: int | None = None) -> Tensor:
        """Return the bias (h, N, N) of every (query, key) pair of a window up to the table's."""
        index = self.relative_position_index
        if window_size is not None and window_size != self.window_size:
            index = relative_position_index(window_size, table_window=self.window_size)
            index = index.to(self.relative_position_bias_table.device)
        pairs = self.relative_position_bias_table[index.flatten()]
        # (N * N, h) -> (h, N, N)
        return pairs.view(*index.shape, -1).permute(2, 0, 1)

    def scaled_for_products(self, tokens: Tensor) -> tuple[Tensor, Tensor | None, float]:
        """Return queries, keys and values (B, H, W, 3C), their biases, and the scale."""
        return self.qkv(tokens), self.qkv.bias, self.scale

    def attend_in_kernel(self, tokens: Tensor, window_size: int, shift: int) -> Tensor:
        """Map (B, H, W, C) to the mixed values (B, H, W, C), in one kernel on a GPU."""
        return fused.attend_in_kernel(
            self.qkv(tokens),
            self.qkv.bias,
            self.relative_position_bias_table,
            num_heads=self.num_heads,
            window_size=window_size,
            shift=shift,
            scale=self.scale,
        )

    def queries_keys_values(self, windows: Tensor) -> Tensor:
        """Map (B * nW, N, C) to (B * nW, N, 3C)."""
        return self.qkv(windows)

    def logits(self, query: Tensor, key: Tensor) -> Tensor:
        """Scaled dot products, (B * nW, h, N, N)."""
        return (query * self.scale) @ key.transpose(-2, -1)
