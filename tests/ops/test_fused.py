"""The fast paths against their plain twins: values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import swin_dense
from swin_dense.layers.cosine_attention import CosineWindowAttention
from swin_dense.layers.drop_path import DropPath
from swin_dense.layers.linear import Linear
from swin_dense.layers.mlp import Mlp
from swin_dense.layers.window_attention import ShiftedWindows, WindowAttention
from swin_dense.ops import _window_attention_cpu, fused
from swin_dense.ops.windows import shifted_window_mask
from tests.ops.twins import ROUNDING, assert_twins, awake, values_and_gradients

GRIDS = {
    "divisible": (2, 8, 12),
    "ragged": (2, 9, 6),
    "one window": (1, 4, 4),
    "smaller than a window": (1, 2, 3),
    "one row of windows": (1, 4, 13),
    "one column of windows": (3, 11, 3),
}


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("grid", GRIDS)
def test_window_attention_equals_its_plain_twin(grid: str, shift: int, dtype: torch.dtype) -> None:
    check_attention(WindowAttention, grid, shift, dtype)


def check_attention(
    attention: type[ShiftedWindows], grid: str, shift: int, dtype: torch.dtype
) -> None:
    layer = awake(attention(12, num_heads=3, window_size=4, shift=shift))
    batch, height, width = GRIDS[grid]
    mask = shifted_window_mask((-(-height // 4) * 4, -(-width // 4) * 4), 4, shift)
    tokens = torch.randn(batch, height, width, 12)
    assert_twins(layer, lambda leaf: layer(leaf, mask if shift else None), tokens, dtype)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("grid", ["ragged", "one window", "smaller than a window"])
def test_cosine_attention_equals_its_plain_twin(grid: str, dtype: torch.dtype) -> None:
    check_attention(CosineWindowAttention, grid, 2, dtype)


@pytest.mark.parametrize("attention", [WindowAttention, CosineWindowAttention])
def test_attention_without_qkv_bias_pads_with_zeros(attention: type[ShiftedWindows]) -> None:
    layer = awake(attention(12, num_heads=3, window_size=4, qkv_bias=False))
    assert_twins(layer, layer, torch.randn(1, 5, 7, 12))


def test_the_gradient_of_window_attention_is_its_finite_difference() -> None:
    torch.manual_seed(0)
    qkv = torch.randn(1, 3, 5, 12, dtype=torch.float64, requires_grad=True)
    pad = torch.randn(12, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)

    def attend(qkv: Tensor, pad: Tensor, bias: Tensor) -> Tensor:
        return fused.window_attention(qkv, pad, bias, window_size=2, shift=1, scale=0.7)

    assert torch.autograd.gradcheck(attend, (qkv, pad, bias))


@pytest.mark.parametrize("size", [60.0, 3e3])
def test_logits_of_any_size_neither_overflow_nor_vanish(size: float) -> None:
    layer = awake(WindowAttention(12, num_heads=3, window_size=4))
    tokens = torch.randn(1, 8, 8, 12) * size
    exact = values_and_gradients(layer, layer, tokens, torch.float64, fast=False)
    fast = values_and_gradients(layer, layer, tokens, torch.float32, fast=True)
    # float32 has lost 1e-7 of logits of this size squared, and 1e-7 of tokens of this size
    error = (fast["output"].double() - exact["output"]).abs().max()
    assert error <= 1e-3 * exact["output"].abs().max()
    assert all(value.isfinite().all() for value in fast.values())


@pytest.mark.parametrize("lowest", [-1e4, 1e4])
def test_a_row_far_from_zero_is_the_same_row(lowest: float) -> None:
    torch.manual_seed(0)
    qkv, bias = torch.randn(1, 4, 4, 12), torch.randn(2, 16, 16)
    near = fused.window_attention(qkv, None, bias, window_size=4, shift=0, scale=1.0)
    far = fused.window_attention(qkv, None, bias + lowest, window_size=4, shift=0, scale=1.0)
    torch.testing.assert_close(far, near, rtol=0, atol=3e-3)  # 1e4 leaves the bias 1e-3


def test_nan_goes_through() -> None:
    qkv = torch.randn(1, 4, 4, 12)
    qkv[0, 1, 1, 0] = torch.nan
    out = fused.window_attention(
        qkv, None, torch.zeros(2, 16, 16), window_size=4, shift=0, scale=1.0
    )
    assert out.isnan().any()


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(5, 7, 3), (900, 8, 24), (900, 24, 8), (1, 4, 4)])
def test_linear_equals_its_plain_twin(
    sizes: tuple[int, int, int], bias: bool, dtype: torch.dtype
) -> None:
    tokens, inputs, outputs = sizes
    layer = awake(Linear(inputs, outputs, bias=bias))
    assert_twins(layer, layer, torch.randn(1, tokens, inputs), dtype)


def test_linear_gives_no_gradient_where_none_is_wanted() -> None:
    layer = Linear(4, 3).requires_grad_(False)
    leaf = torch.randn(2, 4, requires_grad=True)
    layer(leaf).sum().backward()
    assert layer.weight.grad is None
    assert leaf.grad is not None
    assert not layer(leaf.detach()).requires_grad


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_the_perceptron_equals_its_plain_twin_with_and_without_gradients(
    dtype: torch.dtype,
) -> None:
    mlp = awake(Mlp(6, 24))
    assert_twins(mlp, mlp, torch.randn(2, 3, 5, 6), dtype)
    tokens = torch.randn(2, 3, 5, 6).to(next(mlp.parameters()).dtype)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        fast = mlp(tokens)
    with fused.plain(), torch.no_grad():
        expected = mlp(tokens)
    limit = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
    assert (fast.double() - expected.double()).abs().max() <= limit * expected.abs().max()


def test_hooks_inside_the_perceptron_are_called() -> None:
    mlp, seen = Mlp(4, 8), []
    mlp.fc1.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        mlp(torch.randn(1, 4))
    assert len(seen) == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_dropped_branch_adds_nothing_and_its_parameters_get_zero(seed: int) -> None:
    branch, drop = awake(nn.Linear(3, 3)), DropPath(0.5).train()
    tokens = torch.randn(3, 4, 5, 3, dtype=torch.float64)

    def run(leaf: Tensor) -> Tensor:
        torch.manual_seed(seed)
        return drop.residual(leaf, branch, leaf.dtype)

    assert_twins(branch, run, tokens)


@pytest.mark.parametrize("with_cp", [False, True])
@pytest.mark.parametrize("name", ["SwinTransformer", "SwinTransformerV2"])
def test_a_backbone_with_drop_path_equals_its_plain_twin(name: str, with_cp: bool) -> None:
    options: Any = dict(
        embed_dims=8, depths=(2, 2, 1), num_heads=(1, 2, 4), window_size=4, with_cp=with_cp
    )
    model = awake(getattr(swin_dense, name)(**options, drop_path_rate=0.6)).train()
    for seed in (0, 1):

        def run(leaf: Tensor, seed: int = seed) -> Tensor:
            torch.manual_seed(seed)
            return torch.cat([level.flatten() for level in model(leaf)])

        assert_twins(model, run, torch.randn(2, 3, 45, 70))


def test_dropout_of_attention_weights_takes_the_plain_path() -> None:
    layer = WindowAttention(12, num_heads=3, window_size=4, attn_drop_rate=0.5).train()
    tokens = torch.randn(1, 8, 8, 12)
    torch.manual_seed(0)
    dropped = layer(tokens)
    torch.manual_seed(0)
    with fused.plain():
        assert torch.equal(dropped, layer(tokens))
    assert layer.eval().is_fused(tokens)


def test_the_fast_path_is_taken_here_and_can_be_switched_off(monkeypatch: Any) -> None:
    calls = []
    original = _window_attention_cpu.WindowAttentionCpu.forward
    monkeypatch.setattr(
        _window_attention_cpu.WindowAttentionCpu,
        "forward",
        staticmethod(lambda *args: calls.append(1) or original(*args)),
    )
    layer, tokens = WindowAttention(12, num_heads=3, window_size=4), torch.randn(1, 8, 8, 12)
    layer(tokens)
    assert calls == [1]
    with fused.plain():
        layer(tokens)
    assert calls == [1]


def test_products_sent_to_onednn_stay_exact_to_float32() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        sent = fused.send_products_to_onednn()
        assert sent == (torch.get_float32_matmul_precision() == "medium")
        left, right = torch.rand(300, 200) + 1, torch.rand(200, 100) + 1
        exact = left.double() @ right.double()
        assert ((left @ right - exact).abs() / exact).max() < 5e-6
    finally:
        torch.set_float32_matmul_precision(before)
