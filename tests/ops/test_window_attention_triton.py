"""Fused window attention against its plain twin, in Triton's interpreter, and when it is chosen.

No GPU is asked for: the kernels run as they are written, on the CPU, in a process of their own.
Compiling them for a GPU asks for none either, and says whether they fit.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from swin_dense.layers.window_attention import WindowAttention
from swin_dense.ops import _gpu, fused
from tests.ops.interpreted import (
    Case,
    fused_results,
    in_float32,
    interpreter,
    own_check,
    plain_and_fused,
)

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed (it has wheels for Linux alone): pip install triton",
)

RAGGED = Case((9, 15), shift=3, batch=2)


@pytest.fixture(scope="module")
def triton_process() -> Iterator[ProcessPoolExecutor]:
    with interpreter() as pool:
        yield pool


def assert_equal(ours: dict[str, Any], theirs: dict[str, Any], share: float) -> None:
    """Hold every difference to a share of the largest value of its kind."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert np.abs(value).max() > 0.1, name
        error = np.abs(ours[name] - value).max() / np.abs(value).max()
        assert error <= share, f"{name} differs by {error:.1e}"


@needs_triton
@pytest.mark.parametrize(
    "case",
    [
        RAGGED,
        replace(RAGGED, shift=0, head_dim=32, heads=3, batch=1),
        Case((7, 7), shift=3, head_dim=64, heads=1),
        Case((7, 7)),
        Case((3, 4), shift=3),
        Case((9, 10), shift=3, qkv_bias=False),
        Case((14, 14), shift=3, batch=2),
        Case((6, 5), window=2, shift=1, head_dim=32),
        Case((5, 9), shift=3, clamp=True),
        Case((12, 14), window=12, shift=6, heads=1),
        Case((12, 11), window=12, heads=2),
    ],
    ids=lambda case: f"{case.grid_hw}-window{case.window}-shift{case.shift}-dim{case.head_dim}",
)
def test_output_and_every_gradient_are_those_of_the_plain_version(
    triton_process: ProcessPoolExecutor, case: Case
) -> None:
    plain, ours = triton_process.submit(plain_and_fused, case).result()
    assert_equal(ours, plain, 3e-6)


@needs_triton
@pytest.mark.parametrize(
    "case",
    [
        Case((9, 10), window=8, shift=4, head_dim=32, cosine=True),
        Case((5, 9), window=8, cosine=True, clamp=True, qkv_bias=False),
        Case((12, 13), window=12, shift=6, heads=1, cosine=True),
    ],
    ids=lambda case: f"{case.grid_hw}-window{case.window}-shift{case.shift}",
)
def test_the_cosine_attention_of_swin_v2_is_that_of_the_plain_version_with_the_scale_s_gradient(
    triton_process: ProcessPoolExecutor, case: Case
) -> None:
    plain, ours = triton_process.submit(plain_and_fused, case).result()
    assert "logit_scale" in ours
    assert_equal(ours, plain, 5e-5)


@needs_triton
@pytest.mark.parametrize(
    "case",
    [
        replace(RAGGED, dtype=torch.bfloat16),
        replace(RAGGED, autocast=True, batch=1),
        replace(RAGGED, dtype=torch.float16, batch=1),
        Case((12, 13), window=12, shift=6, heads=1, dtype=torch.bfloat16),
        Case((9, 10), window=8, shift=4, cosine=True, dtype=torch.bfloat16),
    ],
    ids=lambda case: f"window{case.window}-{case.dtype}-autocast{case.autocast}".lower(),
)
def test_in_half_precision_no_result_is_much_farther_from_float32_than_the_plain_version_s(
    triton_process: ProcessPoolExecutor, case: Case
) -> None:
    exact = triton_process.submit(in_float32, replace(case, autocast=False)).result()
    plain, ours = triton_process.submit(plain_and_fused, case).result()
    assert any((ours[name] != plain[name]).any() for name in ours)
    for name, value in exact.items():
        own, other = (np.sqrt(np.mean((got[name] - value) ** 2)) for got in (ours, plain))
        assert own <= 1.5 * other + 1e-6, f"{name}: error {own:.1e}, plain {other:.1e}"


@needs_triton
def test_no_images_give_no_output_and_zero_gradients(triton_process: ProcessPoolExecutor) -> None:
    ours = triton_process.submit(fused_results, replace(RAGGED, batch=0)).result()
    assert ours["output"].shape == (0, 9, 15, 32)
    assert not ours["relative_position_bias_table"].any()
    assert not ours["qkv.bias"].any()


@needs_triton
def test_two_runs_give_the_same_bits(triton_process: ProcessPoolExecutor) -> None:
    runs = [triton_process.submit(fused_results, RAGGED).result() for _ in range(2)]
    for name, value in runs[0].items():
        assert np.array_equal(value, runs[1][name]), name


