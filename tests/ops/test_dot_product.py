"""Attention with unequal head widths against the formula, values and gradients."""

from __future__ import annotations

import pytest
import torch

from swin_dense.ops.dot_product import attend


@pytest.mark.parametrize("widths", [(8, 8), (10, 8), (2, 8), (1, 1)])
@pytest.mark.parametrize("keys", [1, 7])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients_are_those_of_the_formula(
    widths: tuple[int, int], keys: int, with_bias: bool
) -> None:
    query = torch.randn(3, 2, 5, widths[0], dtype=torch.float64)
    key = torch.randn(3, 2, keys, widths[0], dtype=torch.float64)
    value = torch.randn(3, 2, keys, widths[1], dtype=torch.float64)
    bias = torch.randn(1, 2, 5, keys, dtype=torch.float64) if with_bias else None
    leaves = [part for part in (query, key, value, bias) if part is not None]
    for part in leaves:
        part.requires_grad_()
    got = attend(query, key, value, scale=0.3, bias=bias)
    logits = 0.3 * torch.einsum("bhnd,bhkd->bhnk", query, key)
    weights = (logits if bias is None else logits + bias).softmax(dim=-1)
    want = torch.einsum("bhnk,bhke->bhne", weights, value)
    torch.testing.assert_close(got, want)
    pull = torch.randn_like(want)
    got_gradients = torch.autograd.grad(got, leaves, pull)
    want_gradients = torch.autograd.grad(want, leaves, pull)
    for gradient, expected in zip(got_gradients, want_gradients, strict=True):
        torch.testing.assert_close(gradient, expected)


def test_a_single_key_gives_its_value_to_every_query() -> None:
    value = torch.randn(1, 2, 1, 4)
    mixed = attend(torch.randn(1, 2, 6, 3), torch.randn(1, 2, 1, 3), value, scale=1.0)
    torch.testing.assert_close(mixed, value.expand(1, 2, 6, 4))
