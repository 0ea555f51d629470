"""Fused window attention as operations of torch: schemas, shapes for the compiler, autograd.

The bodies import triton when they run, not before; a compiler sees the operations as they are, so
they break no graph.

Letters: B batch; H, W token grid; C channels; h heads; M window side; N = M * M; nW windows an
image; T rows of the bias table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_INPUTS = (
    "Tensor qkv, Tensor? pad, Tensor table, Tensor? scales, "
    "int num_heads, int window_size, int shift, float scale"
)


@torch.library.custom_op(
    "swin_dense::window_attention",
    mutates_args=(),
    schema=f"({_INPUTS}) -> (Tensor out, Tensor lse)",
)
def window_attention(
    qkv: Tensor,
    pad: Tensor | None,
    table: Tensor,
    scales: Tensor | None,
    num_heads: int,
    window_size: int,
    shift: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attend in the (shifted) windows of a grid.

    Args:
        qkv: (B, H, W, 3C) queries, keys and values, any H and W.
        pad: (3C) those of a padded token; zeros where None.
        table: (T, h) position biases, T = (2R + 1) ** 2 for offsets of up to R >= M - 1.
        scales: (h) factors on the cosines of queries and keys; plain products where None.
        num_heads: h.
        window_size: M.
        shift: cyclic shift of the windows in tokens, less than M.
        scale: factor on the products, where ``scales`` is None.

    Returns:
        (B, H, W, C) mixed values, and (B * nW, h, N) float32 log2 of the sums of the softmax.
    """
    from swin_dense.ops import _window_attention_triton as kernels

    return kernels.forward(qkv, pad, table, scales, num_heads, window_size, shift, scale)


@window_attention.register_fake
def _(
    qkv: Tensor,
    pad: Tensor | None,
    table: Tensor,
    scales: Tensor | None,
    num_heads: int,
    window_size: int,
    shift: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    batch, height, width, channels = qkv.shape
    windows = batch * (-(-height // window_size)) * (-(-width // window_size))
    return (
        qkv.new_empty(batch, height, width, channels // 3),
        qkv.new_empty(windows, num_heads, window_size * window_size, dtype=torch.float32),
    )


@torch.library.custom_op(
    "swin_dense::window_attention_backward",
    mutates_args=(),
    schema=(
        f"(Tensor out_grad, Tensor out, Tensor lse, {_INPUTS}) -> "
        "(Tensor qkv_grad, Tensor pad_grad, Tensor table_grad, Tensor scales_grad)"
    ),
)
def window_attention_backward(
    out_grad: Tensor,
    out: Tensor,
    lse: Tensor,
    qkv: Tensor,
    pad: Tensor | None,
    table: Tensor,
    scales: Tensor | None,
    num_heads: int,
    window_size: int,
    shift: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the four tensors, in their types; empty where there was None."""
    from swin_dense.ops import _window_attention_triton as kernels

    return kernels.backward(
        out_grad, out, lse, qkv, pad, table, scales, num_heads, window_size, shift, scale
    )


@window_attention_backward.register_fake
def _(
    out_grad: Tensor,
    out: Tensor,
    lse: Tensor,
    qkv: Tensor,
    pad: Tensor | None,
    table: Tensor,
    scales: Tensor | None,
    num_heads: int,
    window_size: int,
    shift: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        qkv.new_empty(qkv.shape),
        qkv.new_empty(0) if pad is None else pad.new_empty(pad.shape),
        table.new_empty(table.shape),
        qkv.new_empty(0) if scales is None else scales.new_empty(scales.shape),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, pad, table, scales, *ctx.sizes = inputs
    ctx.save_for_backward(*output, qkv, pad, table, scales)


def _backward(ctx: Any, out_grad: Tensor, lse_grad: Tensor) -> tuple[Any, ...]:
    out, lse, qkv, pad, table, scales = ctx.saved_tensors
    qkv_grad, pad_grad, table_grad, scales_grad = window_attention_backward(
        out_grad, out, lse, qkv, pad, table, scales, *ctx.sizes
    )
    return (
        qkv_grad,
        None if pad is None else pad_grad,
        table_grad,
        None if scales is None else scales_grad,
        *(None for _ in ctx.sizes),
    )


window_attention.register_autograd(_backward, setup_context=_setup_context)
