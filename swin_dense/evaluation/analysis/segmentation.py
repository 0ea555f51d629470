"""What label maps tell: confusion, what kinds of wrong pixels there are, and what each kind costs.

Wrong pixels are of three kinds, the counterpart of TIDE's for label maps:

    boundary   within a few pixels of a border between annotated classes
    missed     in an annotated segment of which hardly anything is right
    partial    the rest: part of a segment taken for something else

The cost of a kind is the mIoU gained were those pixels right. Letters: H, W a picture; K classes;
I images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from swin_dense.evaluation.analysis.table import Bools, Floats, Ints

PIXEL_KINDS = ("boundary", "missed", "partial")
BOUNDARY_SHARE = 0.0075
"""Width of the boundary band on each side, as a share of the picture's diagonal."""

MISSED_SHARE = 0.1
"""A segment of which less than this is right counts as missed."""


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """Counts of one picture or of many.

    Attributes:
        confusion: (K, K) pixels by annotated class (row) and predicted class (column).
        wrong: (3, K, K) those of each of ``PIXEL_KINDS``; nothing on the diagonals.
    """

    confusion: Ints
    wrong: Ints

    @property
    def iou(self) -> Floats:
        """(K,) IoU in 0..1; NaN for a class that neither side has."""
        return _iou(self.confusion)

    @property
    def recall(self) -> Floats:
        """(K,) share of a class's pixels that are found; NaN without any."""
        return _share(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def precision(self) -> Floats:
        """(K,) share of the pixels given a class that have it; NaN without any."""
        return _share(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def accuracy(self) -> float:
        """Share of all pixels that are right; NaN without any."""
        total = int(self.confusion.sum())
        return float(np.trace(self.confusion) / total) if total else float("nan")

    @property
    def per_class(self) -> Ints:
        """(3, K) pixels in both, predicted, annotated, as the bootstrap takes them."""
        parts = (np.diag(self.confusion), self.confusion.sum(axis=0), self.confusion.sum(axis=1))
        return np.stack(parts)

    def costs(self) -> dict[str, float]:
        """Return the mIoU (0..1) that each kind costs."""
        before = np.nanmean(self.iou) if self.confusion.any() else 0.0
        result = {}
        for index, name in enumerate(PIXEL_KINDS):
            fixed = self.confusion - self.wrong[index] + np.diag(self.wrong[index].sum(axis=1))
            result[name] = float(np.nanmean(_iou(fixed)) - before) if fixed.any() else 0.0
        return result

    def counts(self) -> dict[str, int]:
        """Return how many pixels are wrong in each way."""
        return {name: int(self.wrong[index].sum()) for index, name in enumerate(PIXEL_KINDS)}


def count_pixels(
    labels: NDArray[np.generic],
    prediction: NDArray[np.generic],
    num_classes: int,
    ignore_index: int = 255,
) -> PixelCounts:
    """Return the counts of one picture.

    Args:
        labels: (H, W) annotated classes; ``ignore_index`` and what is no class are left out.
        prediction: (H, W) predicted classes.
        num_classes: K.
        ignore_index: the label of pixels without a class.
    """
    truth, found = labels.astype(np.int64), prediction.astype(np.int64)
    counted = (truth != ignore_index) & (truth >= 0) & (truth < num_classes)
    found = np.clip(found, 0, num_classes - 1)
    kinds = pixel_kinds(truth, found, counted)
    cell = truth * num_classes + found
    size = num_classes * num_classes

    def tally(where: Bools) -> Ints:
        return np.bincount(cell[where], minlength=size).reshape(num_classes, num_classes)

    wrong = np.stack([tally(kinds == index) for index in range(len(PIXEL_KINDS))])
    return PixelCounts(tally(counted), wrong)


def pixel_kinds(truth: Ints, found: Ints, counted: Bools) -> NDArray[np.int8]:
    """Return the index in ``PIXEL_KINDS`` of every wrong pixel, -1 elsewhere, (H, W)."""
    wrong = counted & (truth != found)
    kinds = np.full(truth.shape, -1, np.int8)
    if not wrong.any():
        return kinds
    kinds[wrong] = PIXEL_KINDS.index("partial")
    for label in np.unique(truth[wrong]):
        segment_map = ((truth == label) & counted).astype(np.uint8)
        number, segments = cv2.connectedComponents(segment_map, connectivity=8)
        size = np.bincount(segments.ravel(), minlength=number)
        right = np.bincount(segments[~wrong], minlength=number)
        lost = right < MISSED_SHARE * size
        lost[0] = False
        kinds[wrong & lost[segments]] = PIXEL_KINDS.index("missed")
    near = boundary_band(truth) & wrong & (kinds != PIXEL_KINDS.index("missed"))
    kinds[near] = PIXEL_KINDS.index("boundary")
    return kinds


def boundary_band(truth: Ints) -> Bools:
    """Return which pixels (H, W) lie near a border between two labels."""
    height, width = truth.shape
    reach = max(1, round(BOUNDARY_SHARE * float(np.hypot(height, width))))
    edge = np.zeros(truth.shape, np.uint8)
    across, down = truth[:, 1:] != truth[:, :-1], truth[1:] != truth[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach - 1, 2 * reach - 1))
    return np.asarray(cv2.dilate(edge, kernel)) > 0


def total(counts: Iterable[PixelCounts], num_classes: int) -> PixelCounts:
    """Return the sum of many pictures' counts."""
    confusion = np.zeros((num_classes, num_classes), np.int64)
    wrong = np.zeros((len(PIXEL_KINDS), num_classes, num_classes), np.int64)
    for one in counts:
        confusion += one.confusion
        wrong += one.wrong
    return PixelCounts(confusion, wrong)


def _iou(confusion: Ints) -> Floats:
    both = np.diag(confusion)
    return _share(both, confusion.sum(axis=0) + confusion.sum(axis=1) - both)


def _share(part: Ints, whole: Ints) -> Floats:
    empty = np.full(part.shape, np.nan)
    return np.divide(part.astype(np.float64), whole, out=empty, where=whole > 0)
