"""Linear layers on the CPU through oneDNN, forward and backward, in float32 and bfloat16.

The plain twin is :func:`torch.nn.functional.linear`.
Letters: T tokens; I, O input and output features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class LinearCpu(torch.autograd.Function):
    """``inputs @ weight.T + bias`` computed in ``dtype``: (..., I), (O, I), (O,) -> (..., O)."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """Multiply; keep the inputs and the weight as they were multiplied."""
        inputs, weight = inputs.to(dtype), weight.to(dtype)
        ctx.save_for_backward(inputs, weight)
        return product(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of inputs, weight and bias."""
        inputs, weight = ctx.saved_tensors
        to_inputs, to_weight, to_bias = ctx.needs_input_grad[:3]
        rows = grad.to(weight.dtype).reshape(-1, grad.shape[-1])
        return (
            product(rows, weight.t()).view(inputs.shape) if to_inputs else None,
            sum_of_outer_products(rows, inputs.reshape(len(rows), -1)) if to_weight else None,
            rows.sum(0) if to_bias else None,
            None,
        )


def product(
    inputs: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False
) -> Tensor:
    """Return ``inputs @ weight.T + bias`` in the dtype of ``inputs``, with ``gelu`` its exact GELU,
    applied before the result leaves the cache."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    bias = None if bias is None else bias.to(inputs.dtype)
    if rows.dtype == torch.float64:  # not among oneDNN's
        rows = F.linear(rows, weight, bias)
        return (F.gelu(rows) if gelu else rows).view(*inputs.shape[:-1], -1)
    after, how = ("gelu", "none") if gelu else ("none", "")
    result = torch.ops.mkldnn._linear_pointwise(rows, weight.to(inputs.dtype), bias, after, [], how)
    return result.view(*inputs.shape[:-1], -1)


def sum_of_outer_products(grad: Tensor, inputs: Tensor) -> Tensor:
    """Return (O, I) from (T, O) and (T, I)."""
    tokens, outputs, features = *grad.shape, inputs.shape[1]
    # Over many tokens a wide result is faster than a tall one by more than its transposition costs.
    if outputs > features and tokens > 16 * features:
        return (inputs.t() @ grad).t()
    return grad.t() @ inputs
