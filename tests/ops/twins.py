"""Hold a module's fast path to its plain twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from swin_dense.ops import fused

ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 6e-2}
"""What a path may err by in any case, in shares of the largest value."""


def assert_twins(
    module: nn.Module,
    run: Callable[[Tensor], Tensor],
    tokens: Tensor,
    dtype: torch.dtype = torch.float64,
    rounding: Mapping[torch.dtype, float] = ROUNDING,
) -> None:
    """The fast path gives the plain one's values and gradients: in double the same, in ``dtype``
    no further from these than the plain path in ``dtype`` is, times three, and ``rounding``."""
    exact = values_and_gradients(module, run, tokens, torch.float64, fast=False)
    plain = values_and_gradients(module, run, tokens, dtype, fast=False)
    fast = values_and_gradients(module, run, tokens, dtype, fast=True)
    assert fast["output"].dtype == dtype
    for name, expected in exact.items():
        errors = [(found[name].double() - expected).abs().max() for found in (plain, fast)]
        assert errors[1] <= 3 * errors[0] + rounding[dtype] * expected.abs().max() + 1e-30, name


def values_and_gradients(
    module: nn.Module,
    run: Callable[[Tensor], Tensor],
    tokens: Tensor,
    dtype: torch.dtype,
    *,
    fast: bool,
) -> dict[str, Tensor]:
    module.to(torch.float64 if dtype == torch.float64 else torch.float32)
    leaf = tokens.detach().clone().to(next(module.parameters()).dtype).requires_grad_()
    module.zero_grad()
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
        nullcontext() if fast else fused.plain(),
    ):
        out = run(leaf)
        torch.manual_seed(1)
        weight = torch.randn(out.shape, dtype=torch.float64).to(out.dtype)
        (out * weight).sum().backward()  # inside, for checkpointing runs parts again
    assert leaf.grad is not None
    found = {"output": out.detach(), "tokens": leaf.grad}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.clone()
    module.to(torch.float64)
    return found


def awake(module: nn.Module) -> nn.Module:
    """``module`` in double with every parameter random, biases and tables too."""
    torch.manual_seed(0)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return module
