"""Which library multiplies matrices on the CPU.

torch sends float32 products to MKL, which leaves half or more of some processors idle (AMD's, for
one); oneDNN, also inside torch, does not. But oneDNN generates a kernel for each new shape, and
that costs more than a small product. torch has one switch for all of it, and it is a global one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

from swin_dense.ops._threads import one_thread


@lru_cache(maxsize=1)
def has_onednn() -> bool:
    """Whether this torch has oneDNN's linear layer."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def send_products_to_onednn() -> bool:
    """Let oneDNN run all float32 matrix products of this process; return whether it does."""
    if torch.cuda.is_available() or not _onednn_is_exact():
        return False
    torch.set_float32_matmul_precision("medium")
    return True


def has_matrix_units() -> bool:
    """Whether the processor has units for matrices in bfloat16 (AMX)."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return supported is not None and bool(supported())


@contextmanager
def products_in_onednn() -> Iterator[None]:
    """Run float32 products in oneDNN inside the block, where it is exact."""
    with _precision("medium" if _onednn_is_exact() else torch.get_float32_matmul_precision()):
        yield


@contextmanager
def many_small_products() -> Iterator[None]:
    """Run products of ever new shapes inside the block: on one thread, float32 not in oneDNN."""
    with one_thread(), _precision("highest"):
        yield


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@lru_cache(maxsize=1)
def _onednn_is_exact() -> bool:
    """Whether torch's switch to oneDNN keeps float32 exact on this processor.

    The switch is called "medium" precision and permits bfloat16 inside a product. Where the
    processor has no units for that (AMX), oneDNN computes in float32 all the same, to the last
    bits. So products in the shapes that a detector has are looked at.
    """
    if not has_onednn():
        return False
    draw = torch.Generator().manual_seed(0)
    with _precision("medium"):
        for rows, inner, columns in ((64, 96, 288), (49, 32, 49), (512, 1024, 256)):
            left = torch.rand(2, rows, inner, generator=draw) + 1.0
            right = torch.rand(2, inner, columns, generator=draw) + 1.0
            exact = left.double() @ right.double()
            for product, expected in ((left @ right, exact), (left[0] @ right[0], exact[0])):
                # float32 errs by less than 1e-6 of such sums of positive terms, bfloat16 by 1e-4
                if ((product - expected).abs() / expected).max() > 5e-6:
                    return False
    return True
