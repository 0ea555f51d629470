"""The two attentions of ScalableViT (https://arxiv.org/abs/2203.10790), section 3: SSA and IWSA.

Letters: B batch; H, W token grid; C channels; c channels of the keys; h heads; M window side.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from swin_dense.errors import UserError
from swin_dense.layers.linear import Linear
from swin_dense.ops.dot_product import attend
from swin_dense.ops.windows import pad_to_multiple, window_partition, window_reverse


class ScalableSelfAttention(nn.Module):
    """SSA: every token attends to a map that is ``spatial_ratio`` times smaller on each side.

    Queries and keys have ``int(C * channel_ratio)`` channels, values have C. With a spatial ratio
    of 1 it is plain attention of all tokens to all with C channels; its scale still has the channel
    ratio in it, as in the official code.

    Args:
        dim: C.
        num_heads: h.
        spatial_ratio: side in tokens of the patches that become one key (the paper's 1 / r_n).
        channel_ratio: channels of queries and keys over C (the paper's r_c).
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        spatial_ratio: int,
        channel_ratio: float,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.spatial_ratio = spatial_ratio
        self.attn_drop_rate = attn_drop_rate
        self.scale = (dim // num_heads * channel_ratio) ** -0.5
        if spatial_ratio > 1:
            narrow = int(dim * channel_ratio)
            self.q = Linear(dim, narrow, bias=qkv_bias)
            self.reduction = nn.Sequential(
                nn.Conv2d(dim, dim, spatial_ratio, stride=spatial_ratio, groups=dim),
                nn.Conv2d(dim, narrow, 1),
            )
            # 1e-5 here although the rest of the model has 1e-6: official
            self.norm_act = nn.Sequential(nn.LayerNorm(narrow, eps=1e-5), nn.GELU())
            self.k = Linear(narrow, narrow, bias=qkv_bias)
            self.v = Linear(narrow, dim, bias=qkv_bias)
        else:
            self.q = Linear(dim, dim, bias=qkv_bias)
            self.kv = Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C).

        Raises:
            UserError: a side of the map is shorter than the spatial ratio.
        """
        batch, height, width, channels = tokens.shape
        query = self.q(tokens).flatten(1, 2)
        key, value = self._keys_values(tokens)
        mixed = attend(
            *(self._split_heads(part) for part in (query, key, value)),
            scale=self.scale,
            dropout_p=self.attn_drop_rate if self.training else 0.0,
        )
        # (B, h, H * W, C / h) -> (B, H, W, C)
        mixed = mixed.transpose(1, 2).reshape(batch, height, width, channels)
        return cast(Tensor, self.proj_drop(self.proj(mixed)))

    def _keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, H, W, C) to keys (B, K, c) and values (B, K, C)."""
        if self.spatial_ratio == 1:
            key, value = self.kv(tokens.flatten(1, 2)).chunk(2, dim=-1)
            return key, value
        if min(tokens.shape[1:3]) < self.spatial_ratio:
            raise UserError(
                f"spatial reduction by {self.spatial_ratio} got a map of {tokens.shape[1]} x "
                f"{tokens.shape[2]} tokens; expected at least {self.spatial_ratio} on each side. "
                "Give larger images (32 pixels on each side are enough for the published sizes)."
            )
        # (B, H, W, C) -> (B, c, H / r, W / r) -> (B, K, c)
        reduced = self.reduction(tokens.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        reduced = self.norm_act(reduced)
        return self.k(reduced), self.v(reduced)

    def _split_heads(self, part: Tensor) -> Tensor:
        # (B, N, C) -> (B, h, N, C / h)
        heads = self.num_heads
        return part.view(*part.shape[:2], heads, part.shape[2] // heads).transpose(1, 2)


class InteractiveWindowAttention(nn.Module):
    """IWSA: attention inside windows, plus the local interactive module (LIM) on the values' map.

    The official code takes grids of whole windows only. On other grids the tokens are padded with
    zeros before queries, keys and values are computed, as Swin's detection code does, and take part
    in the attention; LIM runs on the values of the real tokens alone, so that its own zero border
    lies where it lies on a grid of whole windows.

    Args:
        dim: C.
        num_heads: h.
        window_size: M.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.attn_drop_rate = attn_drop_rate
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.lim_func = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        height, width, channels = tokens.shape[1:]
        qkv = self.qkv(pad_to_multiple(tokens, self.window_size))
        padded_hw = (qkv.shape[1], qkv.shape[2])
        values = qkv[:, :height, :width, 2 * channels :]
        # (B, H, W, C) -> (B, C, H, W) -> (B, H, W, C)
        local = self.lim_func(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        attended = window_reverse(
            self._attend(window_partition(qkv, self.window_size)), self.window_size, padded_hw
        )
        mixed = attended[:, :height, :width] + local
        return cast(Tensor, self.proj_drop(self.proj(mixed)))

    def _attend(self, windows: Tensor) -> Tensor:
        """Map (B * nW, M * M, 3C) to (B * nW, M * M, C)."""
        # (B * nW, N, 3C) -> (3, B * nW, h, N, C / h)
        count, area, channels = windows.shape
        split = windows.view(count, area, 3, self.num_heads, channels // (3 * self.num_heads))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(
            query,
            key,
            value,
            scale=self.scale,
            dropout_p=self.attn_drop_rate if self.training else 0.0,
        )
        return torch.flatten(mixed.transpose(1, 2), 2)
