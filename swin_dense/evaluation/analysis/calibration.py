"""Whether confidence means what it says: reliability and expected calibration error.

ECE is the mean distance between confidence and accuracy over bins of equal width, weighted by what
is in them (https://arxiv.org/abs/1706.04599, section 2). Letters: N predictions; B bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from swin_dense.evaluation.analysis.table import Floats

NUM_BINS = 20


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence and accuracy in bins of equal width from 0 to 1.

    Attributes:
        count: (B,) predictions in each bin.
        confidence: (B,) their mean confidence; NaN in an empty bin.
        accuracy: (B,) the share of them that is right; NaN in an empty bin.
    """

    count: Floats
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error, 0..1; NaN without predictions."""
        if not self.count.sum():
            return float("nan")
        filled = self.count > 0
        gap = np.abs(self.confidence[filled] - self.accuracy[filled])
        return float((gap * self.count[filled]).sum() / self.count.sum())


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = NUM_BINS) -> Reliability:
    """Return the bins of (N,) confidences in 0..1 and whether each prediction was right."""
    values = np.clip(np.asarray(confidence, np.float64), 0.0, 1.0)
    right = np.asarray(correct, np.float64)
    place = np.minimum((values * bins).astype(np.int64), bins - 1)
    return from_counts(
        np.bincount(place, minlength=bins),
        np.bincount(place, right, minlength=bins),
        np.bincount(place, values, minlength=bins),
    )


def from_counts(
    count: ArrayLike, correct: ArrayLike, confidence_sum: ArrayLike | None = None
) -> Reliability:
    """Return the bins of counts that were kept while predicting, each (B,).

    Args:
        count: predictions in each bin.
        correct: those of them that were right.
        confidence_sum: the sum of their confidences; each bin's middle stands in where it is None.
    """
    total = np.asarray(count, np.float64)
    if confidence_sum is None:
        confidence_sum = total * (np.arange(len(total)) + 0.5) / max(1, len(total))
    empty = np.full(total.shape, np.nan)
    filled = total > 0
    return Reliability(
        total,
        np.divide(np.asarray(confidence_sum, np.float64), total, out=empty.copy(), where=filled),
        np.divide(np.asarray(correct, np.float64), total, out=empty.copy(), where=filled),
    )
