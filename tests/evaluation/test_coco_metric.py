"""Our COCO metric: its back ends agree to the last bit, and what is odd is answered or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from benchmarks.bench_evaluation import random_coco
from swin_dense.errors import UserError
from swin_dense.evaluation.coco_backends import BACKENDS, choose_backend
from swin_dense.evaluation.coco_metric import CocoMetric
from swin_dense.evaluation.coco_scores import read_annotations, score
from swin_dense.evaluation.predictions import DetectionPredictions
from swin_dense.host.rle_masks import RleMasks

INSTALLED = [name for name in BACKENDS if find_spec(name) is not None]
PUBLISHED = [0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595, 0.640, 0.566, 0.564]


def need(backend: str) -> None:
    if backend not in INSTALLED:
        pytest.skip(f"{backend} is not installed: pip install {backend}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_twelve_published_figures_are_reproduced(backend: str, shared_data: Path) -> None:
    need(backend)
    folder = shared_data / "coco_eval"
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    annotations = read_annotations(folder / "instances_val2014_100.json")
    scores = score(annotations, results, max_detections=(1, 10, 100), backend=backend)
    assert list(scores.stats().values()) == pytest.approx(PUBLISHED, abs=5.1e-4)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "pycocotools"])
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("limits", [(1, 10, 100), (100, 300, 1000)])
def test_a_back_end_agrees_with_pycocotools_to_the_last_bit(
    backend: str, iou_type: str, limits: tuple[int, ...]
) -> None:
    need(backend)
    annotations, results = random_coco(12, 100, masks=iou_type == "segm", num_classes=7, seed=3)
    for options in (
        dict(),
        dict(use_categories=False),
        dict(category_ids=[5, 1, 3], iou_thresholds=[0.5]),
    ):
        both = [
            score(
                annotations, results, iou_type=iou_type, max_detections=limits,
                backend=name, **options,
            )
            for name in ("pycocotools", backend)
        ]  # fmt: skip
        assert np.array_equal(both[0].precision, both[1].precision)
        assert np.array_equal(both[0].recall, both[1].recall)
        assert both[0].stats() == both[1].stats()
        assert 0 < both[0].stats()["mAP"] < 1


def test_our_summary_is_that_of_pycocotools() -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results = random_coco(10, 50, num_classes=5, seed=1)
    truth = COCO()
    truth.dataset = json.loads(json.dumps(annotations))
    truth.createIndex()
    reference = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), "bbox")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    own = score(annotations, results, max_detections=(1, 10, 100), backend="pycocotools")
    assert list(own.stats().values()) == reference.stats.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_no_predictions_at_all_are_an_ap_of_zero(backend: str, iou_type: str) -> None:
    need(backend)
    annotations, _ = random_coco(4, 1, masks=True, num_classes=3, seed=0)
    stats = score(annotations, [], iou_type=iou_type, backend=backend).stats()
    assert set(stats.values()) <= {0.0, -1.0}
    assert stats["mAP"] == 0.0
    assert stats["AR@100"] == 0.0


def test_an_unknown_or_missing_back_end_is_refused_by_name() -> None:
    assert choose_backend("auto") == INSTALLED[0]
    with pytest.raises(UserError, match=r"'pycocotool' \(did you mean 'pycocotools'\?\)"):
        choose_backend("pycocotool")


def annotation_file(folder: Path, **changes: Any) -> Path:
    content = dict(
        images=[dict(id=4, height=20, width=30, file_name="4.jpg"),
                dict(id=9, height=20, width=30, file_name="9.jpg")],
        categories=[dict(id=3, name="cat"), dict(id=1, name="dog")],
        annotations=[dict(id=1, image_id=4, category_id=1, bbox=[2, 3, 10, 8])],
    ) | changes  # fmt: skip
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def metric(folder: Path, **options: Any) -> CocoMetric:
    made = CocoMetric(str(annotation_file(folder)), **options)
    made.dataset_meta = dict(classes=("dog", "cat"))
    return made


def sample(image_id: int = 4, **changes: Any) -> Mapping[str, Any]:
    found = (
        dict(
            bboxes=torch.tensor([[2.0, 3.0, 12.0, 11.0]]),
            scores=torch.tensor([0.9]),
            labels=torch.tensor([0]),
        )
        | changes
    )
    return dict(img_id=image_id, ori_shape=(20, 30), img_path=f"/x/{image_id}.jpg",
                pred_instances=found)  # fmt: skip


def test_a_perfect_box_scores_one_and_is_on_the_disk(tmp_path: Path) -> None:
    own = metric(tmp_path, predictions_dir=str(tmp_path / "p"), run=dict(image_root="/x"))
    own.process({}, [sample(), sample(9, bboxes=torch.zeros(0, 4), scores=torch.zeros(0),
                                      labels=torch.zeros(0, dtype=torch.long))])  # fmt: skip
    figures = own.evaluate(2)
    assert figures["coco/bbox_mAP"] == pytest.approx(1.0)
    assert figures["coco/bbox_mAP_s"] == pytest.approx(1.0)
    assert figures["coco/bbox_mAP_l"] == -1
    stored = DetectionPredictions.load(tmp_path / "p")
    assert [image.file for image in stored.images] == ["4.jpg", "9.jpg"]
    assert [found["category_id"] for found in stored.results] == [1]


def test_the_same_metric_measures_the_next_epoch_afresh(tmp_path: Path) -> None:
    own = metric(tmp_path)
    own.process({}, [sample()])
    assert own.evaluate(1)["coco/bbox_mAP"] == pytest.approx(1.0)
    own.process({}, [sample(bboxes=torch.tensor([[20.0, 12.0, 29.0, 19.0]]))])
    assert own.evaluate(1)["coco/bbox_mAP"] == 0.0


def test_names_are_those_of_mmdet_with_recall_of_proposals_and_classes(tmp_path: Path) -> None:
    own = metric(tmp_path, metric=["bbox", "proposal"], classwise=True)
    own.process({}, [sample(labels=torch.tensor([1]))])
    figures = own.evaluate(1)
    # the class is wrong, which proposals do not mind
    assert figures["coco/bbox_mAP"] == 0.0
    assert figures["coco/AR@100"] == pytest.approx(1.0)
    assert figures["coco/dog_precision"] == 0.0
    assert np.isnan(figures["coco/cat_precision"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (sample(77), "image 77, which .*annotations.json does not list"),
        (sample(labels=torch.tensor([2])), "predicts class 2 .* has 2 classes"),
        (sample(masks=torch.zeros(1, 20, 31, dtype=torch.bool)), r"size \[20, 31\]; expected"),
    ],
)
def test_a_prediction_that_fits_nothing_is_refused_at_once(
    given: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        metric(tmp_path).process({}, [given])


def test_run_lengths_are_written_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = torch.zeros(1, 20, 30, dtype=torch.bool)
    masks[0, 3:11, 2:12] = True
    for name, given in (("pixels", masks), ("run lengths", RleMasks.encode(masks))):
        if name == "run lengths":
            monkeypatch.setattr(RleMasks, "decode", None)
            monkeypatch.setattr(RleMasks, "__getitem__", None)
        own = metric(tmp_path, metric="segm", format_only=True, predictions_dir=tmp_path / name)
        own.process({}, [sample(masks=given)])
        own.evaluate(1)
    stored = [DetectionPredictions.load(tmp_path / name) for name in ("pixels", "run lengths")]
    assert stored[0].results == stored[1].results
    assert coco_mask.area(stored[1].results[0]["segmentation"]) == 80


def test_scores_that_are_no_number_are_left_out_and_empty_boxes_stay(tmp_path: Path) -> None:
    own = metric(tmp_path, predictions_dir=str(tmp_path / "p"))
    boxes = torch.tensor([[2.0, 3.0, 12.0, 11.0], [2.0, 3.0, 12.0, 11.0], [5.0, 5.0, 5.0, 5.0]])
    scores = torch.tensor([float("nan"), 0.8, 0.7])
    own.process({}, [sample(bboxes=boxes, scores=scores, labels=torch.zeros(3, dtype=torch.long))])
    assert own.evaluate(1)["coco/bbox_mAP"] == pytest.approx(1.0)
    assert len(DetectionPredictions.load(tmp_path / "p").results) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(images=[]), "has no images"),
        (dict(annotations=[dict(id=1, image_id=4)]), "annotation 0 lacks one of"),
    ],
)
def test_an_annotation_file_that_cannot_be_measured_on_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        read_annotations(annotation_file(tmp_path, **changes))


def test_mask_figures_without_masks_are_refused(tmp_path: Path) -> None:
    own = metric(tmp_path, metric="segm")
    own.process({}, [sample()])
    with pytest.raises(UserError, match="has no segmentation"):
        own.evaluate(1)
