"""Two runs on the same images, compared with paired bootstrap intervals.

Images are drawn with replacement, the same draw for both runs, and the figure is taken anew; the
interval holds the middle 95 % of the differences (Efron and Tibshirani, An Introduction to the
Bootstrap, section 13.3). What a figure needs of an image is worked out once and weighted by how
often it was drawn. Letters: R resamples; I images; K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from swin_dense.evaluation.analysis.table import Floats

Figure = Callable[[Floats], float]
"""From the weights of the images, (I,), to one number."""

RESAMPLES = 1000


@dataclass(frozen=True)
class Difference:
    """A figure of two runs, and the interval of its difference.

    Attributes:
        first: the figure of the first run.
        second: the figure of the second run.
        low: lower end of the interval of ``second - first``.
        high: upper end.
        resamples: how many went into it.
        confidence: the share of resamples that the interval holds.
    """

    first: float
    second: float
    low: float
    high: float
    resamples: int = RESAMPLES
    confidence: float = 0.95

    @property
    def change(self) -> float:
        """The second run less the first."""
        return self.second - self.first

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def draws(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Return how often each image is drawn in each resample, (R, I)."""
    rng = np.random.default_rng(seed)
    result = np.empty((resamples, images))
    for row in range(resamples):
        result[row] = np.bincount(rng.integers(0, images, images), minlength=images)
    return result


def paired_bootstrap(
    first: Figure,
    second: Figure,
    images: int,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Difference:
    """Return the figures of two runs with the interval of their difference.

    Args:
        first: the figure of the first run for given weights of the images.
        second: that of the second.
        images: how many there are.
        resamples: how many draws.
        confidence: the share of them that the interval holds.
        seed: equal seeds give equal intervals.
        progress: called with (resamples done, resamples in all).
    """
    return paired_bootstraps(
        lambda weights: np.array([first(weights)]),
        lambda weights: np.array([second(weights)]),
        images,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        progress=progress,
    )[0]


def paired_bootstraps(
    first: Callable[[Floats], Floats],
    second: Callable[[Floats], Floats],
    images: int,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Difference]:
    """Return as :func:`paired_bootstrap` does for several figures (F,) that are taken together."""
    once = np.ones(images)
    before, after = first(once), second(once)
    changes = np.empty((resamples, len(before)))
    for row, weights in enumerate(draws(images, resamples, seed)):
        changes[row] = second(weights) - first(weights)
        if progress is not None:
            progress(row + 1, resamples)
    tail = (1 - confidence) / 2
    result = []
    for index, column in enumerate(changes.T):
        known = column[~np.isnan(column)]
        low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (np.nan, np.nan)
        result.append(
            Difference(
                float(before[index]),
                float(after[index]),
                float(low),
                float(high),
                resamples,
                confidence,
            )
        )
    return result


def mean_iou(counts: Floats, weights: Floats) -> float:
    """Return the mIoU (0..1) of weighted images.

    Args:
        counts: (I, 3, K) pixels of each image and class: in both, predicted, annotated.
        weights: (I,).
    """
    both, predicted, annotated = np.tensordot(weights, counts, axes=1)
    union = predicted + annotated - both
    known = union > 0
    return float((both[known] / union[known]).mean()) if known.any() else float("nan")
