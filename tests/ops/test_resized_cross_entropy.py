"""Cross entropy of resized logits, against torch's own of logits that it resized."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.errors import UserError
from swin_dense.ops import resized_cross_entropy as module
from swin_dense.ops.resized_cross_entropy import resized_cross_entropy

SIZES = {
    "four times": ((5, 7), (20, 28)),
    "no multiple": ((5, 7), (23, 30)),
    "the same": ((6, 6), (6, 6)),
    "smaller": ((9, 8), (4, 5)),
    "one cell": ((1, 1), (7, 3)),
    "one pixel": ((4, 4), (1, 1)),
}


def draw(sizes: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    small_hw, labels_hw = SIZES[sizes]
    logits = (torch.randn(3, 6, *small_hw, dtype=torch.float64) * 3).to(dtype).requires_grad_()
    labels = torch.randint(0, 6, (3, *labels_hw))
    labels[torch.rand(labels.shape) < 0.2] = 255
    return logits, labels


def by_torch(logits: Tensor, labels: Tensor, align_corners: bool) -> tuple[Tensor, Tensor]:
    resized = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=align_corners)
    right = (resized.argmax(1) == labels).sum()
    return F.cross_entropy(resized, labels, ignore_index=255, reduction="sum"), right


@pytest.mark.parametrize("group", [1, 100, 2**19])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients_are_torchs(
    sizes: str, align_corners: bool, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GROUP_NUMBERS", group)
    logits, labels = draw(sizes)
    expected, right = by_torch(logits, labels, align_corners)
    found, hits = resized_cross_entropy(
        logits, labels, ignore_index=255, align_corners=align_corners
    )
    torch.testing.assert_close(found, expected)
    assert hits == right
    grads = [torch.autograd.grad(loss * 0.3, logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*grads)


def test_two_pixels_by_hand() -> None:
    logits = torch.tensor([[[[0.0]], [[math.log(3.0)]]]], requires_grad=True)  # 1/4 and 3/4
    labels = torch.tensor([[[0, 1, 7]]])
    loss, right = resized_cross_entropy(logits, labels, ignore_index=7, align_corners=False)
    assert float(loss) == pytest.approx(math.log(4) + math.log(4 / 3), rel=1e-6)
    assert int(right) == 1
    loss.backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.flatten(), torch.tensor([-0.5, 0.5]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_in_fewer_digits_it_errs_no_more_than_torch(dtype: torch.dtype) -> None:
    logits, labels = draw("no multiple", dtype)
    exact = logits.detach().double().requires_grad_()
    results = []
    for values, loss in (
        (exact, by_torch(exact, labels, False)[0]),
        (logits, by_torch(logits.float(), labels, False)[0]),
        (logits, resized_cross_entropy(logits, labels, ignore_index=255, align_corners=False)[0]),
    ):
        (grad,) = torch.autograd.grad(loss, values)
        assert grad.dtype == values.dtype
        results.append((loss.detach().double(), grad.double()))
    expected, plain, found = results
    for index in range(2):
        error = (found[index] - expected[index]).abs().max()
        limit = (plain[index] - expected[index]).abs().max()
        assert error <= 3 * limit + 1e-6 * expected[index].abs().max()


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([1e4, -1e4, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2).contiguous()
    loss, _ = resized_cross_entropy(
        logits, torch.ones(1, 8, 8, dtype=torch.int64), ignore_index=255, align_corners=False
    )
    assert float(loss) == pytest.approx(64 * 2e4)


def test_labels_that_all_do_not_count_give_zero_and_no_gradient() -> None:
    logits, labels = draw("four times")
    loss, right = resized_cross_entropy(
        logits, torch.full_like(labels, 255), ignore_index=255, align_corners=False
    )
    loss.backward()
    assert logits.grad is not None
    assert float(loss) == int(right) == 0
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize("wrong", [6, -1])
def test_a_label_that_is_no_class_is_named(wrong: int) -> None:
    logits, labels = draw("four times")
    labels[1, 2, 3] = wrong
    with pytest.raises(UserError, match=rf"holds class {wrong}; expected 0 to 5, or 255"):
        resized_cross_entropy(logits, labels, ignore_index=255, align_corners=False)
