"""Where the fast paths for the CPU apply, the dtype they compute in, and oneDNN for all products.

oneDNN is the library of CPU kernels inside torch. torch sends float32 matrix products to MKL
instead, which leaves half or more of some processors idle (AMD's, for one).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

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


@lru_cache(maxsize=1)
def has_onednn() -> bool:
    """Whether this torch has oneDNN's linear layer."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def send_products_to_onednn() -> bool:
    """Let oneDNN run all float32 matrix products of this process; return whether it does.

    torch has no switch of that name. ``set_float32_matmul_precision("medium")`` permits bfloat16
    inside a product and hands it to oneDNN; where the processor has no such units (AMX), oneDNN
    computes in float32 all the same, to the last bits. So the switch is set only where a product
    proves exact, and is taken back where it does not.
    """
    if not has_onednn() or torch.cuda.is_available():
        return False
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    if _products_are_exact():
        return True
    torch.set_float32_matmul_precision(before)
    return False


def _products_are_exact() -> bool:
    """Whether products keep what bfloat16 would lose, in the shapes that a detector has."""
    draw = torch.Generator().manual_seed(0)
    for shape in ((64, 96, 288), (49, 32, 49), (512, 1024, 256)):
        rows, inner, columns = shape
        left = torch.rand(2, rows, inner, generator=draw) + 1.0
        right = torch.rand(2, inner, columns, generator=draw) + 1.0
        exact = left.double() @ right.double()
        for product, expected in ((left @ right, exact), (left[0] @ right[0], exact[0])):
            # float32 errs by less than 1e-6 of such sums of positive terms, bfloat16 by 1e-4
            if ((product - expected).abs() / expected).max() > 5e-6:
                return False
    return True
