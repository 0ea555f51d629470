"""Focal loss (https://arxiv.org/abs/1708.02002), element by element, in the hosts' conventions.

It is written in logarithms of probabilities, so that a badly wrong, saturated logit keeps its loss
and its gradient. The hosts' kernels have the same gradient there, but take 87.3 for ``-log``.

Letters: N samples; C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.errors import UserError

_TINY = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Return the loss (N, C) of one binary problem a class, not reduced.

    Args:
        logits: (N, C).
        targets: (N,) int64 class of each sample; C (or any other number) is background.
        gamma: how much easy examples count less.
        alpha: weight of the positive class; negatives have ``1 - alpha``.
        class_weight: (C,) factor by the sample's target, or None; background weighs 1.

    Raises:
        UserError: the shapes do not fit.
    """
    _check("sigmoid_focal_loss", logits, targets, class_weight)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_p, log_not_p = F.logsigmoid(wide), F.logsigmoid(-wide)
    positive = targets[:, None] == torch.arange(logits.shape[1], device=logits.device)
    hit = -alpha * torch.exp(gamma * log_not_p) * log_p
    miss = -(1 - alpha) * torch.exp(gamma * log_p) * log_not_p
    loss = torch.where(positive, hit, miss)
    if class_weight is not None:
        loss = loss * _weight_of(targets, class_weight)[:, None]
    return loss.to(logits.dtype)


def softmax_focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Return the loss (N,) of one softmax a sample, not reduced; a negative target costs nothing.

    Args:
        logits: (N, C).
        targets: (N,) int64 below C.
        gamma: how much easy examples count less.
        alpha: factor on the whole loss.
        class_weight: (C,) factor by the sample's target, or None.

    Raises:
        UserError: the shapes do not fit, or a target has no class.
    """
    _check("softmax_focal_loss", logits, targets, class_weight)
    if targets.numel() and int(targets.max()) >= logits.shape[1]:
        raise UserError(
            f"softmax_focal_loss got target {int(targets.max())} for {logits.shape[1]} classes; "
            f"expected at most {logits.shape[1] - 1}, or a negative number to leave a sample out."
        )
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_own = wide.log_softmax(dim=1).gather(1, targets.clamp(min=0)[:, None]).squeeze(1)
    # clamped, since the slope of a power below 1 has no limit at 0
    doubt = (1 - log_own.exp()).clamp(min=_TINY)
    loss = -alpha * doubt.pow(gamma) * log_own
    loss = torch.where(targets >= 0, loss, torch.zeros_like(loss))
    if class_weight is not None:
        loss = loss * _weight_of(targets, class_weight)
    return loss.to(logits.dtype)


def _weight_of(targets: Tensor, class_weight: Tensor) -> Tensor:
    """Return each sample's weight (N,); background, beyond the classes, weighs 1."""
    inside = (targets >= 0) & (targets < len(class_weight))
    weights = class_weight[targets.clamp(0, len(class_weight) - 1)]
    return torch.where(inside, weights, torch.ones_like(weights))


def _check(name: str, logits: Tensor, targets: Tensor, class_weight: Tensor | None) -> None:
    if logits.dim() != 2 or targets.shape != logits.shape[:1]:
        raise UserError(
            f"{name} got logits of shape {tuple(logits.shape)} and targets of "
            f"{tuple(targets.shape)}; expected (N, C) and (N,)."
        )
    if class_weight is not None and class_weight.shape != logits.shape[1:]:
        raise UserError(
            f"{name} got class_weight of shape {tuple(class_weight.shape)} for "
            f"{logits.shape[1]} classes; expected ({logits.shape[1]},)."
        )
