"""The score threshold to choose: the one with the best F1, over all classes and for each.

F1 is ``2 TP / (2 TP + FP + FN)`` at an IoU of 0.5. The threshold lies halfway between the last
score that is kept and the next one below, so that rounding does not move a detection across it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from swin_dense.evaluation.analysis.ranking import Curve, Ranking

META_KEY = "score_thresholds"
"""Where a checkpoint's ``meta`` keeps them."""


@dataclass(frozen=True)
class Threshold:
    """A least score, and what it gives on the data that it was chosen on.

    Attributes:
        score: keep detections of this score or more.
        precision: share of the kept detections that are right.
        recall: share of the annotations that are found.
        f1: their harmonic mean.
    """

    score: float
    precision: float
    recall: float
    f1: float


def best_threshold(curve: Curve) -> Threshold | None:
    """Return the threshold with the best F1, the highest among equals; None if nothing is right."""
    total = curve.precision + curve.recall
    f1 = np.divide(
        2 * curve.precision * curve.recall, total, out=np.zeros_like(total), where=total > 0
    )
    if not len(f1) or f1.max() <= 0:
        return None
    best = int(f1.argmax())
    below = float(curve.score[best + 1]) if best + 1 < len(curve.score) else 0.0
    return Threshold(
        score=(float(curve.score[best]) + below) / 2,
        precision=float(curve.precision[best]),
        recall=float(curve.recall[best]),
        f1=float(f1[best]),
    )


def class_thresholds(ranking: Ranking, level: int = 0) -> list[Threshold | None]:
    """Return the best threshold of each class, None for those that were never found."""
    return [best_threshold(ranking.curve(level, label)) for label in range(ranking.num_classes)]


def as_meta(
    overall: Threshold, per_class: Mapping[str, Threshold | None], *, iou: float = 0.5
) -> dict[str, Any]:
    """Return what a checkpoint keeps: plain numbers; a class without a best one has the overall."""
    return {
        "iou": iou,
        "overall": round(overall.score, 6),
        "per_class": {
            name: round((value or overall).score, 6) for name, value in per_class.items()
        },
    }
