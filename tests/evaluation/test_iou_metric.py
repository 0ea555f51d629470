"""Our segmentation figures: those of mmseg on any maps, and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from swin_dense.errors import UserError
from swin_dense.evaluation.confusion import BoundaryConfusion, Confusion
from swin_dense.evaluation.iou_metric import IoUMetric
from swin_dense.evaluation.predictions import SegmentationPredictions
from swin_dense.host.repairs import repair_hosts

EVERY = ["mIoU", "mDice", "mFscore"]


def mmseg_figures(pairs: list[tuple[Any, Any]], classes: int) -> dict[str, float]:
    """What mmseg itself finds, rounded to two digits as it does."""
    repair_hosts()
    from mmseg.evaluation import IoUMetric as Reference

    metric = Reference(iou_metrics=EVERY)
    metric.dataset_meta = dict(classes=[str(i) for i in range(classes)])
    for predicted, true in pairs:
        metric.process({}, [wrap(predicted, true)])
    return metric.evaluate(len(pairs))


def wrap(predicted: Any, true: Any, **more: Any) -> dict[str, Any]:
    return dict(
        pred_sem_seg=dict(data=torch.as_tensor(predicted.astype(np.int64))[None]),
        gt_sem_seg=dict(data=torch.as_tensor(true.astype(np.int64))[None]),
        img_path="/x/a.jpg",
        **more,
    )


def own_figures(pairs: list[tuple[Any, Any]], classes: int, **options: Any) -> dict[str, float]:
    metric = IoUMetric(iou_metrics=EVERY, **options)
    metric.dataset_meta = dict(classes=[str(i) for i in range(classes)])
    for predicted, true in pairs:
        metric.process({}, [wrap(predicted, true)])
    return metric.evaluate(len(pairs))


@pytest.mark.parametrize("classes", [2, 7, 150])
def test_random_maps_give_the_figures_of_mmseg_with_ignored_and_absent_classes(
    classes: int,
) -> None:
    generator = np.random.default_rng(classes)
    pairs = []
    for _ in range(3):
        true = generator.integers(0, max(1, classes - 1), (37, 53))  # the last is nowhere true
        predicted = np.where(generator.random(true.shape) < 0.6, true,
                             generator.integers(0, max(1, classes - 1), true.shape))  # fmt: skip
        true[generator.random(true.shape) < 0.1] = 255
        pairs.append((predicted, true))
    expected, found = mmseg_figures(pairs, classes), own_figures(pairs, classes)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=5.1e-3, nan_ok=True), name


def test_real_label_maps_give_the_figures_of_mmseg(shared_data: Path) -> None:
    files = sorted((shared_data / "ade_mini" / "annotations" / "validation").glob("*.png"))
    pairs = []
    for file in files:
        true = np.asarray(Image.open(file)).astype(np.int64) - 1
        true[true < 0] = 255
        pairs.append((np.roll(np.where(true == 255, 0, true), 9, axis=1), true))
    expected, found = mmseg_figures(pairs, 150), own_figures(pairs, 150)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=5.1e-3), name


def test_figures_worked_by_hand() -> None:
    true = np.array([[0, 0, 1, 1], [0, 255, 1, 2]])
    predicted = np.array([[0, 1, 1, 1], [0, 0, 2, 2]])
    confusion = Confusion(4)
    confusion.update(predicted, true)
    figures = confusion.per_class()
    assert figures["IoU"] == pytest.approx([2 / 3, 2 / 4, 1 / 2, np.nan], nan_ok=True)
    assert figures["Acc"] == pytest.approx([2 / 3, 2 / 3, 1, np.nan], nan_ok=True)
    assert figures["Precision"] == pytest.approx([1, 2 / 3, 1 / 2, np.nan], nan_ok=True)
    assert figures["Dice"] == pytest.approx([4 / 5, 4 / 6, 2 / 3, np.nan], nan_ok=True)
    assert confusion.accuracy() == pytest.approx(5 / 7)


def test_boundary_iou_sees_a_moved_outline_that_iou_hardly_does() -> None:
    true, moved = np.zeros((100, 100), int), np.zeros((100, 100), int)
    true[20:80, 20:80] = 1
    moved[22:82, 20:80] = 1
    boundary = BoundaryConfusion(2, distance_share=0.03)  # 4 pixels
    boundary.update(moved, true)
    # rims of 60 x 60 squares, 4 wide: 3600 - 52 * 52 = 896 pixels each. Shared: the sides (2 x 4
    # columns over 58 rows) and of the middle 52 columns 2 rows above and 2 below
    shared = 2 * 4 * 58 + 52 * (2 + 2)
    assert boundary.iou()[1] == pytest.approx(shared / (2 * 896 - shared))
    same = BoundaryConfusion(2)
    same.update(true, true)
    assert same.iou().tolist() == [1.0, 1.0]


def test_maps_of_different_size_are_refused_with_the_file() -> None:
    with pytest.raises(UserError, match=r"/x/a.jpg has shape \(4, 5\) and its truth \(4, 6\)"):
        own_figures([(np.zeros((4, 5)), np.zeros((4, 6)))], 2)


def test_a_data_set_without_any_labelled_pixel_is_an_answer() -> None:
    figures = own_figures([(np.zeros((4, 5)), np.full((4, 5), 255))], 2)
    assert np.isnan(figures["mIoU"])
    assert np.isnan(figures["aAcc"])


def test_label_maps_and_confidences_lie_on_the_disk(tmp_path: Path) -> None:
    metric = IoUMetric(predictions_dir=str(tmp_path), run=dict(image_root="/x"))
    metric.dataset_meta = dict(classes=("a", "b"), reduce_zero_label=False)
    true = np.array([[0, 1, 255]])
    logits = torch.tensor([[[2.0, 0.0, 0.0]], [[0.0, 0.0, 5.0]]])  # (2, 1, 3)
    metric.process({}, [wrap(np.array([[0, 0, 1]]), true, seg_logits=dict(data=logits))])
    figures = metric.evaluate(1)
    assert figures["aAcc"] == pytest.approx(50.0)
    stored = SegmentationPredictions.load(tmp_path)
    assert stored.prediction(stored.images[0]).tolist() == [[0, 0, 1]]
    assert stored.images[0].file == "a.jpg"
    assert stored.calibration is not None
    # probabilities 1 / (1 + exp(-2)) = 0.88 (right) and 0.5 (wrong); the ignored pixel is out
    assert {
        int(i): (int(stored.calibration.n[i]), int(stored.calibration.correct[i]))
        for i in np.flatnonzero(stored.calibration.n)
    } == {88: (1, 1), 50: (1, 0)}
