"""Window attention on the CPU in few passes over memory, forward and backward.

One gather shifts, pads, cuts windows and splits heads; one puts all back. The softmax is not
shifted by each row's maximum (a slow reduction over rows of 49) unless a row's sum says that it
must be: base 2, which processors have an instruction for, with log2(e) folded into the queries and
biases. Rows are divided by their sums after the values are mixed, where they are shorter.

Letters: B batch; H, W token grid; C channels; h heads; d = C / h; M window side; N = M * M; nW
windows an image.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from swin_dense.ops._window_plan import Moves, window_plan
from swin_dense.ops.windows import shifted_window_mask

LOG2_E = math.log2(math.e)
SAFE_SUMS = (2.0**-60, 2.0**100)
"""Sums of 2**logit between these have lost nothing that counts to overflow or underflow."""


def attend(
    qkv: Tensor, pad: Tensor | None, bias: Tensor, window_size: int, shift: int, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the mixed values (B, H, W, C), and what :func:`attend_backward` needs of the way.

    That is queries, keys and values in windows (3 * h * B * nW * N, d), the weights before they are
    divided by their sums (h * B * nW, N, N), and one over these sums (h * B * nW, N, 1).
    """
    batch, height, width, channels = qkv.shape
    heads, tokens = bias.shape[:2]
    plan = window_plan((batch, height, width), window_size, shift, heads)
    packed = _to_windows(qkv.reshape(-1, channels // 3 // heads), plan.triple, pad)
    query, key, value = packed.view(3, -1, tokens, packed.shape[-1])
    query.mul_(scale * LOG2_E)
    bias_base2 = (bias * LOG2_E).to(qkv.dtype).contiguous()

    def logits() -> Tensor:
        logits = torch.bmm(query, key.transpose(1, 2))
        logits.view(heads, -1, tokens, tokens).add_(bias_base2[:, None])
        if shift:
            per_window = logits.view(heads, batch, *plan.windows_hw, tokens, tokens)
            _mask(per_window, window_size, shift)
        return logits

    weights, sums = _powers_of_2(logits())
    low, high = sums.aminmax()
    if not (low > SAFE_SUMS[0] and high < SAFE_SUMS[1]):
        shifted = logits()
        weights, sums = _powers_of_2(shifted.sub_(shifted.amax(-1, keepdim=True)))
    inverse = sums.reciprocal_().to(qkv.dtype)
    mixed = torch.bmm(weights, value).mul_(inverse)
    rows = mixed.view(-1, mixed.shape[-1]).index_select(0, plan.single.to_grid)
    return rows.view(batch, height, width, -1), packed, weights, inverse


def attend_backward(
    grad: Tensor,
    out: Tensor,
    packed: Tensor,
    weights: Tensor,
    inverse: Tensor,
    window_size: int,
    shift: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of qkv, pad and bias, in the dtype of qkv."""
    batch, height, width, channels = out.shape
    tokens, dim = weights.shape[1], packed.shape[1]
    heads = channels // dim
    plan = window_plan((batch, height, width), window_size, shift, heads)
    query, key, value = packed.view(3, -1, tokens, dim)
    grad = grad.to(out.dtype)
    # sum over keys of weight * its gradient, which is grad . out
    along = (grad * out).reshape(-1, dim).sum(-1, keepdim=True)
    along = _to_windows(along, plan.single).view_as(inverse).mul_(inverse)
    rows = _to_windows(grad.reshape(-1, dim), plan.single).view(-1, tokens, dim).mul_(inverse)
    back = torch.empty_like(packed).view(3, -1, tokens, dim)
    torch.bmm(weights.transpose(1, 2), rows, out=back[2])
    logits = torch.bmm(rows, value.transpose(1, 2))
    # written out, because torch broadcasts bfloat16 rows of odd length slowly
    logits.sub_(along.expand_as(logits).contiguous()).mul_(weights)
    torch.bmm(logits, key, out=back[0]).mul_(scale)
    torch.bmm(logits.transpose(1, 2), query, out=back[1]).mul_(1 / LOG2_E)
    back = back.view(-1, dim)
    to_pad = back.new_zeros(3 * channels)
    if plan.triple.padded is not None:
        lost = back.index_select(0, plan.triple.padded)
        to_pad = lost.view(3 * heads, -1, dim).sum(1).flatten()
    to_bias = logits.view(heads, -1, tokens, tokens).sum(1)
    to_qkv = back.index_select(0, plan.triple.to_grid).view(batch, height, width, -1)
    return to_qkv, to_pad, to_bias


class WindowAttentionCpu(torch.autograd.Function):
    """See :func:`swin_dense.ops.fused.window_attention`."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        pad: Tensor | None,
        bias: Tensor,
        window_size: int,
        shift: int,
        scale: float,
    ) -> Tensor:
        """(B, H, W, 3C) -> (B, H, W, C)."""
        kept = attend(qkv, pad, bias, window_size, shift, scale)
        ctx.save_for_backward(*kept)
        ctx.sizes = window_size, shift, scale
        return kept[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of qkv, pad and bias."""
        gradients = attend_backward(grad, *ctx.saved_tensors, *ctx.sizes)
        wanted = zip(gradients, ctx.needs_input_grad[:3], strict=True)
        return (*(grad if needed else None for grad, needed in wanted), None, None, None)


def _to_windows(rows: Tensor, moves: Moves, pad: Tensor | None = None) -> Tensor:
    """Gather rows (., d) of the grid into windows; padded places get ``pad`` (parts * d,) or 0."""
    gathered = rows.index_select(0, moves.to_windows)
    if moves.padded is not None and pad is None:
        gathered.index_fill_(0, moves.padded, 0)
    elif moves.padded is not None and pad is not None:
        parts = pad.to(rows.dtype).view(-1, 1, rows.shape[-1])
        filling = parts.expand(-1, len(moves.padded) // len(parts), -1)
        gathered.index_copy_(0, moves.padded, filling.reshape(-1, rows.shape[-1]))
    return gathered


def _powers_of_2(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return 2**logits, in their memory, and the sum of each row, at least in float32."""
    weights = logits.exp2_()
    exact = torch.promote_types(weights.dtype, torch.float32)
    return weights, weights.sum(-1, keepdim=True, dtype=exact)


def _mask(logits: Tensor, window_size: int, shift: int) -> None:
    """Add the shift's mask to (h, B, rows, columns, N, N) in place; only the windows of the last
    row and column have one."""
    last_row, last_column = _mask_base2(logits.shape[3], window_size, shift, logits.dtype)
    logits[:, :, -1].add_(last_row)
    logits[:, :, :-1, -1].add_(last_column)


@lru_cache(maxsize=64)
def _mask_base2(
    columns: int, window_size: int, shift: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the masks of the last row of windows (columns, N, N) and of the last column (N, N)."""
    one_row = shifted_window_mask((window_size, columns * window_size), window_size, shift)
    two_rows = shifted_window_mask((2 * window_size, window_size), window_size, shift)
    return (one_row * LOG2_E).to(dtype), (two_rows[0] * LOG2_E).to(dtype)
