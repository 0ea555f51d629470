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
        batch, height, width, channels = qkv.shape
        heads, tokens = bias.shape[:2]
        plan = window_plan((batch, height, width), window_size, shift, heads)
        packed = _to_windows(qkv.view(-1, channels // 3 // heads), plan.triple, pad)
        query, key, value = packed.view(3, -1, tokens, packed.shape[-1])  # (h * B * nW, N, d) each
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
        inverse = sums.reciprocal_().to(qkv.dtype)  # (h * B * nW, N, 1)
        mixed = torch.bmm(weights, value).mul_(inverse)
        rows = mixed.view(-1, mixed.shape[-1]).index_select(0, plan.single.to_grid)
        out = rows.view(batch, height, width, -1)
        ctx.save_for_backward(packed, weights, inverse, out)
        ctx.plan, ctx.scale, ctx.heads = plan, scale, heads
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of qkv, pad and bias."""
        packed, weights, inverse, out = ctx.saved_tensors
        plan, heads, tokens, dim = ctx.plan, ctx.heads, weights.shape[1], packed.shape[1]
        query, key, value = packed.view(3, -1, tokens, dim)
        grad = grad.to(out.dtype)
        # sum over keys of weight * its gradient, which is grad . out
        along = (grad * out).view(-1, dim).sum(-1, keepdim=True)
        along = _to_windows(along, plan.single).view_as(inverse).mul_(inverse)
        rows = _to_windows(grad.reshape(-1, dim), plan.single).view(-1, tokens, dim).mul_(inverse)
        back = torch.empty_like(packed).view(3, -1, tokens, dim)
        torch.bmm(weights.transpose(1, 2), rows, out=back[2])
        logits = torch.bmm(rows, value.transpose(1, 2))
        # written out, because torch broadcasts bfloat16 rows of odd length slowly
        logits.sub_(along.expand_as(logits).contiguous()).mul_(weights)
        torch.bmm(logits, key, out=back[0]).mul_(ctx.scale)
        torch.bmm(logits.transpose(1, 2), query, out=back[1]).mul_(1 / LOG2_E)
        back = back.view(-1, dim)
        to_pad = to_bias = None
        if ctx.needs_input_grad[1]:
            to_pad = torch.zeros(3 * heads * dim, dtype=back.dtype)
            if plan.triple.padded is not None:
                lost = back.index_select(0, plan.triple.padded)
                to_pad = lost.view(3 * heads, -1, dim).sum(1).flatten()
        if ctx.needs_input_grad[2]:
            to_bias = logits.view(heads, -1, tokens, tokens).sum(1)
        to_qkv = back.index_select(0, plan.triple.to_grid).view(*out.shape[:-1], -1)
        return to_qkv, to_pad, to_bias, None, None, None


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
    rows, columns = logits.shape[2:4]
    mask = _mask_base2(rows, columns, window_size, shift, logits.dtype)
    logits[:, :, -1].add_(mask[-1])
    logits[:, :, :-1, -1].add_(mask[:-1, -1])


@lru_cache(maxsize=16)
def _mask_base2(
    rows: int, columns: int, window_size: int, shift: int, dtype: torch.dtype
) -> Tensor:
    grid_hw = (rows * window_size, columns * window_size)
    mask = shifted_window_mask(grid_hw, window_size, shift) * LOG2_E
    return mask.to(dtype).view(rows, columns, window_size**2, window_size**2)
