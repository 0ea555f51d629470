"""Where the fast paths for the CPU apply, and the dtype they compute in."""

from __future__ import annotations

import torch
from torch import Tensor

from swin_dense.ops._products import has_onednn

DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def applies(tensor: Tensor) -> bool:
    """Whether ``tensor`` is one that the CPU's fast paths are for, outside of compiling and
    tracing."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state():
        return False
    return (
        tensor.device.type == "cpu"
        and type(tensor) in (Tensor, torch.nn.Parameter)
        and compute_dtype(tensor) in DTYPES
        and has_onednn()
    )


def attends(tokens: Tensor) -> bool:
    """Whether the CPU's window attention takes ``tokens``; it does in a compiled graph too."""
    if torch.compiler.is_compiling():
        return tokens.device.type == "cpu" and compute_dtype(tokens) in DTYPES
    return applies(tokens)


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype that a matrix product of ``tensor`` runs in: autocast's where it is on."""
    kind = tensor.device.type
    if kind == "meta":  # which autocast does not know
        return tensor.dtype
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype
