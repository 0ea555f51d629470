"""Thresholds, confusion, calibration and doubtful annotations, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from swin_dense.evaluation.analysis.calibration import from_counts, reliability
from swin_dense.evaluation.analysis.confusion import detection_confusion
from swin_dense.evaluation.analysis.detection import analyse_detection
from swin_dense.evaluation.analysis.error_kinds import error_kinds
from swin_dense.evaluation.analysis.matching import match
from swin_dense.evaluation.analysis.ranking import Curve
from swin_dense.evaluation.analysis.suspects import suspect_boxes, suspect_regions
from swin_dense.evaluation.analysis.thresholds import as_meta, best_threshold
from tests.evaluation.analysis.perturbed import table_of

CAT, DOG = 0, 1
BOX, FAR = [0, 0, 100, 100], [500, 500, 600, 600]


def curve(hits: str, positives: int, scores: list[float]) -> Curve:
    right = np.cumsum([mark == "+" for mark in hits])
    return Curve(
        np.array(scores), right / np.arange(1, len(hits) + 1), right / positives, positives
    )


def test_the_best_f1_is_found_and_the_threshold_lies_below_its_score() -> None:
    # F1 with 4 objects: 2/5, 4/6, 4/7, 6/8, 6/9: the best keeps four
    found = best_threshold(curve("++-+-", 4, [0.9, 0.8, 0.7, 0.6, 0.2]))
    assert found is not None
    assert found.f1 == pytest.approx(0.75)
    assert found.precision == pytest.approx(0.75)
    assert found.recall == pytest.approx(0.75)
    assert found.score == pytest.approx(0.4)  # halfway between 0.6 and 0.2


def test_below_the_last_detection_the_threshold_is_half_its_score() -> None:
    found = best_threshold(curve("+", 1, [0.5]))
    assert found is not None
    assert found.score == pytest.approx(0.25)


def test_without_a_right_detection_there_is_no_best_threshold() -> None:
    assert best_threshold(curve("--", 3, [0.5, 0.4])) is None
    assert best_threshold(curve("", 3, [])) is None


def test_a_class_that_was_never_found_gets_the_overall_threshold() -> None:
    table = table_of([(0, CAT, BOX), (0, DOG, FAR)], [(0, CAT, BOX, 0.8), (0, DOG, BOX, 0.6)])
    analysis = analyse_detection(table)
    assert analysis.threshold is not None
    names = dict(zip(table.class_names, analysis.class_thresholds, strict=True))
    assert names["dog"] is None
    meta = as_meta(analysis.threshold, names)
    assert meta == {"iou": 0.5, "overall": 0.7, "per_class": {"cat": 0.4, "dog": 0.7}}


def test_the_confusion_matrix_is_the_one_worked_by_hand() -> None:
    table = table_of(
        [(0, CAT, BOX), (0, DOG, FAR), (0, DOG, [0, 800, 100, 900])],
        [
            (0, CAT, BOX, 0.9),
            (0, DOG, BOX, 0.8),  # on the cat that is taken: a false alarm
            (0, CAT, FAR, 0.7),  # the dog, called a cat
            (0, CAT, [300, 0, 400, 100], 0.6),  # nothing there
            (0, DOG, [0, 800, 100, 900], 0.1),  # right, but below the least score
        ],
    )
    matches = match(table, table.box_overlaps, (0.5,))
    counts = detection_confusion(table, table.box_overlaps, matches, least_score=0.5)
    assert counts.tolist() == [[1, 0, 0], [1, 0, 1], [1, 1, 0]]
    counts = detection_confusion(table, table.box_overlaps, matches, least_score=0.0)
    assert counts.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]


def test_the_counts_of_an_image_follow_the_threshold() -> None:
    table = table_of(
        [(0, CAT, BOX), (0, DOG, FAR), (1, CAT, BOX)],
        [(0, CAT, BOX, 0.9), (0, CAT, FAR, 0.8)],
        images=3,
    )
    analysis = analyse_detection(table)
    assert analysis.image_counts.tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert analysis.image_f1.tolist() == [pytest.approx(2 / 3), 0.0, 1.0]
    assert analysis.counts["missed"] == 2


def test_the_calibration_error_is_the_one_worked_by_hand() -> None:
    # four of 0.9, three right; one of 0.2, right: (4 * |0.9 - 0.75| + 1 * |0.2 - 1|) / 5
    found = reliability([0.9, 0.9, 0.9, 0.9, 0.2], [1, 1, 1, 0, 1], bins=10)
    assert found.error == pytest.approx((4 * 0.15 + 0.8) / 5)
    assert found.count.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 4]
    assert found.accuracy[9] == pytest.approx(0.75)
    assert np.isnan(found.accuracy[0])


def test_perfect_confidence_has_no_calibration_error_and_none_has_none_to_tell() -> None:
    assert reliability([1.0, 1.0, 0.0], [1, 1, 0]).error == 0
    assert np.isnan(reliability([], []).error)
    again = from_counts([2, 0], [1, 0], [0.6, 0.0])
    assert again.error == pytest.approx(0.2)
    assert from_counts([2, 0], [1, 0]).error == pytest.approx(0.25)  # the bin's middle is 0.25


def test_doubtful_annotations_are_found_and_ordered() -> None:
    table = table_of(
        [(0, CAT, BOX), (0, DOG, FAR), (0, DOG, [500, 500, 600, 598]), (0, CAT, [0, 800, 99, 899])],
        [
            (0, DOG, BOX, 0.95),  # the cat may be a dog
            (0, CAT, [300, 0, 400, 100], 0.9),  # perhaps not annotated
            (0, CAT, [700, 0, 800, 100], 0.3),  # not sure enough
            (0, CAT, [0, 800, 99, 899], 0.9),
            (0, DOG, [0, 800, 99, 899], 0.9),  # its own class was found there: no doubt
        ],
    )
    kinds = error_kinds(table, table.box_overlaps, match(table, table.box_overlaps))
    found = suspect_boxes(table, table.box_overlaps, kinds)
    assert [(s.reason, s.annotated, s.predicted) for s in found] == [
        ("annotated twice", DOG, DOG),
        ("other class", CAT, DOG),
        ("not annotated", -1, CAT),
    ]
    assert found[0].weight == pytest.approx(0.98)
    assert found[1].box_xyxy == (0, 0, 100, 100)


def test_a_region_predicted_whole_as_another_trusted_class_is_doubtful() -> None:
    labels = np.zeros((20, 20), np.int64)
    labels[5:15, 5:15] = 1
    prediction = np.zeros((20, 20), np.int64)
    prediction[5:15, 5:15] = 2
    known = np.array([0.9, 0.8, 0.7])
    (found,) = suspect_regions(3, labels, prediction, known)
    assert (found.image, found.annotated, found.predicted) == (3, 1, 2)
    assert found.box_xyxy == (5, 5, 15, 15)
    assert found.weight == pytest.approx(0.7)
    assert suspect_regions(3, labels, prediction, np.array([0.9, 0.8, 0.3])) == []
    prediction[5:7, 5:15] = 1  # a fifth of it is right
    assert suspect_regions(3, labels, prediction, known) == []
