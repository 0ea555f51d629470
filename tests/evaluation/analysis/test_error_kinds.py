"""Error kinds and their cost, on pictures worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from swin_dense.evaluation.analysis.error_kinds import (
    COSTS,
    KINDS,
    ErrorKinds,
    average_precision_without,
    error_costs,
    error_counts,
    error_kinds,
)
from swin_dense.evaluation.analysis.matching import match
from swin_dense.evaluation.analysis.ranking import Ranking, mean_over_classes
from swin_dense.evaluation.analysis.table import DetectionTable, from_coco
from tests.evaluation.analysis.perturbed import perturb, table_of

CAT, DOG = 0, 1
BOX = [0, 0, 100, 100]
FAR = [500, 500, 600, 600]


def kinds_of(table: DetectionTable) -> ErrorKinds:
    return error_kinds(table, table.box_overlaps, match(table, table.box_overlaps))


def names_of(table: DetectionTable) -> list[str]:
    return [KINDS[index] for index in kinds_of(table).kind]


@pytest.mark.parametrize(
    ("label", "box", "expected"),
    [
        (CAT, [0, 0, 100, 100], "correct"),
        (CAT, [0, 0, 100, 50], "correct"),  # IoU of exactly 0.5
        (CAT, [0, 0, 100, 49], "localisation"),
        (CAT, [0, 0, 100, 10], "localisation"),  # IoU of exactly 0.1
        (CAT, [0, 0, 100, 9], "background"),
        (DOG, [0, 0, 100, 80], "classification"),
        (DOG, [0, 0, 100, 40], "both"),
        (DOG, [0, 0, 100, 9], "background"),
        (CAT, [700, 0, 800, 100], "background"),
    ],
)
def test_one_detection_beside_one_cat_is_of_this_kind(
    label: int, box: list[int], expected: str
) -> None:
    assert names_of(table_of([(0, CAT, BOX)], [(0, label, box, 0.9)])) == [expected]


def test_the_second_detection_of_an_object_is_a_duplicate() -> None:
    table = table_of([(0, CAT, BOX)], [(0, CAT, BOX, 0.6), (0, CAT, [0, 0, 100, 90], 0.9)])
    assert table.found.score.tolist() == [0.9, 0.6]
    assert names_of(table) == ["correct", "duplicate"]


def test_a_detection_in_a_picture_without_annotations_is_background() -> None:
    assert names_of(table_of([], [(0, CAT, BOX, 0.9)])) == ["background"]


def test_what_a_misplaced_detection_could_have_found_is_not_missed() -> None:
    table = table_of(
        [(0, CAT, BOX), (0, DOG, FAR), (0, CAT, [0, 800, 100, 900])],
        [(0, CAT, [0, 0, 100, 40], 0.9), (0, CAT, FAR, 0.8)],
    )
    kinds = kinds_of(table)
    assert [KINDS[index] for index in kinds.kind] == ["localisation", "classification"]
    assert kinds.target.tolist() == [0, 1]
    assert kinds.unfound.tolist() == [True, True, True]
    assert kinds.missed.tolist() == [False, False, True]


def test_each_cost_is_the_one_worked_by_hand() -> None:
    # Two cats and a dog. Cats: one found (0.9), one misplaced (0.8), background (0.95).
    # Dogs: the only detection of the dog says cat (0.5).
    table = table_of(
        [(0, CAT, BOX), (0, CAT, [300, 0, 400, 100]), (0, DOG, FAR)],
        [
            (0, CAT, [0, 800, 50, 850], 0.95),
            (0, CAT, BOX, 0.9),
            (0, CAT, [300, 0, 400, 40], 0.8),
            (0, CAT, FAR, 0.5),
        ],
    )
    kinds = kinds_of(table)
    costs = error_costs(table, kinds)
    # cats as they are: right at rank 2 of 2 objects: precision 1/2 at recalls 0 to .50; dogs: 0
    before = (51 * 0.5 / 101 + 0) / 2
    assert average_precision_without(table, kinds, "") == pytest.approx(before)
    # without the background detection cats have precision 1 at recalls 0 to .50
    assert costs["background"] == pytest.approx(51 / 101 / 2 - before)
    # the misplaced cat right: hits at ranks 2 and 3, best precision 2/3 at every recall
    assert costs["localisation"] == pytest.approx(2 / 3 / 2 - before)
    # the misnamed dog right: dogs have AP 1; cats lose a wrong detection after their last hit
    assert costs["classification"] == pytest.approx((51 * 0.5 / 101 + 1) / 2 - before)
    assert costs["both"] == costs["duplicate"] == costs["missed"] == 0
    # all wrong detections behind: cats 51 recalls at precision 1
    assert costs["false positives"] == pytest.approx(51 / 101 / 2 - before)
    # asking only for the cat that was found: precision 1/2 everywhere; no dogs to find any more
    assert costs["false negatives"] == pytest.approx(0.5 - before)


def test_a_missed_object_costs_what_asking_for_one_less_would_gain() -> None:
    table = table_of([(0, CAT, BOX), (0, CAT, FAR)], [(0, CAT, BOX, 0.9)])
    costs = error_costs(table, kinds_of(table))
    assert costs["missed"] == pytest.approx(1 - 51 / 101)
    assert sum(costs[name] for name in COSTS) == costs["missed"]


def test_of_two_misplaced_detections_of_one_object_the_better_scored_is_put_right() -> None:
    low, high = (0, CAT, [0, 0, 100, 45], 0.3), (0, CAT, [0, 0, 100, 20], 0.9)
    table = table_of([(0, CAT, BOX)], [low, high])
    assert error_costs(table, kinds_of(table))["localisation"] == pytest.approx(1.0)


def test_a_misplaced_detection_of_an_object_that_is_found_goes_away() -> None:
    table = table_of([(0, CAT, BOX)], [(0, CAT, [0, 0, 100, 40], 0.9), (0, CAT, BOX, 0.5)])
    # before: the hit at rank 2, precision 1/2; after: at rank 1
    assert error_costs(table, kinds_of(table))["localisation"] == pytest.approx(0.5)


def test_detections_inside_a_crowd_are_no_errors() -> None:
    table = table_of(
        [(0, CAT, BOX), (0, CAT, [400, 400, 900, 900])],
        [(0, CAT, BOX, 0.9), (0, CAT, FAR, 0.95)],
        crowd=[1],
    )
    assert kinds_of(table).kind.tolist() == [-1, 0]
    assert all(cost == 0 for cost in error_costs(table, kinds_of(table)).values())


def test_on_real_annotations_every_error_has_one_kind_and_fixing_all_gives_ap_one(
    shared_data: Path,
) -> None:
    content = json.loads((shared_data / "coco_mini/annotations/instances_val2017.json").read_text())
    table = from_coco(content, perturb(content))
    matches = match(table, table.box_overlaps)
    kinds = error_kinds(table, table.box_overlaps, matches)
    ap50 = mean_over_classes(Ranking.of(table, matches).average_precision()[0])
    assert average_precision_without(table, kinds, "") == pytest.approx(ap50, abs=1e-12)
    counts = np.bincount(kinds.kind + 1, minlength=7)
    assert counts.sum() == len(table.found)
    assert (counts[1:] > 0).all()  # the perturbation makes some of every kind
    assert (kinds.missed <= kinds.unfound).all()
    costs = error_costs(table, kinds)
    assert all(0 <= cost <= 1 - ap50 for cost in costs.values())
    # the oracle of all false positives, then of all false negatives, leaves nothing to gain
    table_right = table.found.score[kinds.kind == 0]
    right = Ranking(
        len(table.class_names),
        label=table.found.label[kinds.kind == 0],
        score=table_right,
        image=table.found.image[kinds.kind == 0],
        correct=np.ones((1, len(table_right)), bool),
        passed_over=np.zeros((1, len(table_right)), bool),
        truth_label=table.truth.label[~kinds.unfound & ~table.truth.crowd],
        truth_image=table.truth.image[~kinds.unfound & ~table.truth.crowd],
    )
    assert mean_over_classes(right.average_precision()) == pytest.approx(1.0)


# What the authors' program (tidecv 1.0.1, mode box) says of the same detections; annotations of
# crowds and detections of classes without annotations were left out for both. Costs in percent.
# Where a recall falls on one of the 101 by a hair, the two round differently: 0.02 at most.
AUTHORS = {
    "coco_eval": (
        {"classification": 74, "localisation": 1, "both": 0, "duplicate": 1, "background": 0,
         "missed": 106},
        {"classification": 15.56878, "localisation": 0.247425, "both": 0, "duplicate": 0.020599,
         "background": 0, "missed": 10.558772, "false positives": 7.406295,
         "false negatives": 19.302561},
    ),
    "coco_mini": (
        {"classification": 63, "localisation": 142, "both": 39, "duplicate": 35, "background": 94,
         "missed": 135},
        {"classification": 8.799069, "localisation": 19.973174, "both": 2.872248,
         "duplicate": 0.601112, "background": 2.520986, "missed": 5.496722,
         "false positives": 17.579017, "false negatives": 19.605554},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AUTHORS)
def test_counts_and_costs_are_those_of_the_authors_program(shared_data: Path, name: str) -> None:
    if name == "coco_eval":
        folder = shared_data / "coco_eval"
        content = json.loads((folder / "instances_val2014_100.json").read_text())
        results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    else:
        path = shared_data / "coco_mini/annotations/instances_val2017.json"
        content = json.loads(path.read_text())
        results = perturb(content)
    content["annotations"] = [one for one in content["annotations"] if not one["iscrowd"]]
    annotated = {one["category_id"] for one in content["annotations"]}
    content["categories"] = [one for one in content["categories"] if one["id"] in annotated]
    table = from_coco(content, [one for one in results if one["category_id"] in annotated])
    kinds = kinds_of(table)
    counts, costs = AUTHORS[name]
    assert error_counts(kinds) == counts
    ours = {kind: 100 * cost for kind, cost in error_costs(table, kinds).items()}
    assert ours == pytest.approx(costs, abs=0.02)
