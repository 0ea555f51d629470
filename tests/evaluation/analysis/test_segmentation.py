"""Label maps: counts, kinds of wrong pixels, their cost; and the bootstrap. By hand."""

from __future__ import annotations

import time

import numpy as np
import pytest

from swin_dense.evaluation.analysis.bootstrap import draws, mean_iou, paired_bootstrap
from swin_dense.evaluation.analysis.matching import match
from swin_dense.evaluation.analysis.ranking import Ranking, mean_over_classes
from swin_dense.evaluation.analysis.segmentation import PIXEL_KINDS, count_pixels, total
from tests.evaluation.analysis.perturbed import table_of


def test_confusion_and_iou_are_those_worked_by_hand() -> None:
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 255]])
    prediction = np.array([[0, 0, 0, 1], [0, 1, 1, 1]])
    counts = count_pixels(labels, prediction, 3)
    assert counts.confusion.tolist() == [[3, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert counts.iou[:2].tolist() == [pytest.approx(3 / 5), pytest.approx(2 / 4)]
    assert np.isnan(counts.iou[2])
    assert counts.accuracy == pytest.approx(5 / 7)
    assert counts.per_class.tolist() == [[3, 2, 0], [4, 3, 0], [4, 3, 0]]


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Left half 0, right half 1, a small square of 2; errors of all three kinds."""
    labels = np.zeros((120, 120), np.int64)
    labels[:, 60:] = 1
    labels[10:20, 10:20] = 2
    prediction = labels.copy()
    prediction[:, 60] = 0  # the border one pixel off: 120 pixels
    prediction[10:20, 10:20] = 0  # the square is lost: 100 pixels
    prediction[50:60, 90:110] = 2  # a patch inside the right half: 200 pixels
    return labels, prediction


def test_wrong_pixels_are_sorted_into_kinds() -> None:
    counts = count_pixels(*scene(), 3)
    assert counts.counts() == {"boundary": 120, "missed": 100, "partial": 200}
    assert counts.wrong.sum() == counts.confusion.sum() - np.trace(counts.confusion)


def test_the_cost_of_a_kind_is_the_miou_gained_were_its_pixels_right() -> None:
    labels, prediction = scene()
    counts = count_pixels(labels, prediction, 3)
    repaired = prediction.copy()
    repaired[:, 60] = 1
    after = np.nanmean(count_pixels(labels, repaired, 3).iou)
    assert counts.costs()["boundary"] == pytest.approx(after - np.nanmean(counts.iou))
    repaired = prediction.copy()
    repaired[10:20, 10:20] = 2
    after = np.nanmean(count_pixels(labels, repaired, 3).iou)
    assert counts.costs()["missed"] == pytest.approx(after - np.nanmean(counts.iou))


def test_a_perfect_map_and_one_without_labels_have_no_errors() -> None:
    labels, _ = scene()
    perfect = count_pixels(labels, labels, 3)
    assert perfect.iou.tolist() == [1, 1, 1]
    assert set(perfect.costs().values()) == {0.0}
    empty = count_pixels(np.full((4, 4), 255), np.zeros((4, 4)), 3)
    assert empty.confusion.sum() == 0
    assert set(empty.costs()) == set(PIXEL_KINDS)
    both = total([perfect, empty, perfect], 3)
    assert both.confusion.tolist() == (2 * perfect.confusion).tolist()


def test_each_resample_draws_as_many_images_as_there_are() -> None:
    weights = draws(7, 50, seed=1)
    assert weights.sum(axis=1).tolist() == [7] * 50
    assert weights.std() > 0
    assert (weights == draws(7, 50, seed=1)).all()


def test_a_difference_that_every_image_shares_has_an_interval_of_no_width() -> None:
    values = np.array([0.2, 0.5, 0.9, 0.4])

    def mean(weights: np.ndarray) -> float:
        return float(weights @ values / weights.sum())

    def better(weights: np.ndarray) -> float:
        return mean(weights) + 0.1

    found = paired_bootstrap(mean, better, 4, resamples=200)
    assert found.first == pytest.approx(0.5)
    assert found.change == pytest.approx(0.1)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert found.is_clear


def test_the_interval_of_a_mean_of_two_images_is_the_one_worked_by_hand() -> None:
    # differences 0 and 1: a resample of two has mean 0, 1/2 or 1 with odds 1/4, 1/2, 1/4
    def second(weights: np.ndarray) -> float:
        return float(weights[1] / weights.sum())

    found = paired_bootstrap(lambda _: 0.0, second, 2, resamples=2000, confidence=0.95)
    assert (found.low, found.high) == (0.0, 1.0)
    assert not found.is_clear
    narrow = paired_bootstrap(lambda _: 0.0, second, 2, resamples=2000, confidence=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)  # 30 % to 70 % of the resamples


def test_the_width_agrees_with_the_standard_error_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    change = rng.normal(0.02, 0.1, 400)
    found = paired_bootstrap(
        lambda _: 0.0, lambda weights: float(weights @ change / weights.sum()), 400
    )
    half = (found.high - found.low) / 2
    assert half == pytest.approx(1.96 * change.std() / 20, rel=0.1)


def test_miou_of_weighted_images_is_that_of_the_repeated_ones() -> None:
    rng = np.random.default_rng(2)
    maps = [(rng.integers(0, 3, (8, 8)), rng.integers(0, 3, (8, 8))) for _ in range(3)]
    counts = np.stack([count_pixels(*pair, 4).per_class for pair in maps])
    whole = total([count_pixels(*maps[i], 4) for i in (0, 0, 2)], 4)
    assert mean_iou(counts, np.array([2.0, 0.0, 1.0])) == pytest.approx(np.nanmean(whole.iou))


def test_a_thousand_resamples_of_a_thousand_images_take_seconds() -> None:
    rng = np.random.default_rng(4)
    truth, found = [], []
    for image in range(1000):
        for _ in range(3):
            x, y, label = *rng.integers(0, 900, 2), int(rng.integers(2))
            truth.append((image, label, [x, y, x + 50, y + 50]))
            x = x + rng.integers(0, 30)
            found.append((image, label, [x, y, x + 50, y + 50], rng.random()))
    table = table_of(truth, found, images=1000)
    ranking = Ranking.of(table, match(table, table.box_overlaps))
    start = time.process_time()
    result = paired_bootstrap(
        lambda weights: mean_over_classes(ranking.average_precision(weights)),
        lambda weights: mean_over_classes(ranking.average_precision(weights)[:1]),
        1000,
    )
    assert time.process_time() - start < 20
    assert 0 < result.low < result.change < result.high
