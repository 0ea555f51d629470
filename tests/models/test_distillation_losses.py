"""Distillation losses against the four values recorded from the official code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from swin_dense.errors import UserError
from swin_dense.models.distillation.losses import hard_loss, soft_loss


def test_the_recorded_values_of_deit_are_reproduced(shared: Path) -> None:
    record = json.loads((shared / "parity" / "deit_distill_loss.json").read_text())
    logits, token, teacher = (
        torch.tensor(record[name]) for name in ("logits", "logits_kd", "teacher")
    )
    base = cross_entropy(logits, torch.tensor(record["labels"]))
    paper = soft_loss(token, teacher, tau=3.0, reduction="positions")
    values = {
        "none_a0.5_t1.0": base,
        "soft_a0.5_t1.0": 0.5 * base + 0.5 * soft_loss(token, teacher),
        "soft_a0.1_t3.0": 0.9 * base + 0.1 * soft_loss(token, teacher, tau=3.0),
        "hard_a0.5_t1.0": 0.5 * base + 0.5 * hard_loss(token, teacher),
        "paper_batchmean_soft_a0.1_t3": 0.9 * base + 0.1 * paper,
    }
    for name, value in values.items():
        assert value.item() == pytest.approx(record[name], abs=1e-6), name


@pytest.mark.parametrize("loss", [soft_loss, hard_loss])
def test_gradients_reach_the_student_alone_and_equal_finite_differences(loss) -> None:  # type: ignore[no-untyped-def]
    student = torch.randn(2, 3, 2, 5, dtype=torch.double, requires_grad=True)
    teacher = torch.randn(2, 3, 2, 5, dtype=torch.double, requires_grad=True)

    def of_student(logits: Tensor) -> Tensor:
        return loss(logits, teacher.detach())

    assert torch.autograd.gradcheck(of_student, (student,))
    loss(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UserError, match=r"\(1, 2\).*\(1, 3\)"):
        hard_loss(torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(UserError, match="`tau` is 0"):
        soft_loss(torch.zeros(1, 2), torch.zeros(1, 2), tau=0)
