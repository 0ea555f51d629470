"""Which detection finds which annotation, by COCO's rules (pycocotools' ``evaluateImg``).

In each image and class, best score first, a detection takes the free annotation that it overlaps
most, if that reaches the threshold. One that is left over inside a crowd counts neither way.
Letters: T thresholds; N detections; M annotations; D and G those of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swin_dense.evaluation.analysis.table import Bools, DetectionTable, Floats, Ints

COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections and annotations that belong together, at each IoU threshold.

    Attributes:
        thresholds: (T,).
        truth_of: (T, N) the annotation that a detection found; -1 where it found none.
        passed_over: (T, N) whether a detection lies in a crowd and counts neither way.
        found_of: (T, M) the detection that found an annotation; -1 where none did.
    """

    thresholds: tuple[float, ...]
    truth_of: Ints
    passed_over: Bools
    found_of: Ints

    @property
    def correct(self) -> Bools:
        """(T, N) whether a detection is right."""
        return self.truth_of >= 0


def match(
    table: DetectionTable,
    overlaps: Sequence[Floats],
    thresholds: Sequence[float] = COCO_THRESHOLDS,
) -> Matches:
    """Match the detections of every image.

    Args:
        table: the data set.
        overlaps: an array (D, G) an image, from :meth:`DetectionTable.overlaps`.
        thresholds: least IoU, each 0..1.
    """
    needed = np.minimum(np.asarray(thresholds, np.float64), 1 - 1e-10)[:, None]  # (T, 1)
    truth_of = np.full((len(needed), len(table.found)), -1, np.int64)
    found_of = np.full((len(needed), len(table.truth)), -1, np.int64)
    passed_over = np.zeros(truth_of.shape, np.bool_)
    levels = np.arange(len(needed))
    for image, iou in enumerate(overlaps):
        if iou.size == 0:
            continue
        found, truth = table.found.rows(image), table.truth.rows(image)
        same = table.found.label[found][:, None] == table.truth.label[truth][None]
        own = np.where(same, iou, -1.0)
        crowd = table.truth.crowd[truth]
        free = np.repeat(~crowd[None], len(needed), axis=0)  # (T, G)
        for row in np.flatnonzero(own.max(axis=1) >= needed.min()):
            reach = own[row][None] >= needed
            value = np.where(reach & free, own[row][None], -1.0)
            best = value.shape[1] - 1 - value[:, ::-1].argmax(axis=1)  # COCO: the last of equals
            hit = value[levels, best] >= 0
            free[levels[hit], best[hit]] = False
            truth_of[hit, found.start + row] = truth.start + best[hit]
            found_of[levels[hit], truth.start + best[hit]] = found.start + row
            passed_over[:, found.start + row] = ~hit & (reach & crowd[None]).any(axis=1)
    return Matches(tuple(float(value) for value in thresholds), truth_of, passed_over, found_of)
