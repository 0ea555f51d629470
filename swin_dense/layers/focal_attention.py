"""Focal self-attention: fine keys nearby, pooled keys further away.

Source: Focal Transformer (https://arxiv.org/abs/2107.00641), section 3.2.
Letters: B batch; H, W token grid; C channels; M window side; N = M * M; nW windows an image; h
heads; e tokens that a window is expanded by; F side of the neighbourhood of pooled windows.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.layers.linear import Linear
from swin_dense.ops.dot_product import attend
from swin_dense.ops.focal import (
    bias_sources,
    expanded_windows,
    join_biases,
    neighbours,
    pooled_bias_index,
    pooled_mask,
    pooled_neighbourhoods,
)
from swin_dense.ops.windows import relative_position_index, window_partition, window_reverse

FUSED_WINDOWS = 64
"""Windows whose biases are laid out at once: 3 MB a head at 49 x 218 float32."""


class FocalAttention(nn.Module):
    """The tokens of each window attend to the window, the ring around it, and pooled windows.

    Beyond the border of the map the ring goes on at the opposite border; pooled windows beyond it
    are masked. Keys and values of a window are cut from the map by strided views, so that nothing
    is rolled, and tokens that the official code lists twice are held once; ``ops/focal.py`` says
    why that is the same. With dropout on attention the two copies are dropped together.

    Args:
        dim: C.
        num_heads: h.
        window_size: M.
        expand: e; 0 leaves the ring out.
        reach: F, odd; 0 leaves the pooled windows out.
    """

    relative_position_index: Tensor
    bias_sources: Tensor
    relative_position_index_0: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int,
        expand: int,
        reach: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.expand = expand
        self.reach = reach
        self.scale = qk_scale if qk_scale is not None else (dim // num_heads) ** -0.5
        area = window_size**2

        def table(*shape: int) -> nn.Parameter:
            return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))

        self.relative_position_bias_table = table((2 * window_size - 1) ** 2, num_heads)
        self._derive("relative_position_index", relative_position_index(window_size))
        if expand:
            around = len(neighbours(window_size, expand))
            self.relative_position_bias_table_to_neighbors = table(1, num_heads, area, around)
            self._derive("bias_sources", bias_sources(window_size, expand))
        if reach:
            self.relative_position_bias_table_to_windows = nn.ParameterList(
                [table(num_heads, (window_size + reach - 1) ** 2)]
            )
            self._derive("relative_position_index_0", pooled_bias_index(window_size, reach))
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop_rate)

    def _derive(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def position_bias(self) -> Tensor:
        """Return the bias (h, N, K) of every query and key; window and ring, then pooled."""
        index = self.relative_position_index
        pairs = self.relative_position_bias_table[index.flatten()]
        bias = pairs.view(*index.shape, -1).permute(2, 0, 1)  # (N, N, h) -> (h, N, N)
        if self.expand:
            around = self.relative_position_bias_table_to_neighbors[0]
            bias = join_biases(bias, around, self.bias_sources)
        if self.reach:
            to_windows = self.relative_position_bias_table_to_windows[0]
            bias = torch.cat([bias, to_windows[:, self.relative_position_index_0]], dim=-1)
        return bias

    def forward(self, tokens: Tensor, pooled: Tensor | None) -> Tensor:
        """Attend.

        Args:
            tokens: (B, H, W, C); H and W are multiples of M.
            pooled: (B, H / M, W / M, C), needed where ``reach`` is not 0.

        Returns:
            (B, H, W, C).
        """
        grid_hw, channels = (tokens.shape[1], tokens.shape[2]), tokens.shape[3]
        query, fine = self.qkv(tokens).split([channels, 2 * channels], dim=-1)
        key, value = self._keys_values(fine, pooled)
        # (B * nW, N, C) -> (B * nW, h, N, C / h)
        query = window_partition(query, self.window_size)
        query = query.view(*query.shape[:2], self.num_heads, channels // self.num_heads)
        query = query.transpose(1, 2)
        bias, mask = self.position_bias(), None
        if pooled is not None:
            pooled_hw = (pooled.shape[1], pooled.shape[2])
            mask = pooled_mask(pooled_hw, self.reach, device=tokens.device)
            mask = F.pad(mask, (bias.shape[-1] - mask.shape[-1], 0))
        recorded = torch.is_grad_enabled() or (self.training and self.attn_drop.p > 0)
        mix = self.attend_recorded if recorded else self.attend_fused
        # (B * nW, h, N, C / h) -> (B * nW, N, C)
        mixed = mix(query, key, value, bias, mask).transpose(1, 2).flatten(2)
        output: Tensor = self.proj_drop(self.proj(window_reverse(mixed, self.window_size, grid_hw)))
        return output

    def attend_recorded(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Attend with a record for the backward pass; torch's fused kernels give no gradient to a
        bias.

        Args:
            query: (B * nW, h, N, C / h).
            key, value: (B * nW, h, K, C / h).
            bias: (h, N, K).
            mask: (nW, K), or None.

        Returns:
            (B * nW, h, N, C / h).
        """
        logits = (query * self.scale) @ key.transpose(-2, -1)
        logits += bias.to(logits.dtype)
        if mask is not None:
            # (B * nW, h, N, K) -> (B, nW, h, N, K)
            per_image = logits.view(
                logits.shape[0] // mask.shape[0], mask.shape[0], *logits.shape[1:]
            )
            per_image += mask[:, None, None].to(logits.dtype)
        weights = self.attn_drop(logits.softmax(dim=-1)).to(value.dtype)
        return cast(Tensor, weights @ value)

    def attend_fused(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Do the same by torch's fused kernels, without a record and without all weights at once.

        They take bias and mask as one tensor for each window: a few windows at a time.
        """
        bias = bias.to(query.dtype)
        if mask is None:
            parts = iter([(query, key, value, bias[None])])
        else:
            mask = mask.to(bias).repeat(query.shape[0] // mask.shape[0], 1)[:, None, None]
            several = [torch.split(part, FUSED_WINDOWS) for part in (query, key, value, mask)]
            parts = ((q, k, v, bias + own) for q, k, v, own in zip(*several, strict=True))
        return torch.cat([attend(q, k, v, scale=self.scale, bias=own) for q, k, v, own in parts])

    def _keys_values(self, fine: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return keys and values, each (B * nW, h, K, C / h).

        Args:
            fine: keys and values of the tokens, (B, H, W, 2C).
        """
        key_channels = fine.shape[3] // (2 * self.num_heads)
        parts = [expanded_windows(fine, self.window_size, self.expand)]
        if pooled is not None:
            assert self.reach, "pooled windows were given to attention that has none"
            coarse = self.qkv(pooled)[..., pooled.shape[3] :]
            parts.append(pooled_neighbourhoods(coarse, self.reach))
        # (B, H / M, W / M, 2C, E, E) -> (B * nW, 2, h, E * E, C / h)
        keys_values = torch.cat(
            [
                part.permute(0, 1, 2, 4, 5, 3)
                .reshape(-1, part.shape[4] ** 2, 2, self.num_heads, key_channels)
                .permute(0, 2, 3, 1, 4)
                for part in parts
            ],
            dim=3,
        )
        key, value = keys_values.unbind(1)
        return key, value
