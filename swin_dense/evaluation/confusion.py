"""One confusion matrix for a whole data set, and the figures of segmentation that follow from it.

Letters: C classes; H, W the picture.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from swin_dense.errors import UserError

Labels = NDArray[np.integer[Any]]


class Confusion:
    """Counts of pixels by true and predicted class.

    Args:
        num_classes: C.
        ignore_index: the true label of pixels that count nowhere.

    Attributes:
        counts: (C, C + 1) int64, true class by predicted class; the last column counts predictions
            that are no class.
        unlabelled: (C,) predictions of each class where the true label is neither a class nor
            ignored; the hosts count them against precision and IoU.
    """

    def __init__(self, num_classes: int, *, ignore_index: int = 255) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self._all = np.zeros((num_classes + 1, num_classes + 1), np.int64)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Counts (C, C + 1) of pixels with a true class."""
        return self._all[:-1]

    @property
    def unlabelled(self) -> NDArray[np.int64]:
        """Counts (C,) of predictions on pixels whose label is no class."""
        return self._all[-1, :-1]

    def update(self, predicted: Labels, true: Labels) -> None:
        """Add one picture's class indices, both (H, W).

        Raises:
            UserError: the two are of different size.
        """
        if predicted.shape != true.shape:
            raise UserError(
                f"a predicted label map has shape {predicted.shape} and its truth {true.shape}; "
                "expected the same. A test pipeline must not resize its annotations."
            )
        classes = self.num_classes
        true, predicted = true.ravel(), predicted.ravel()
        kept = true != self.ignore_index
        if not kept.all():
            true, predicted = true[kept], predicted[kept]
        if true.size == 0:
            return
        # what is no class goes to the last row or column; the check is cheaper than the clipping
        rows, columns = _in_range(true, classes), _in_range(predicted, classes)
        index = rows.astype(np.int32) * np.int32(classes + 1) + columns
        self._all += np.bincount(index, minlength=(classes + 1) ** 2).reshape(self._all.shape)

    def add(self, counts: NDArray[np.int64]) -> None:
        """Add another process's :meth:`state`."""
        self._all += counts

    def state(self) -> NDArray[np.int64]:
        """Return all counts (C + 1, C + 1), to be added elsewhere."""
        return self._all.copy()

    def per_class(self, *, beta: float = 1.0) -> dict[str, NDArray[np.float64]]:
        """Return IoU, Acc, Dice, Fscore, Precision and Recall of each class (C,), as shares of 1.

        A class that is nowhere is NaN, as in the hosts.
        """
        right = np.diagonal(self.counts).astype(np.float64)
        true = self.counts.sum(axis=1).astype(np.float64)
        predicted = self._all[:, :-1].sum(axis=0).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision, recall = right / predicted, right / true
            weight = beta**2
            return dict(
                IoU=right / (true + predicted - right),
                Acc=recall,
                Dice=2 * right / (true + predicted),
                Fscore=(1 + weight) * precision * recall / (weight * precision + recall),
                Precision=precision,
                Recall=recall,
            )

    def accuracy(self) -> float:
        """Return the share of labelled pixels that are right; NaN without any."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")


class BoundaryConfusion(Confusion):
    """A confusion matrix of pixels near outlines: boundary IoU, summed over the data set.

    For each class, only its pixels within ``distance`` of its own outline count, in truth and
    prediction (Cheng et al., https://arxiv.org/abs/2103.16562).

    Args:
        num_classes: C.
        ignore_index: the true label of pixels that count nowhere.
        distance_share: of the picture's diagonal; at least one pixel is taken.
    """

    def __init__(
        self, num_classes: int, *, ignore_index: int = 255, distance_share: float = 0.02
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index)
        self._share = distance_share
        self._areas = np.zeros((2, num_classes), np.int64)

    def update(self, predicted: Labels, true: Labels) -> None:
        """Add one picture's class indices, both (H, W)."""
        distance = max(1, round(self._share * float(np.hypot(*true.shape))))
        kept = true != self.ignore_index
        for label in np.union1d(np.unique(true[kept]), np.unique(predicted[kept])):
            if not 0 <= label < self.num_classes:
                continue
            rims = [_rim((side == label) & kept, distance) for side in (true, predicted)]
            self._areas[0, label] += int((rims[0] & rims[1]).sum())
            self._areas[1, label] += int((rims[0] | rims[1]).sum())

    def add(self, counts: NDArray[np.int64]) -> None:
        """Add another process's :meth:`state`."""
        self._areas += counts

    def state(self) -> NDArray[np.int64]:
        """Return intersections and unions (2, C)."""
        return self._areas.copy()

    def iou(self) -> NDArray[np.float64]:
        """Return boundary IoU of each class (C,) as a share of 1, NaN for one that is nowhere."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._areas[0] / self._areas[1].astype(np.float64)


def _in_range(labels: Labels, classes: int) -> Labels:
    if labels.min() >= 0 and labels.max() < classes:
        return labels
    return np.where((labels >= 0) & (labels < classes), labels, classes)


def _rim(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Return the pixels of ``mask`` within ``distance`` of what is not it, or of the picture's
    edge."""
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
    return mask & ~inner.astype(bool)
