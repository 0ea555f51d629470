"""The CPU's window attention as an operation of torch, for compilers: they take it whole, at any
size. Eager code calls the autograd function, which costs less a call.

Letters: B batch; H, W token grid; C channels; h heads; d = C / h; N tokens and nW windows an image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swin_dense.ops import _window_attention_cpu

_KEPT = "Tensor out, Tensor packed, Tensor weights, Tensor inverse"
_SIZES = "int window_size, int shift, float scale"


@torch.library.custom_op(
    "swin_dense::window_attention_cpu",
    mutates_args=(),
    schema=f"(Tensor qkv, Tensor? pad, Tensor bias, {_SIZES}) -> ({_KEPT})",
)
def attend(
    qkv: Tensor, pad: Tensor | None, bias: Tensor, window_size: int, shift: int, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`swin_dense.ops._window_attention_cpu.attend`."""
    return _window_attention_cpu.attend(qkv, pad, bias, window_size, shift, scale)


@attend.register_fake
def _(
    qkv: Tensor, pad: Tensor | None, bias: Tensor, window_size: int, shift: int, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, height, width, channels = qkv.shape
    heads, tokens = bias.shape[:2]
    rows, columns = (side + window_size - 1 for side in (height, width))
    windows = heads * batch * (rows // window_size) * (columns // window_size)
    return (
        qkv.new_empty(batch, height, width, channels // 3),
        qkv.new_empty(3 * windows * tokens, channels // 3 // heads),
        qkv.new_empty(windows, tokens, tokens),
        qkv.new_empty(windows, tokens, 1),
    )


@torch.library.custom_op(
    "swin_dense::window_attention_cpu_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {_KEPT}, {_SIZES}) -> (Tensor to_qkv, Tensor to_pad, Tensor to_bias)",
)
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
    """See :func:`swin_dense.ops._window_attention_cpu.attend_backward`."""
    return _window_attention_cpu.attend_backward(
        grad, out, packed, weights, inverse, window_size, shift, scale
    )


@attend_backward.register_fake
def _(
    grad: Tensor,
    out: Tensor,
    packed: Tensor,
    weights: Tensor,
    inverse: Tensor,
    window_size: int,
    shift: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, height, width, channels = out.shape
    tokens = weights.shape[1]
    return (
        out.new_empty(batch, height, width, 3 * channels),
        out.new_empty(3 * channels),
        out.new_empty(channels // packed.shape[1], tokens, tokens),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output)
    ctx.sizes = inputs[3:]
    ctx.dtypes = [None if given is None else given.dtype for given in inputs[:3]]


def _backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Any, ...]:
    gradients = attend_backward(grad, *ctx.saved_tensors, *ctx.sizes)
    given = zip(gradients, ctx.dtypes, strict=True)
    return (*(None if dtype is None else grad.to(dtype) for grad, dtype in given), None, None, None)


attend.register_autograd(_backward, setup_context=_setup_context)
