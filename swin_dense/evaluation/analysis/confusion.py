"""Which class is taken for which, in detection.

Letters: K classes; index K is the background. Rows are annotations, columns detections.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swin_dense.evaluation.analysis.matching import Matches
from swin_dense.evaluation.analysis.table import DetectionTable, Floats, Ints


def detection_confusion(
    table: DetectionTable,
    overlaps: Sequence[Floats],
    matches: Matches,
    *,
    least_score: float,
    level: int = 0,
) -> Ints:
    """Return how often each class was taken for each, (K + 1, K + 1).

    First come the detections that are right by COCO's matching. Of what is left over, a detection
    and an annotation of different classes pair up, the largest overlap first, if it reaches the
    threshold. The rest is background: row K has false alarms, column K what was not found.

    Args:
        table: the data set.
        overlaps: an array (D, G) an image.
        matches: from :func:`~swin_dense.evaluation.analysis.matching.match`.
        least_score: detections under it are left out.
        level: which of the thresholds of ``matches``.
    """
    classes = len(table.class_names)
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    kept = (table.found.score >= least_score) & ~matches.passed_over[level]
    for image, iou in enumerate(overlaps):
        found, truth = table.found.rows(image), table.truth.rows(image)
        columns = np.where(kept[found], table.found.label[found], -1)
        rows = np.where(table.truth.crowd[truth], -1, table.truth.label[truth])
        partner = matches.truth_of[level][found] - truth.start
        for index in np.flatnonzero((columns >= 0) & (partner >= 0)):
            counts[columns[index], columns[index]] += 1
            rows[partner[index]] = -1
            columns[index] = -1
        left = np.where((columns >= 0)[:, None] & (rows >= 0)[None], iou, -1.0)
        while left.size and left.max() >= matches.thresholds[level]:
            index, other = np.unravel_index(int(left.argmax()), left.shape)
            if columns[index] == rows[other]:  # a duplicate's twin found its own; never a confusion
                left[index, other] = -1.0
                continue
            counts[rows[other], columns[index]] += 1
            columns[index] = rows[other] = -1
            left[index], left[:, other] = -1.0, -1.0
        counts[classes] += np.bincount(columns[columns >= 0], minlength=classes + 1)
        counts[:, classes] += np.bincount(rows[rows >= 0], minlength=classes + 1)
    return counts
