"""The fast paths of Swin's layers, one face for all devices.

A fast path is taken by itself where it applies; ``SWIN_DENSE_FAST=0`` in the environment, or
``with plain():``, keeps every layer on its plain twin.
Letters: B batch; H, W token grid; C channels; h heads; M window side; N = M * M.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.ops import _cpu, _gpu, _window_attention_cpu_op
from swin_dense.ops._cpu import compute_dtype
from swin_dense.ops._linear_cpu import LinearCpu, product
from swin_dense.ops._products import send_products_to_onednn
from swin_dense.ops._window_attention_cpu import WindowAttentionCpu

__all__ = [
    "applies",
    "attends",
    "attend_in_kernel",
    "compute_dtype",
    "enabled",
    "has_attention_kernel",
    "linear",
    "linear_gelu",
    "plain",
    "send_products_to_onednn",
    "window_attention",
]

_enabled = os.environ.get("SWIN_DENSE_FAST", "1") != "0"


@contextmanager
def plain() -> Iterator[None]:
    """Keep every layer on its plain twin inside the block."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def enabled() -> bool:
    """Whether fast paths are on."""
    return _enabled


def applies(tokens: Tensor) -> bool:
    """Whether a fast path is on for such a tensor."""
    return _enabled and _cpu.applies(tokens)


def attends(tokens: Tensor) -> bool:
    """Whether :func:`window_attention` takes what is made from such tokens."""
    return _enabled and _cpu.attends(tokens)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``inputs @ weight.T + bias``; :func:`torch.nn.functional.linear` is the plain twin.

    Args:
        inputs: (..., I).
        weight: (O, I).
        bias: (O,) or None.

    Returns:
        (..., O), in the dtype of autocast where it is on.
    """
    if not applies(inputs) or inputs.numel() == 0:
        return F.linear(inputs, weight, bias)
    multiply: Any = LinearCpu.apply
    result: Tensor = multiply(inputs, weight, bias, compute_dtype(inputs))
    return result


def linear_gelu(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the exact GELU of :func:`linear`, in one pass where no gradient is asked for."""
    if torch.is_grad_enabled() or not applies(inputs) or inputs.numel() == 0:
        return F.gelu(linear(inputs, weight, bias))
    return product(inputs.to(compute_dtype(inputs)), weight, bias, gelu=True)


def window_attention(
    qkv: Tensor,
    pad: Tensor | None,
    bias: Tensor,
    *,
    window_size: int,
    shift: int,
    scale: float,
) -> Tensor:
    """Attend inside (shifted) windows of a grid; call it where :func:`attends`.

    A grid that is no multiple of the window is padded, and its padded places take part as tokens
    that all have the same query, key and value. The plain twin is the layer's own path through
    :mod:`swin_dense.ops.windows`.

    Args:
        qkv: (B, H, W, 3C): queries, keys, values, each head by head.
        pad: (3C,) of a padded place; None for zeros.
        bias: (h, N, N) added to the logits of each (query, key) pair.
        window_size: side M of a window, in tokens.
        shift: tokens that the windows are shifted by; 0 for none.
        scale: factor of the dot products.

    Returns:
        (B, H, W, C) in the dtype of ``qkv``.
    """
    if torch.compiler.is_compiling():
        return _window_attention_cpu_op.attend(qkv, pad, bias, window_size, shift, scale)[0]
    if qkv.numel() == 0:  # gradients are zero then, not absent
        zero = 0 * (bias.sum() + (0 if pad is None else pad.sum()))
        return qkv[..., : qkv.shape[-1] // 3] + zero.to(qkv.dtype)
    attend: Any = WindowAttentionCpu.apply
    result: Tensor = attend(qkv.contiguous(), pad, bias, window_size, shift, scale)
    return result


def has_attention_kernel(tokens: Tensor, *, num_heads: int, window_size: int, cosine: bool) -> bool:
    """Whether :func:`attend_in_kernel` takes what is made from such tokens (B, H, W, C)."""
    return _enabled and _gpu.applies(
        tokens, num_heads=num_heads, window_size=window_size, cosine=cosine
    )


def attend_in_kernel(
    qkv: Tensor,
    pad: Tensor | None,
    table: Tensor,
    *,
    num_heads: int,
    window_size: int,
    shift: int,
    scale: float | Tensor,
) -> Tensor:
    """Attend like :func:`window_attention`, in one kernel on a GPU that copies nothing.

    Args:
        qkv: (B, H, W, 3C): queries, keys, values, each head by head.
        pad: (3C,) of a padded place; None for zeros.
        table: ((2R + 1) ** 2, h) position biases of the offsets -R..R, rows first; R >= M - 1.
        num_heads: h.
        window_size: side M of a window, in tokens.
        shift: tokens that the windows are shifted by; 0 for none.
        scale: factor of the dot products; or (h,), factors of the cosines.

    Returns:
        (B, H, W, C) in the dtype of ``qkv``.
    """
    return _gpu.window_attention(
        qkv, pad, table, num_heads=num_heads, window_size=window_size, shift=shift, scale=scale
    )
