"""The focal losses against loops, and where float32 saturates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from swin_dense.errors import UserError
from swin_dense.ops import sigmoid_focal_loss, softmax_focal_loss
from tests.ops import loops

LOSSES = [
    (sigmoid_focal_loss, loops.sigmoid_focal_loss),
    (softmax_focal_loss, loops.softmax_focal_loss),
]
EXACT = dict(rtol=1e-11, atol=1e-12)
FocalLoss = Callable[..., Tensor]


def sample(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets with every class, and class weights."""
    return 3 * torch.randn(9, 4, dtype=dtype), torch.arange(9) % 4, torch.rand(4, dtype=dtype) + 0.5


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(("loss_of", "loop"), LOSSES)
def test_values_and_gradients_are_those_of_the_loop(
    loss_of: FocalLoss, loop: Callable[..., tuple[object, object]], gamma: float, weighted: bool
) -> None:
    logits, targets, weight = sample()
    targets[0] = 4 if loss_of is sigmoid_focal_loss else -1  # background, or left out
    logits.requires_grad_()
    loss = loss_of(logits, targets, gamma, 0.3, weight if weighted else None)
    expected, expected_grad = loop(
        logits.detach().numpy(), targets.numpy(), gamma, 0.3, weight.numpy() if weighted else None
    )
    torch.testing.assert_close(loss.detach(), torch.as_tensor(expected), **EXACT)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(grad, torch.as_tensor(expected_grad), **EXACT)


@pytest.mark.parametrize(("loss_of", "loop"), LOSSES)
def test_logits_and_class_weights_pass_gradcheck(loss_of: FocalLoss, loop: object) -> None:
    logits, targets, weight = sample()
    logits.requires_grad_()
    weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: loss_of(x, targets, 1.5, 0.3, w), (logits, weight))
    assert torch.autograd.gradgradcheck(lambda x: loss_of(x, targets, 1.5, 0.3), (logits,))


def test_with_gamma_0_they_are_weighed_cross_entropies() -> None:
    logits, targets, _ = sample()
    one_hot = torch.nn.functional.one_hot(targets, 4).double()
    binary = torch.nn.functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets, 0.0, 0.5), binary / 2)
    entropy = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(softmax_focal_loss(logits, targets, 0.0, 1.0), entropy)


def test_turning_signs_and_alpha_around_swaps_hits_and_misses() -> None:
    logits = torch.randn(7, 1, dtype=torch.float64)
    hit = sigmoid_focal_loss(logits, torch.zeros(7, dtype=torch.int64), 2.0, 0.3)
    miss = sigmoid_focal_loss(-logits, torch.ones(7, dtype=torch.int64), 2.0, 0.7)
    torch.testing.assert_close(hit, miss)


def test_permuted_classes_permute_the_loss() -> None:
    logits, targets, weight = sample()
    order = torch.tensor([2, 0, 3, 1])
    renamed = torch.argsort(order)[targets]
    torch.testing.assert_close(
        sigmoid_focal_loss(logits[:, order], renamed, class_weight=weight[order]),
        sigmoid_focal_loss(logits, targets, class_weight=weight)[:, order],
    )
    torch.testing.assert_close(
        softmax_focal_loss(logits[:, order], renamed, class_weight=weight[order]),
        softmax_focal_loss(logits, targets, class_weight=weight),
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [20.0, 100.0, 1000.0])
def test_a_saturated_logit_keeps_its_exact_loss_and_gradient(size: float, gamma: float) -> None:
    logits = torch.tensor([[-size, size]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0]), gamma, 0.25)
    torch.testing.assert_close(loss.detach(), torch.tensor([[0.25 * size, 0.75 * size]]))
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(grad, torch.tensor([[-0.25, 0.75]]))
    loss = softmax_focal_loss(logits, torch.tensor([0]), gamma, 0.25)
    torch.testing.assert_close(loss.detach(), torch.tensor([0.25 * 2 * size]))
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(grad, torch.tensor([[-0.25, 0.25]]))
    right = torch.tensor([[size, -size]], requires_grad=True)
    for loss_of in (sigmoid_focal_loss, softmax_focal_loss):
        (grad,) = torch.autograd.grad(loss_of(right, torch.tensor([0]), gamma).sum(), right)
        torch.testing.assert_close(grad, torch.zeros(1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("loss_of", "loop"), LOSSES)
def test_half_logits_are_computed_in_float32_and_rounded_once(
    loss_of: FocalLoss, loop: object, dtype: torch.dtype
) -> None:
    logits, targets, _ = sample(torch.float32)
    half = logits.to(dtype)
    expected = loss_of(half.float(), targets).to(dtype)
    assert torch.equal(loss_of(half, targets), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss_of(half, targets), expected)
        assert torch.equal(loss_of(half.t().contiguous().t(), targets), expected)


def test_no_samples_give_no_loss_and_one_class_of_softmax_costs_nothing() -> None:
    none = torch.zeros(0, 4, requires_grad=True)
    no_target = torch.zeros(0, dtype=torch.int64)
    assert sigmoid_focal_loss(none, no_target).shape == (0, 4)
    assert softmax_focal_loss(none, no_target).shape == (0,)
    sure = softmax_focal_loss(torch.randn(3, 1), torch.zeros(3, dtype=torch.int64))
    assert torch.equal(sure.abs(), torch.zeros(3))


def test_wrong_input_is_named_with_what_was_expected() -> None:
    logits, targets, weight = sample()
    for loss_of in (sigmoid_focal_loss, softmax_focal_loss):
        with pytest.raises(UserError, match=r"targets of \(8,\); expected \(N, C\) and \(N,\)"):
            loss_of(logits, targets[1:])
        with pytest.raises(UserError, match=r"class_weight of shape \(3,\) for 4 classes"):
            loss_of(logits, targets, class_weight=weight[1:])
    with pytest.raises(UserError, match="target 4 for 4 classes; expected at most 3"):
        softmax_focal_loss(logits, targets + 1)
