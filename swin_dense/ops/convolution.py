"""Convolutions of necks and heads on the CPU, with less to multiply.

Two savings, each where it applies: wide 3 x 3 kernels over large maps run by Winograd's method, and
a gradient that is 0 at most places, as a region proposal network's is, is computed from the others
alone. The plain twin is :func:`torch.nn.functional.conv2d`; the switch is that of
:mod:`swin_dense.ops.fused`.

Letters: B images; H, W map; C, O input and output channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from swin_dense.ops import _winograd, fused
from swin_dense.ops._convolution_places import gradients_of_places, places_with_gradient
from swin_dense.ops._products import has_matrix_units, products_in_onednn

__all__ = ["applies", "convolve"]

_WIDE = {torch.float64: 96.0, torch.float32: 96.0, torch.bfloat16: 256.0}
"""Least C * O / (C + O) for Winograd's method: below, transforms cost what products save. For
bfloat16 it computes in float32, and saves where the processor has no matrix units (AMX)."""

_MANY_TILES = 96
"""Least tiles of 4 x 4 outputs for it: below, the kernel's own transform costs too much."""

_FEW = 0.1
"""Greatest share of places with a gradient that are taken one by one."""


def applies(inputs: Tensor, weight: Tensor) -> bool:
    """Whether :func:`convolve` does anything that torch's own convolution does not."""
    if not fused.applies(inputs) or inputs.dim() != 4 or inputs.numel() == 0:
        return False
    asks_gradient = torch.is_grad_enabled() and (inputs.requires_grad or weight.requires_grad)
    return asks_gradient or _suits_winograd(inputs, weight, (1, 1))


def convolve(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]
) -> Tensor:
    """Return a convolution of stride 1; call it where it :func:`applies`.

    Args:
        inputs: (B, C, H, W).
        weight: (O, C, kh, kw).
        bias: (O,) or None.
        padding: zeros around the map, of its height and width.

    Returns:
        (B, O, H', W'), in the dtype of autocast where it is on.
    """
    dtype = fused.compute_dtype(inputs)
    run: Any = _Convolution.apply
    result: Tensor = run(inputs, weight, bias, padding, dtype)
    return result


class _Convolution(torch.autograd.Function):
    """Ties the ways forward and backward together."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        padding: tuple[int, int],
        dtype: torch.dtype,
    ) -> Tensor:
        inputs, weight = _channels_last(inputs.to(dtype)), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        ctx.save_for_backward(inputs, weight)
        ctx.padding, ctx.winograd = padding, _suits_winograd(inputs, weight, padding)
        with torch.autocast("cpu", enabled=False):
            if ctx.winograd:
                with products_in_onednn():
                    return _winograd.convolve(_grid(inputs), weight, bias)
            return F.conv2d(inputs, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        to_maps, to_weight, to_bias = ctx.needs_input_grad[:3]
        grad = _channels_last(grad.to(weight.dtype))
        touched = places_with_gradient(grad)
        rows = touched.flatten().nonzero().flatten()
        few = len(rows) <= _FEW * touched.numel()
        with torch.autocast("cpu", enabled=False):
            if not (few or ctx.winograd):
                return *_torch_gradients(ctx, grad, inputs, weight), None, None
            maps, flow = _grid(inputs), _grid(grad)
            wanted = dict(to_maps=to_maps, to_weight=to_weight)
            if few:
                found = gradients_of_places(maps, weight, flow, rows, ctx.padding, **wanted)
            else:
                found = _winograd_gradients(maps, weight, flow, touched, **wanted)
            grad_bias = flow.view(-1, flow.shape[-1]).sum(0) if to_bias else None
        return *found, grad_bias, None, None


def _winograd_gradients(
    maps: Tensor, weight: Tensor, grad: Tensor, touched: Tensor, *, to_maps: bool, to_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    own, around = _winograd.tiles_touched(touched)
    turned = _winograd.turned(weight)
    with products_in_onednn():
        return (
            _winograd.convolve(grad, turned, None, around) if to_maps else None,
            _winograd.weight_gradient(maps, grad, own) if to_weight else None,
        )


def _torch_gradients(
    ctx: Any, grad: Tensor, inputs: Tensor, weight: Tensor
) -> tuple[Tensor | None, ...]:
    bias_sizes, mask = [len(weight)], list(ctx.needs_input_grad[:3])
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        grad, inputs, weight, bias_sizes, [1, 1], ctx.padding, [1, 1], False, [0, 0], 1, mask
    )
    return found


def _suits_winograd(inputs: Tensor, weight: Tensor, padding: tuple[int, int]) -> bool:
    if weight.shape[2:] != (3, 3) or padding != (1, 1):
        return False
    dtype = fused.compute_dtype(inputs)
    if dtype == torch.bfloat16 and has_matrix_units():
        return False
    outputs, channels = weight.shape[:2]
    batch, _, height, width = inputs.shape
    tiles = batch * -(-height // _winograd.OUT) * -(-width // _winograd.OUT)
    wide = channels * outputs / (channels + outputs)
    return wide >= _WIDE[dtype] and tiles >= _MANY_TILES


def _channels_last(maps: Tensor) -> Tensor:
    """Return (B, C, H, W) with the channels of a place side by side, as all that is here likes."""
    return maps.contiguous(memory_format=torch.channels_last)


def _grid(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).contiguous()  # (B, C, H, W) -> (B, H, W, C)
