"""Where the fused kernels for GPUs apply, and the way into them.

They do on an NVIDIA GPU of compute capability 8.0 or more where triton is importable and they agree
with plain torch on that very device.

Letters: B batch; H, W token grid; C channels; h heads; M window side.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from swin_dense.ops import _window_attention_check, _window_attention_op
from swin_dense.ops._cpu import compute_dtype

MAX_WINDOW = 16
"""A larger window would have to be cut into more blocks than the registers of a program hold."""

HEAD_DIMS = (16, 32, 64)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OLDEST_TRITON = (3, 3)

_VERDICTS: dict[tuple[object, ...], bool] = {}
_Function = TypeVar("_Function", bound=Callable[..., bool])


def _constant(function: _Function) -> _Function:
    """Have a compiler call the function while it traces, and keep the answer.

    As ``torch.compiler.assume_constant_result``, which imports the compiler, and that triton.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


def applies(tokens: Tensor, *, num_heads: int, window_size: int, cosine: bool) -> bool:
    """Whether :func:`window_attention` takes these tokens, its weights not dropped.

    Args:
        tokens: (B, H, W, C), what queries, keys and values are made from.
        num_heads: h; each of C / h channels.
        window_size: M.
        cosine: whether queries and keys are compared by their cosines.
    """
    dtype, head_dim = tokens.dtype, tokens.shape[-1] // num_heads
    if dtype not in DTYPES or not has_kernels(tokens.device):
        return False
    dtype = compute_dtype(tokens)
    return (
        dtype in DTYPES
        and head_dim in HEAD_DIMS
        and window_size <= MAX_WINDOW
        and not torch._C._get_tracing_state()
        and _agrees(tokens.device, dtype, head_dim, window_size, cosine)
    )


def window_attention(
    qkv: Tensor,
    pad: Tensor | None,
    table: Tensor,
    *,
    num_heads: int,
    window_size: int,
    shift: int,
    scale: float | Tensor,
) -> Tensor:
    """Shift, cut into windows, attend, put back: one pass over (B, H, W, 3C), nothing copied.

    Args:
        qkv: (B, H, W, 3C) queries, keys and values of the tokens, before any padding.
        pad: (3C) those of a padded token, which is the bias that made ``qkv``; None for zeros.
        table: ((2R + 1) ** 2, h) position biases of the offsets -R..R, rows first; R >= M - 1.
        num_heads: h.
        window_size: M.
        shift: cyclic shift in tokens, less than M.
        scale: factor on the products of queries and keys; or (h), factors on their cosines.

    Returns:
        (B, H, W, C).
    """
    scales = scale if isinstance(scale, Tensor) else None
    out, _ = _window_attention_op.window_attention(
        qkv,
        None if pad is None else pad.to(qkv.dtype),
        table,
        scales,
        num_heads,
        window_size,
        shift,
        1.0 if isinstance(scale, Tensor) else scale,
    )
    return out


@_constant
def has_kernels(device: torch.device) -> bool:
    """Whether there are kernels for this device."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        import triton
    except ImportError:
        return False
    return tuple(map(int, triton.__version__.split(".")[:2])) >= OLDEST_TRITON


@_constant
def _agrees(
    device: torch.device, dtype: torch.dtype, head_dim: int, window_size: int, cosine: bool
) -> bool:
    """Whether the kernels compile and agree there; asked once, and a no is said aloud."""
    key = (device, dtype, head_dim, window_size, cosine)
    if key not in _VERDICTS:
        try:
            # the verdict holds for every later call, so the caller's modes must not sway it
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                torch.autocast(device.type, enabled=False),
            ):
                problem = _window_attention_check.disagreement(
                    device, dtype, head_dim=head_dim, window_size=window_size, cosine=cosine
                )
        # no C compiler for triton's launcher, too little shared memory, ...: all end in plain torch
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        _VERDICTS[key] = problem is None
        if problem is not None:
            warnings.warn(
                f"window attention runs plain, not fused, on {device} in {dtype}: {problem} "
                f"(SWIN_DENSE_FAST=0 silences this)",
                stacklevel=2,
            )
    return _VERDICTS[key]