@needs_triton
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiler_takes_it_without_breaking_the_graph(
    triton_process: ProcessPoolExecutor, backend: str
) -> None:
    case = replace(RAGGED, batch=1, backend=backend)
    plain, ours = triton_process.submit(plain_and_fused, case).result()
    assert_equal(ours, plain, 3e-6)


@needs_triton
@pytest.mark.parametrize(("window", "cosine"), [(7, False), (8, True), (1, False)])
def test_the_kernels_find_themselves_right_whatever_mode_the_first_call_is_in(
    triton_process: ProcessPoolExecutor, window: int, cosine: bool
) -> None:
    assert triton_process.submit(own_check, window, cosine, None).result() == (True, "")


@needs_triton
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("wrong", "output differs by"),
        ("Failed to find C compiler", "RuntimeError: Failed to find C compiler"),
    ],
)
def test_kernels_that_are_wrong_or_fail_are_left_alone_and_a_warning_says_why(
    triton_process: ProcessPoolExecutor, error: str, reason: str
) -> None:
    verdict, warning = triton_process.submit(own_check, 2, False, error).result()
    assert verdict is False
    assert "window attention runs plain, not fused, on cpu in torch.float32" in warning
    assert reason in warning
    assert warning.count("SWIN_DENSE_FAST=0") == 1


@needs_triton
def test_the_kernels_compile_for_an_h200_and_fit_its_shared_memory() -> None:
    """Runs in a process of its own, in which triton compiles."""
    program = (
        "from tests.ops.compiled import shared_memory_bytes\n"
        "for window in (7, 12):\n"
        "    for kernel in ('forward_kernel', 'backward_keys_kernel', 'backward_queries_kernel'):\n"
        "        print(shared_memory_bytes(kernel, window, 32))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    needs = [int(line) for line in done.stdout.split()]
    assert len(needs) == 6
    assert max(needs) <= 227 * 1024 / 4  # so that four programs share a multiprocessor
    assert min(needs) > 0


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU have kernels that agree."""
    monkeypatch.setattr(_gpu, "has_kernels", lambda device: True)
    monkeypatch.setattr(_gpu, "_agrees", lambda *sizes: True)


@pytest.mark.parametrize(
    ("tokens", "window", "expected"),
    [
        (torch.zeros(1, 7, 7, 64), 7, True),
        (torch.zeros(1, 7, 7, 64, dtype=torch.bfloat16), 7, True),
        (torch.zeros(1, 7, 7, 64, dtype=torch.float64), 7, False),
        (torch.zeros(1, 7, 7, 48), 7, False),
        (torch.zeros(1, 7, 7, 64), 16, True),
        (torch.zeros(1, 7, 7, 64), 24, False),
    ],
)
@pytest.mark.usefixtures("everywhere")
def test_it_applies_to_its_types_head_widths_and_windows_and_not_where_the_switch_is_off(
    tokens: Tensor, window: int, expected: bool
) -> None:
    sizes = dict(num_heads=2, window_size=window, cosine=False)
    assert fused.has_attention_kernel(tokens, **sizes) is expected
    with fused.plain():
        assert not fused.has_attention_kernel(tokens, **sizes)


@pytest.mark.parametrize(("rate", "training"), [(0.5, True), (0.5, False), (0.0, True)])
@pytest.mark.usefixtures("everywhere")
def test_dropped_attention_weights_keep_a_layer_plain(
    monkeypatch: pytest.MonkeyPatch, rate: float, training: bool
) -> None:
    layer = WindowAttention(64, num_heads=2, window_size=2, attn_drop_rate=rate).train(training)
    taken = []

    def attend(qkv: Tensor, pad: Tensor, table: Tensor, **sizes: Any) -> Tensor:
        taken.append((tuple(qkv.shape), pad is layer.qkv.bias, sizes["scale"]))
        return qkv[..., :64]

    monkeypatch.setattr(_gpu, "window_attention", attend)
    assert layer(torch.zeros(1, 3, 4, 64)).shape == (1, 3, 4, 64)
    expected = [] if rate and training else [((1, 3, 4, 192), True, 32**-0.5)]
    assert taken == expected


def test_a_cpu_never_imports_triton() -> None:
    program = (
        "import sys, torch, swin_dense\n"
        "swin_dense.SwinTransformer(embed_dims=32, depths=(2, 1), num_heads=(1, 2),"
        " out_indices=(1,)).eval()(torch.zeros(1, 3, 32, 32))\n"
        "print('swin_dense.ops._gpu' in sys.modules, 'triton' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "True False", done.stderr


def test_a_compiled_layer_on_a_cpu_is_whole_and_plain() -> None:
    torch._dynamo.reset()
    layer = WindowAttention(32, num_heads=2, window_size=2).eval()
    tokens = torch.randn(1, 3, 4, 32)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens), layer(tokens))
