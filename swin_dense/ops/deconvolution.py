"""Transposed convolutions whose stride is their kernel, on the CPU: one product and one move.

Each input then reaches outputs of its own, so it is a linear layer to all of them, and the outputs
are put in their places. The plain twin is :func:`torch.nn.functional.conv_transpose2d`; the switch
is that of :mod:`swin_dense.ops.fused`.

Letters: B images; H, W map; C, O input and output channels; kh, kw the kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from swin_dense.ops import fused
from swin_dense.ops._linear_cpu import product, sum_of_outer_products
from swin_dense.ops._products import products_in_onednn

__all__ = ["applies", "deconvolve"]


def applies(inputs: Tensor) -> bool:
    """Whether :func:`deconvolve` takes such maps."""
    return fused.applies(inputs) and inputs.dim() == 4 and inputs.numel() > 0


def deconvolve(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return a transposed convolution with a stride as large as the kernel, without padding.

    Args:
        inputs: (B, C, H, W).
        weight: (C, O, kh, kw).
        bias: (O,) or None.

    Returns:
        (B, O, H * kh, W * kw), in the dtype of autocast where it is on.
    """
    run: Any = _Deconvolution.apply
    result: Tensor = run(inputs, weight, bias, fused.compute_dtype(inputs))
    return result


class _Deconvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        batch, channels, height, width = inputs.shape
        _, outputs, *kernel_hw = weight.shape
        # (B, C, H, W) -> (B * H * W, C)
        rows = inputs.to(dtype).permute(0, 2, 3, 1).reshape(-1, channels)
        # (C, O, kh, kw) -> (kh * kw * O, C)
        taps = weight.to(dtype).permute(2, 3, 1, 0).reshape(-1, channels)
        ctx.save_for_backward(rows, taps)
        ctx.shapes = inputs.shape, weight.shape
        offsets = None if bias is None else bias.repeat(kernel_hw[0] * kernel_hw[1])
        with torch.autocast("cpu", enabled=False):
            reached = product(rows, taps, offsets)
        out = torch.empty(
            (batch, outputs, height * kernel_hw[0], width * kernel_hw[1]),
            dtype=dtype,
            memory_format=torch.channels_last,
        )
        _by_input(out, inputs.shape, kernel_hw).copy_(
            reached.view(batch, height, width, *kernel_hw, outputs)
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, taps = ctx.saved_tensors
        (batch, channels, height, width), (_, outputs, *kernel_hw) = ctx.shapes
        to_inputs, to_weight, to_bias = ctx.needs_input_grad[:3]
        grad = grad.to(rows.dtype)
        flow = _by_input(grad, ctx.shapes[0], kernel_hw).reshape(len(rows), -1)
        grad_inputs = grad_weight = None
        with torch.autocast("cpu", enabled=False), products_in_onednn():
            if to_inputs:
                grad_inputs = product(flow, taps.t()).view(batch, height, width, channels)
                grad_inputs = grad_inputs.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
            if to_weight:
                grad_weight = sum_of_outer_products(flow, rows)
                grad_weight = grad_weight.reshape(*kernel_hw, outputs, channels)
                grad_weight = grad_weight.permute(3, 2, 0, 1).contiguous()
            grad_bias = flow.view(-1, outputs).sum(0) if to_bias else None
        return grad_inputs, grad_weight, grad_bias, None


def _by_input(maps: Tensor, inputs: torch.Size, kernel_hw: list[int]) -> Tensor:
    """Return (B, O, H * kh, W * kw) as a view (B, H, W, kh, kw, O)."""
    cells = maps.view(*maps.shape[:2], inputs[2], kernel_hw[0], inputs[3], kernel_hw[1])
    return cells.permute(0, 2, 4, 3, 5, 1)  # (B, O, H, kh, W, kw) -> (B, H, W, kh, kw, O)
