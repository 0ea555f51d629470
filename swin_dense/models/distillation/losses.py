"""What a student learns from a teacher's logits (DeiT, https://arxiv.org/abs/2012.12877).

Letters: B batch; K classes; ``...`` any further axes (pixels). Classes lie on axis 1.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from swin_dense.errors import UserError

Reduction = Literal["numel", "positions"]


def soft_loss(
    student: Tensor, teacher: Tensor, *, tau: float = 1.0, reduction: Reduction = "numel"
) -> Tensor:
    """Return tau^2 KL(teacher || student) of (B, K, ...) logits, a scalar.

    ``reduction="numel"`` divides by every logit, as DeiT's code does; ``"positions"`` by B (times
    pixels), as its paper does, which is K times as much.

    Raises:
        UserError: unequal shapes, tau not positive, an unknown reduction.
    """
    _check(student, teacher)
    if not tau > 0:
        raise UserError(f"`tau` is {tau}; expected a temperature above 0: set for example 1.0.")
    if reduction not in ("numel", "positions"):
        raise UserError(f"`reduction` is {reduction!r}; expected 'numel' or 'positions': set one.")
    log_student = functional.log_softmax(student / tau, 1)
    log_teacher = functional.log_softmax(teacher.detach() / tau, 1)
    total = functional.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    count = student.numel() if reduction == "numel" else student.numel() // student.shape[1]
    return total * tau**2 / max(count, 1)


def hard_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the cross entropy of (B, K, ...) logits against the teacher's best class, a scalar."""
    _check(student, teacher)
    return functional.cross_entropy(student, teacher.detach().argmax(1))


def _check(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise UserError(
            f"The student's logits are {tuple(student.shape)}, the teacher's "
            f"{tuple(teacher.shape)}; expected equal shapes: give both the same classes and grid."
        )
