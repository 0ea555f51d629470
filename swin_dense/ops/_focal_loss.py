"""Focal loss (https://arxiv.org/abs/1708.02002), element by element, as the hosts' kernels define it.

Letters: N samples; C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
        class_weight: (C,) factor by the sample's target, or None.
    """
    probability = logits.sigmoid()
    positive = targets[:, None] == torch.arange(logits.shape[1], device=logits.device)
    hit = -alpha * (1 - probability).pow(gamma) * probability.clamp(min=_TINY).log()
    miss = -(1 - alpha) * probability.pow(gamma) * (1 - probability).clamp(min=_TINY).log()
    loss = torch.where(positive, hit, miss)
    return loss if class_weight is None else loss * _weight_of(targets, class_weight)[:, None]


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
        targets: (N,) int64.
        gamma: how much easy examples count less.
        alpha: factor on the whole loss.
        class_weight: (C,) factor by the sample's target, or None.
    """
    return softmax_focal_loss_of(logits.softmax(dim=1), targets, gamma, alpha, class_weight)


def softmax_focal_loss_of(
    probabilities: Tensor, targets: Tensor, gamma: float, alpha: float, class_weight: Tensor | None
) -> Tensor:
    """The same from probabilities (N, C)."""
    own = probabilities.gather(1, targets.clamp(min=0)[:, None]).squeeze(1)
    loss = -alpha * (1 - own).pow(gamma) * own.clamp(min=_TINY).log()
    loss = torch.where(targets >= 0, loss, torch.zeros_like(loss))
    return loss if class_weight is None else loss * _weight_of(targets, class_weight)


def _weight_of(targets: Tensor, class_weight: Tensor) -> Tensor:
    """Return each sample's weight (N,); background, beyond the classes, weighs 1."""
    inside = (targets >= 0) & (targets < len(class_weight))
    weights = class_weight[targets.clamp(0, len(class_weight) - 1)]
    return torch.where(inside, weights, torch.ones_like(weights))
