"""Matching and average precision against pycocotools, and by hand."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from swin_dense.errors import UserError
from swin_dense.evaluation.analysis.matching import match
from swin_dense.evaluation.analysis.ranking import Ranking, mean_over_classes
from swin_dense.evaluation.analysis.table import from_coco
from tests.evaluation.analysis.perturbed import perturb, table_of


@pytest.mark.parametrize("name", ["coco_mini", "coco_eval"])
def test_ap_of_every_class_and_threshold_is_that_of_the_coco_api(
    shared_data: Path, name: str
) -> None:
    if name == "coco_mini":
        path = shared_data / "coco_mini/annotations/instances_val2017.json"
        content = json.loads(path.read_text())
        results = perturb(content)
    else:
        path = shared_data / "coco_eval/instances_val2014_100.json"
        content = json.loads(path.read_text())
        results = json.loads(
            (path.parent / "instances_val2014_fakebbox100_results.json").read_text()
        )
    table = from_coco(content, results)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        judge = COCOeval(truth, truth.loadRes([dict(entry) for entry in results]), "bbox")
        judge.evaluate()
        judge.accumulate()
    expected = judge.eval["precision"][:, :, :, 0, 2].mean(axis=1)  # (T, R, K) -> (T, K)
    order = np.argsort([entry["id"] for entry in content["categories"]])
    ours = Ranking.of(table, match(table, table.box_overlaps)).average_precision()[:, order]
    expected[expected < 0] = np.nan
    np.testing.assert_allclose(ours, expected, atol=1e-12)
    assert 0.2 < mean_over_classes(ours) < 0.8


def test_mask_ap_is_that_of_the_coco_api(shared_data: Path) -> None:
    path = shared_data / "coco_mini/annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
    rng = np.random.default_rng(1)
    results = []
    for entry in content["annotations"]:
        mask = np.roll(truth.annToMask(entry), int(rng.integers(0, 12)), axis=1)
        from pycocotools.mask import encode

        runs = encode(np.asfortranarray(mask))
        results.append(
            dict(image_id=entry["image_id"], category_id=entry["category_id"],
                 bbox=entry["bbox"], score=float(rng.random()), segmentation=runs)
        )  # fmt: skip
    table = from_coco(content, results)
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(truth, truth.loadRes([dict(entry) for entry in results]), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    ours = Ranking.of(table, match(table, table.mask_overlaps)).average_precision()
    assert mean_over_classes(ours) == pytest.approx(judge.stats[0], abs=1e-12)
    assert mean_over_classes(ours[0]) == pytest.approx(judge.stats[1], abs=1e-12)


def test_the_curve_of_three_detections_is_the_one_worked_by_hand() -> None:
    # two cats; the best detection is right, the next wrong, the last right
    table = table_of(
        [(0, 0, [0, 0, 10, 10]), (0, 0, [100, 0, 110, 10])],
        [
            (0, 0, [0, 0, 10, 10], 0.9),
            (0, 0, [300, 0, 310, 10], 0.8),
            (0, 0, [100, 0, 110, 10], 0.7),
        ],
    )
    ranking = Ranking.of(table, match(table, table.box_overlaps, (0.5,)))
    curve = ranking.curve(0, 0)
    assert curve.score.tolist() == [0.9, 0.8, 0.7]
    assert curve.precision.tolist() == [1.0, 0.5, pytest.approx(2 / 3)]
    assert curve.recall.tolist() == [0.5, 0.5, 1.0]
    # precision 1 at the recalls 0, .01, ..., .50, and 2/3 at the other 50
    ap = (51 + 50 * 2 / 3) / 101
    assert ranking.average_precision()[0, 0] == pytest.approx(ap)
    assert np.isnan(ranking.average_precision()[0, 1])  # there is no dog to find
    assert curve.at_recalls().mean() == pytest.approx(ap)


def test_a_detection_inside_a_crowd_counts_neither_way() -> None:
    table = table_of(
        [(0, 0, [0, 0, 10, 10]), (0, 0, [100, 0, 400, 300])],
        [(0, 0, [0, 0, 10, 10], 0.5), (0, 0, [150, 50, 170, 70], 0.9)],
        crowd=[1],
    )
    matches = match(table, table.box_overlaps, (0.5,))
    assert matches.passed_over.tolist() == [[True, False]]
    assert Ranking.of(table, matches).average_precision()[0, 0] == pytest.approx(1.0)


def test_an_image_of_weight_two_counts_as_if_it_were_there_twice() -> None:
    rng = np.random.default_rng(3)
    truth, found = [], []
    for image in range(6):
        for _ in range(4):
            x, y = rng.integers(0, 900, 2)
            label = int(rng.integers(2))
            truth.append((image, label, [x, y, x + 50, y + 50]))
            shift = rng.integers(0, 30)
            found.append((image, label, [x + shift, y, x + 50 + shift, y + 50], rng.random()))
    table = table_of(truth, found, images=6)
    weights = np.array([2.0, 0.0, 1.0, 3.0, 0.0, 1.0])
    ours = Ranking.of(table, match(table, table.box_overlaps)).average_precision(weights)
    drawn = [index for index, count in enumerate(weights) for _ in range(int(count))]
    again = table_of(
        [(new, *entry[1:]) for new, old in enumerate(drawn) for entry in truth if entry[0] == old],
        [(new, *entry[1:]) for new, old in enumerate(drawn) for entry in found if entry[0] == old],
        images=len(drawn),
    )
    expected = Ranking.of(again, match(again, again.box_overlaps)).average_precision()
    np.testing.assert_allclose(ours, expected, atol=1e-12)


@pytest.mark.parametrize("found", [[], [(0, 0, [0, 0, 5, 5], 0.5)]])
def test_images_without_annotations_or_detections_are_no_trouble(found: list) -> None:
    table = table_of([], found)
    ap = Ranking.of(table, match(table, table.box_overlaps)).average_precision()
    assert np.isnan(ap).all()
    table = table_of([(0, 0, [0, 0, 5, 5])], [])
    ap = Ranking.of(table, match(table, table.box_overlaps)).average_precision()
    assert ap[:, 0].tolist() == [0.0] * 10


def test_a_class_that_the_annotations_lack_is_named() -> None:
    content = dict(images=[], annotations=[], categories=[dict(id=1, name="cat")])
    with pytest.raises(UserError, match="the classes dog, which the annotations lack"):
        from_coco(content, [], classes=("cat", "dog"))
