"""Runs Triton's kernels on the CPU, in Triton's interpreter; for a process of its own.

Triton decides when a kernel is defined whether it is compiled or interpreted, so the variable
TRITON_INTERPRET has to be there before triton is imported, and holds for the whole process.
"""

from __future__ import annotations

import os
import warnings
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
from swin_dense.ops import _gpu, fused
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
    before = dict(os.environ)
    os.environ["TRITON_INTERPRET"] = "1"
    with ProcessPoolExecutor(1, get_context("spawn"), _prepare) as pool:
        try:
            pool.submit(os.getpid).result()
        finally:
            os.environ.clear()
            os.environ.update(before)
        yield pool


def _prepare() -> None:
    """Let the CPU pass for a GPU, with several windows to a program; mend bfloat16."""
    from triton.runtime import interpreter as triton_interpreter

    from swin_dense.ops import _window_attention_triton as kernels

    torch.set_num_threads(1)
    _gpu.has_kernels = lambda device: True
    _gpu._VERDICTS = _Trusting()
    kernels.PROGRAMS = 8
    builder, tl = triton_interpreter.InterpreterBuilder, triton_interpreter.tl
    multiply, cast = builder.create_dot, builder.cast_impl

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        # Triton 3.7 keeps bfloat16 as its bits, in uint16, and multiplies those
        if a.dtype.scalar == tl.bfloat16:
            a, b = (self.create_fp_ext(factor, tl.float32) for factor in (a, b))
        return multiply(self, a, b, *rest)

    def cast_impl(self: Any, source: Any, kind: Any) -> Any:
        # Triton 3.7 cuts the last bits off; a GPU rounds to the nearest
        if source.dtype.scalar == tl.float32 and kind.scalar == tl.bfloat16:
            nearest = torch.from_numpy(source.data).bfloat16().view(torch.int16).numpy()
            return triton_interpreter.TensorHandle(nearest.view("uint16"), tl.bfloat16)
        return cast(self, source, kind)

    builder.create_dot, builder.cast_impl = create_dot, cast_impl


class _Trusting(dict[Any, bool]):
    """A verdict for every layer: that the kernels agree. Their own check would double the time."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: object) -> bool:
        return True


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
    with fused.plain():
        plain = _attend(case)
    return plain, _attend(case, backend=case.backend)


def fused_results(case: Case) -> dict[str, Any]:
    """Return the output and every gradient of the kernels."""
    return _attend(case)


def in_float32(case: Case) -> dict[str, Any]:
    """Return the same of the plain version, on the case's numbers but multiplied in float32."""
    with fused.plain():
        return _attend(case, exact=True)


def own_check(window: int, cosine: bool, error: str | None) -> tuple[bool, str]:
    """Return the kernels' verdict on themselves, and the warning with it.

    Args:
        window: side of the windows.
        cosine: whether it is Swin V2's attention.
        error: None, "wrong" for a kernel that is a little off, or the message it fails with.
    """
    from swin_dense.ops import _window_attention_triton as kernels

    right, verdicts = kernels.forward, _gpu._VERDICTS

    def wrong(*arguments: Any) -> tuple[Tensor, Tensor]:
        if error != "wrong":
            raise RuntimeError(error)
        out, lse = right(*arguments)
        return out + 0.001, lse

    _gpu._VERDICTS = {}
    if error is not None:
        kernels.forward = wrong
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16),
        ):
            warnings.simplefilter("always")
            sizes = (torch.device("cpu"), torch.float32, 16, window, cosine)
            state = torch.get_rng_state()
            verdict = _gpu._agrees(*sizes)
            assert _gpu._agrees(*sizes) is verdict
            assert torch.equal(torch.get_rng_state(), state)
    finally:
        kernels.forward, _gpu._VERDICTS = right, verdicts
    return verdict, " ".join(str(warning.message) for warning in caught)


def _attend(case: Case, *, backend: str | None = None, exact: bool = False) -> dict[str, Any]:
    layer, tokens, mask = build(case)
    if exact:
        layer.float()
        tokens = tokens.detach().float().requires_grad_()
    run: Any = layer
    if backend is not None:
        torch._dynamo.reset()
        run = torch.compile(layer, backend=backend, fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=case.autocast):
        out = run(tokens, mask)
    torch.manual_seed(1)
    out.backward(torch.randn(out.shape).to(case.dtype).to(out.dtype))
    results = {"output": out, "tokens": tokens.grad}
    results |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {name: value.detach().float().numpy() for name, value in results.items()}
