"""Runs Triton's kernels on the CPU, in Triton's interpreter; for a process of its own.

Triton decides when a kernel is defined whether it is compiled or interpreted, so the variable
TRITON_INTERPRET has to be there before triton is imported, and holds for the whole process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor, nn

from swin_dense.layers.cosine_attention import CosineWindowAttention
from swin_dense.layers.window_attention import ShiftedWindows, WindowAttention
from swin_dense.ops import fused
from swin_dense.ops.windows import shifted_window_mask


@dataclass(frozen=True)
class Case:
    """An attention layer and the grid it is given."""

    grid_hw: tuple[int, int]
    window: int = 7
    shift: int = 0
    heads: int = 2
    head_dim: int = 16
    batch: int = 1
    dtype: torch.dtype = torch.float32
    cosine: bool = False
    qkv_bias: bool = True
    clamp: bool = False
    autocast: bool = False
    backend: str | None = None


@contextmanager
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """Start a process in which triton interprets."""
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        with ProcessPoolExecutor(1, get_context("spawn"), _prepare) as pool:
            pool.submit(os.getpid).result()
            yield pool
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before


def _prepare() -> None:
    """Let the CPU pass for a GPU, several windows to a program; multiply bfloat16 as numbers."""
    from triton.runtime import interpreter as triton_interpreter

    from swin_dense.ops import _window_attention_triton as kernels

    torch.set_num_threads(1)
    fused.has_kernels = lambda device: True
    kernels.PROGRAMS = 8
    builder = triton_interpreter.InterpreterBuilder
    multiply, tl = builder.create_dot, triton_interpreter.tl

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        # Triton 3.7 keeps bfloat16 as its bits, in uint16, and multiplies those
        if a.dtype.scalar == tl.bfloat16:
            a, b = (self.create_fp_ext(factor, tl.float32) for factor in (a, b))
        return multiply(self, a, b, *rest)

    builder.create_dot = create_dot


def build(case: Case) -> tuple[ShiftedWindows, Tensor, Tensor | None]:
    """Return the layer with random parameters, its tokens and its mask."""
    torch.manual_seed(0)
    dim = case.heads * case.head_dim
    kind = CosineWindowAttention if case.cosine else WindowAttention
    layer = kind(
        dim,
        num_heads=case.heads,
        window_size=case.window,
        shift=case.shift,
        qkv_bias=case.qkv_bias,
        clamp_small_maps=case.clamp,
    )
    for name, parameter in layer.named_parameters():
        if name.endswith(("bias", "table")):
            nn.init.normal_(parameter)
    layer.to(case.dtype)
    tokens = torch.randn(case.batch, *case.grid_hw, dim).to(case.dtype).requires_grad_()
    window, shift = layer.window_and_shift(case.grid_hw)
    padded_hw = tuple(-(-side // window) * window for side in case.grid_hw)
    mask = shifted_window_mask(padded_hw, window, shift) if shift else None
    return layer, tokens, mask


def plain_and_fused(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the output and every gradient, by name, of the plain version and of the kernels."""
    return _attend(case, "0"), _attend(case, "1")


def fused_twice(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the same of two runs of the kernels."""
    return _attend(case, "1"), _attend(case, "1")


def _attend(case: Case, switch: str) -> dict[str, Any]:
    layer, tokens, mask = build(case)
    fused.ENABLED = switch
    run: Any = layer
    if switch == "1" and case.backend is not None:
        torch._dynamo.reset()
        run = torch.compile(layer, backend=case.backend, fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=case.autocast):
        out = run(tokens, mask)
    torch.manual_seed(1)
    out.backward(torch.randn(out.shape).to(out.dtype))
    results = {"output": out, "tokens": tokens.grad}
    results |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {name: value.detach().float().numpy() for name, value in results.items()}
