"""The whole analysis of a detector's saved predictions, for boxes or for masks.

Letters: K classes; N detections; I images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swin_dense.evaluation.analysis.calibration import Reliability, reliability
from swin_dense.evaluation.analysis.confusion import detection_confusion
from swin_dense.evaluation.analysis.error_kinds import (
    CLASSIFICATION,
    CORRECT,
    LOCALISATION,
    PASSED_OVER,
    ErrorKinds,
    error_costs,
    error_counts,
    error_kinds,
)
from swin_dense.evaluation.analysis.matching import Matches, match
from swin_dense.evaluation.analysis.ranking import Ranking, mean_over_classes
from swin_dense.evaluation.analysis.table import Bools, DetectionTable, Floats, Ints
from swin_dense.evaluation.analysis.thresholds import Threshold, best_threshold, class_thresholds

FALLBACK_SCORE = 0.3
"""The least score that counts where nothing at all was found."""


@dataclass(frozen=True, eq=False)
class DetectionAnalysis:
    """What is known of a detector, by boxes ("bbox") or masks ("segm").

    Attributes:
        kind: "bbox" or "segm".
        table: the data set.
        matches: at COCO's ten thresholds.
        ranking: the detections in order.
        average_precision: (10, K) in 0..1; NaN for a class without annotations.
        threshold: the one with the best F1 over all classes at an IoU of 0.5, if any is found.
        class_thresholds: the best of each class.
        kinds: every detection's kind.
        costs: the AP50 (0..1) that each kind costs.
        counts: errors of each kind, of detections that reach the threshold.
        confusion: (K + 1, K + 1), of detections that reach the threshold.
        calibration: of all detections that count.
        image_counts: (I, 3) right, wrong, not found, at the threshold.
    """

    kind: str
    table: DetectionTable
    matches: Matches
    ranking: Ranking
    average_precision: Floats
    threshold: Threshold | None
    class_thresholds: list[Threshold | None]
    kinds: ErrorKinds
    costs: dict[str, float]
    counts: dict[str, int]
    confusion: Ints
    calibration: Reliability
    image_counts: Ints

    @property
    def mean_ap(self) -> float:
        """COCO's mAP, 0..1."""
        return mean_over_classes(self.average_precision)

    @property
    def ap50(self) -> float:
        """The mAP at an IoU of 0.5, 0..1."""
        return mean_over_classes(self.average_precision[0])

    @property
    def least_score(self) -> float:
        """The score that detections need to count as found."""
        return FALLBACK_SCORE if self.threshold is None else self.threshold.score

    @property
    def image_f1(self) -> Floats:
        """(I,) F1 of each image at the threshold; 1 where there is rightly nothing."""
        right, wrong, lost = self.image_counts.T.astype(np.float64)
        total = 2 * right + wrong + lost
        return np.divide(2 * right, total, out=np.ones_like(total), where=total > 0)


def analyse_detection(table: DetectionTable, kind: str = "bbox") -> DetectionAnalysis:
    """Return the analysis of a table by boxes ("bbox") or masks ("segm")."""
    overlaps = table.overlaps(kind)
    matches = match(table, overlaps)
    ranking = Ranking.of(table, matches)
    threshold = best_threshold(ranking.curve(0))
    least = FALLBACK_SCORE if threshold is None else threshold.score
    kinds = error_kinds(table, overlaps, matches)
    counting = kinds.kind != PASSED_OVER
    counts = error_counts(kinds, table.found.score, least)
    lost = not_found(table, matches, least)
    near = np.isin(kinds.kind, (CLASSIFICATION, LOCALISATION)) & (table.found.score >= least)
    lost[kinds.target[near]] = False  # a detection is there, misnamed or misplaced
    counts["missed"] = int(lost.sum())
    return DetectionAnalysis(
        kind=kind,
        table=table,
        matches=matches,
        ranking=ranking,
        average_precision=ranking.average_precision(),
        threshold=threshold,
        class_thresholds=class_thresholds(ranking),
        kinds=kinds,
        costs=error_costs(table, kinds),
        counts=counts,
        confusion=detection_confusion(table, overlaps, matches, least_score=least),
        calibration=reliability(table.found.score[counting], kinds.kind[counting] == CORRECT),
        image_counts=count_images(table, kinds, matches, least),
    )


def not_found(table: DetectionTable, matches: Matches, least_score: float) -> Bools:
    """Return (M,) whether no detection of at least ``least_score`` found an annotation."""
    finder = matches.found_of[0]
    score = np.append(table.found.score, -1.0)[finder]  # -1, nobody, reads the last
    return (score < least_score) & ~table.truth.crowd


def count_images(
    table: DetectionTable, kinds: ErrorKinds, matches: Matches, least_score: float
) -> Ints:
    """Return (I, 3): right and wrong detections of at least ``least_score``, and what they miss."""
    images = len(table.image_ids)
    kept = (table.found.score >= least_score) & (kinds.kind != PASSED_OVER)
    right = kept & (kinds.kind == CORRECT)
    lost = not_found(table, matches, least_score)
    return np.stack(
        [
            np.bincount(table.found.image[right], minlength=images),
            np.bincount(table.found.image[kept & ~right], minlength=images),
            np.bincount(table.truth.image[lost], minlength=images),
        ],
        axis=1,
    )
