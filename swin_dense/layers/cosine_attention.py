"""Window attention of Swin V2: scaled cosines, and position biases from a small network.

Source: Swin Transformer V2 (https://arxiv.org/abs/2111.09883), sections 3.3 and 3.4.
Letters: B batch; C channels; M window side; N = M * M; nW windows an image; h heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.layers.linear import Linear
from swin_dense.layers.window_attention import ShiftedWindows
from swin_dense.ops import fused
from swin_dense.ops.windows import relative_position_index

CPB_HIDDEN = 512
"""Hidden width of the network that turns offsets into biases."""

MAX_LOGIT_SCALE = math.log(100.0)


class CosineWindowAttention(ShiftedWindows):
    """(Shifted) window attention with cosine logits and log-spaced continuous position bias.

    The bias is a function of the offset over the window that the weights were trained with, so
    another window needs no resized table, only ``pretrained_window_size`` (0: this very window).
    """

    cosine = True
    relative_position_index: Tensor
    relative_coords_table: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int,
        shift: int = 0,
        qkv_bias: bool = True,
        pretrained_window_size: int = 0,
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
        self.pretrained_window_size = pretrained_window_size
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10.0)))
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, CPB_HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(CPB_HIDDEN, num_heads, bias=False),
        )
        self.register_buffer(
            "relative_coords_table",
            log_spaced_offsets(window_size, pretrained_window_size),
            persistent=False,
        )
        self.register_buffer(
            "relative_position_index", relative_position_index(window_size), persistent=False
        )
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.q_bias: nn.Parameter | None = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias: nn.Parameter | None = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop_rate)

    def relative_position_bias(self, window_size: int | None = None) -> Tensor:
        """Return the bias (h, N, N) of every (query, key) pair, each between 0 and 16."""
        index = self.relative_position_index
        if window_size is not None and window_size != self.window_size:
            index = relative_position_index(window_size).to(index.device)
        pairs = self._bias_table(window_size)[index.flatten()].view(*index.shape, -1)
        # (N, N, h) -> (h, N, N)
        return 16 * torch.sigmoid(pairs.permute(2, 0, 1))

    def _bias_table(self, window_size: int | None = None) -> Tensor:
        """Return the network's ((2M - 1) ** 2, h) outputs, one row for each offset."""
        coords = self.relative_coords_table
        if window_size is not None and window_size != self.window_size:
            coords = log_spaced_offsets(window_size, self.pretrained_window_size).to(coords)
        return self.cpb_mlp(coords).view(-1, self.num_heads)

    def scaled_for_products(self, tokens: Tensor) -> tuple[Tensor, Tensor | None, float]:
        """Return (B, H, W, 3C) with unit queries and keys, the scale in the queries, and a zero
        token's."""
        bias = self._qkv_bias()
        qkv = self._normalised(fused.linear(tokens, self.qkv.weight, bias))
        return qkv, None if bias is None else self._normalised(bias), 1.0

    def _normalised(self, qkv: Tensor) -> Tensor:
        """Scale queries and keys among (..., 3C), head by head, to what the logits multiply."""
        size = qkv.shape[-1] // (3 * self.num_heads)
        query, key, value = qkv.view(*qkv.shape[:-1], 3, self.num_heads, size).unbind(-3)
        exact = torch.promote_types(qkv.dtype, torch.float32)
        query = (unit_vectors(query.to(exact)) * self._scale().squeeze(-1)).to(qkv.dtype)
        return torch.stack([query, unit_vectors(key), value], dim=-3).flatten(-3)

    def attend_in_kernel(self, tokens: Tensor, window_size: int, shift: int) -> Tensor:
        """Map (B, H, W, C) to the mixed values (B, H, W, C), in one kernel on a GPU."""
        bias = self._qkv_bias()
        return fused.attend_in_kernel(
            fused.linear(tokens, self.qkv.weight, bias),
            bias,
            16 * torch.sigmoid(self._bias_table(window_size)),
            num_heads=self.num_heads,
            window_size=window_size,
            shift=shift,
            scale=self._scale().flatten(),
        )

    def queries_keys_values(self, windows: Tensor) -> Tensor:
        """Map (B * nW, N, C) to (B * nW, N, 3C); keys have no bias."""
        return F.linear(windows, self.qkv.weight, self._qkv_bias())

    def _qkv_bias(self) -> Tensor | None:
        if self.q_bias is None or self.v_bias is None:
            return None
        return torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])

    def logits(self, query: Tensor, key: Tensor) -> Tensor:
        """Cosines times a learned scale of at most 100 for each head, (B * nW, h, N, N)."""
        cosines = unit_vectors(query) @ unit_vectors(key).transpose(-2, -1)
        return cosines * self._scale()

    def _scale(self) -> Tensor:
        """Return the factor (h, 1, 1) of the cosines."""
        return self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()


def unit_vectors(vectors: Tensor) -> Tensor:
    """Scale (..., C) to length 1 on the last axis, at least in float32; a zero vector stays zero,
    with zero gradient.

    A padded token is a zero key, for keys have no bias. Dividing by a length clamped at 1e-12, as
    the official code does, gives the same numbers in float32, but NaN in float16, where 1e-12 is 0,
    and gradients of 1e12 at the zero vector.
    """
    exact = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    squares = exact.square().sum(dim=-1, keepdim=True)
    tiny = squares < 1e-12
    inverse = torch.where(tiny, 0.0, squares.masked_fill(tiny, 1.0).rsqrt())
    return (exact * inverse).to(vectors.dtype)


def log_spaced_offsets(window_size: int, pretrained_window_size: int) -> Tensor:
    """Return the (1, 2M-1, 2M-1, 2) offsets (rows, columns) as the bias network sees them.

    An offset of the whole pretrained window is 1; sign(x) * log2(1 + |8x|) / log2(8) of it.
    """
    reach = max((pretrained_window_size or window_size) - 1, 1)
    axis = torch.arange(1 - window_size, window_size, dtype=torch.float32)
    offsets = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)[None] * (8 / reach)
    return offsets.sign() * torch.log2(offsets.abs() + 1.0) / 3.0
