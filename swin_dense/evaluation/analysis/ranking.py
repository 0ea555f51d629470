"""Average precision and precision-recall curves of ranked detections.

AP is COCO's: precision at 101 recalls, each the best at that recall or beyond. Images can carry
weights, which is what resampling needs: an image drawn twice counts twice. Letters: T thresholds;
K classes; N detections; M annotations; I images; P points of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swin_dense.evaluation.analysis.matching import Matches
from swin_dense.evaluation.analysis.table import Bools, DetectionTable, Floats, Ints

RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall as the score falls.

    Attributes:
        score: (P,) falling; every detection of at least this score is kept.
        precision: (P,).
        recall: (P,) rising.
        positives: how many annotations there are to find.
    """

    score: Floats
    precision: Floats
    recall: Floats
    positives: int

    def at_recalls(self, recalls: Floats = RECALLS) -> Floats:
        """Return the best precision at each recall or beyond; 0 past the last."""
        if not len(self.precision):
            return np.zeros(len(recalls))
        envelope = np.maximum.accumulate(self.precision[::-1])[::-1]
        first = np.searchsorted(self.recall, recalls, side="left")
        return np.where(first < len(envelope), envelope[np.minimum(first, len(envelope) - 1)], 0.0)


class Ranking:
    """Detections by class and falling score, each right, wrong or passed over.

    Args:
        num_classes: K.
        label: (N,) class indices of the detections.
        score: (N,).
        image: (N,) index of their images.
        correct: (T, N).
        passed_over: (T, N) those that count neither way.
        truth_label: (M,) class indices of the annotations to find, crowds left out.
        truth_image: (M,) index of their images.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        label: Ints,
        score: Floats,
        image: Ints,
        correct: Bools,
        passed_over: Bools,
        truth_label: Ints,
        truth_image: Ints,
    ) -> None:
        self.num_classes = num_classes
        self._truth_label, self._truth_image = truth_label, truth_image
        order = np.lexsort((-score, label))
        self._label, self._score, self._image = label[order], score[order], image[order]
        self._correct, self._passed_over = correct[:, order], passed_over[:, order]
        self._starts = np.searchsorted(self._label, np.arange(num_classes + 1))
        self._hits = [np.flatnonzero(row) for row in self._correct]
        self._skips = [np.flatnonzero(row) for row in self._passed_over]
        # what comes after the last hit of its class changes no AP; resampling leaves it out
        self._hit_label = [self._label[hits] for hits in self._hits]
        self._hit_starts = [
            np.searchsorted(labels, np.arange(num_classes)) for labels in self._hit_label
        ]
        self._skips_before = [
            np.searchsorted(skips, hits)
            for skips, hits in zip(self._skips, self._hits, strict=True)
        ]

    @classmethod
    def of(cls, table: DetectionTable, matches: Matches) -> Ranking:
        """Return the ranking of a table's detections."""
        wanted = ~table.truth.crowd
        return cls(
            len(table.class_names),
            label=table.found.label,
            score=table.found.score,
            image=table.found.image,
            correct=matches.correct,
            passed_over=matches.passed_over,
            truth_label=table.truth.label[wanted],
            truth_image=table.truth.image[wanted],
        )

    def average_precision(self, image_weights: Floats | None = None) -> Floats:
        """Return the AP of each threshold and class, (T, K); NaN where there is nothing to find.

        Args:
            image_weights: (I,) how often each image counts; once where it is None.
        """
        classes = self.num_classes
        exact = image_weights is None
        if image_weights is None:
            weight = np.ones(len(self._label))
            truth_weight = np.ones(len(self._truth_label))
        else:
            weight, truth_weight = image_weights[self._image], image_weights[self._truth_image]
        positives = np.bincount(self._truth_label, truth_weight, classes)[:classes]
        ranks = np.concatenate([[0.0], np.cumsum(weight)])
        result = np.zeros((len(self._hits), classes))
        for level, hits in enumerate(self._hits):
            if not len(hits):
                continue
            label, starts = self._hit_label[level], self._hit_starts[level]
            right = np.concatenate([[0.0], np.cumsum(weight[hits])])
            right_before = right[starts][label]
            skipped = np.concatenate([[0.0], np.cumsum(weight[self._skips[level]])])
            skips_at_start = np.searchsorted(self._skips[level], self._starts[:-1])
            counted = ranks[hits + 1] - ranks[self._starts[:-1]][label]
            counted -= skipped[self._skips_before[level]] - skipped[skips_at_start][label]
            found = right[1:] - right_before
            precision = found / np.maximum(counted, 1e-12)
            # each class on a step of its own, so that one running maximum serves them all
            step = 2.0 * (classes - label)
            best = np.maximum.accumulate((precision + step)[::-1])[::-1] - step
            recall = found / np.maximum(positives[label], 1e-12)
            if exact:
                reached = np.searchsorted(RECALLS, recall, side="right").astype(np.float64)
            else:
                reached = np.floor(recall * 100 + 1e-9) + 1
            gained = np.diff(reached, prepend=0.0)
            first = np.flatnonzero(np.diff(label, prepend=-1))
            gained[first] = reached[first]
            result[level] = np.bincount(label, best * gained, classes)[:classes] / len(RECALLS)
        result[:, positives == 0] = np.nan
        return result

    def curve(self, level: int, label: int | None = None) -> Curve:
        """Return the curve at a threshold, of one class or of all detections pooled."""
        rows = slice(None) if label is None else slice(self._starts[label], self._starts[label + 1])
        counts = ~self._passed_over[level, rows]
        score = self._score[rows][counts]
        correct = self._correct[level, rows][counts]
        order = np.argsort(-score, kind="stable")
        score, correct = score[order], correct[order]
        positives = int((self._truth_label == label).sum() if label is not None
                        else len(self._truth_label))  # fmt: skip
        right = np.cumsum(correct)
        precision = right / np.arange(1, len(right) + 1)
        recall = right / max(positives, 1)
        last = np.append(score[1:] != score[:-1], True) if len(score) else np.zeros(0, np.bool_)
        return Curve(score[last], precision[last], recall[last], positives)


def mean_over_classes(values: NDArray[np.float64]) -> float:
    """Return the mean of what is not NaN; NaN where all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
