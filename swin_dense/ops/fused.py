"""Whether window attention goes through one fused kernel, and the way into it.

It does by itself on an NVIDIA GPU of compute capability 8.0 or more with triton importable, unless
``SWIN_DENSE_FUSED_ATTENTION=0`` is in the environment when this module is imported. Elsewhere the
plain version in swin_dense.layers.window_attention runs, which is also what the kernels are tested
against.

Letters: B batch; H, W token grid; C channels; h heads; M window side.
"""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor, nn

from swin_dense.errors import UserError
from swin_dense.ops import _window_attention_op

SWITCH = "SWIN_DENSE_FUSED_ATTENTION"
"""Environment variable: 0 keeps to the plain version, 1 (or nothing) takes the kernel."""

ENABLED = os.environ.get(SWITCH) or "1"
"""The switch as it was at import; a compiled model notices when it changes."""

MAX_WINDOW = 16
"""A larger window would have to be cut into more blocks than the registers of a program hold."""

HEAD_DIMS = (16, 32, 64)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def applies(tokens: Tensor, *, num_heads: int, window_size: int, attn_drop: nn.Module) -> bool:
    """Whether :func:`window_attention` takes the place of the plain version for these tokens.

    Args:
        tokens: (B, H, W, C), what queries, keys and values are made from.
        num_heads: h; each of C / h channels.
        window_size: M.
        attn_drop: dropout on the attention weights; the kernel has none.

    Raises:
        UserError: the environment variable has a value other than 0 and 1.
    """
    if ENABLED not in ("0", "1"):
        raise UserError(
            f"{SWITCH} is {ENABLED!r}; expected 0 (plain window attention) or 1 (the fused kernel "
            "where it applies). Mend or unset it."
        )
    if ENABLED == "0" or not has_kernels(tokens.device):
        return False
    dropout = attn_drop.training and getattr(attn_drop, "p", 0.0) > 0.0
    return (
        tokens.dtype in DTYPES
        and tokens.shape[-1] // num_heads in HEAD_DIMS
        and window_size <= MAX_WINDOW
        and not dropout
        and not torch.jit.is_tracing()
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


@torch.compiler.assume_constant_result
def has_kernels(device: torch.device) -> bool:
    """Whether the kernels run on this device."""
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and importlib.util.find_spec("triton") is not None
    )
