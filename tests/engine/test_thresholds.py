"""Thresholds in a checkpoint: chosen on saved predictions, kept, and honoured by the predictor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from swin_dense.checkpoints.publish import slim
from swin_dense.checkpoints.read import read_checkpoint
from swin_dense.engine.report.runs import read_run
from swin_dense.engine.thresholds import check_can_save, save_thresholds
from swin_dense.errors import UserError
from swin_dense.evaluation.analysis.detection import analyse_detection
from swin_dense.inference.predictor import Prediction, Predictor
from tests.engine.report.saved import sample, save_detection
from tests.small import save_checkpoint, small_detector


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("thresholds")
    return save_detection(sample(root / "data", 6), root / "run")


def test_the_checkpoint_keeps_them_and_all_else_stays_as_it_was(
    work_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "epoch_1.pth"
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(
        dict(
            state_dict={"weight": torch.arange(3.0)},
            optimizer=dict(state={0: dict(step=torch.tensor(7.0))}, param_groups=[dict(lr=0.1)]),
            message_hub=dict(log_scalars=dict(loss=history)),
            meta=dict(epoch=1, dataset_meta=dict(classes=("ball", "leaf"))),
        ),
        file,
    )
    found = save_thresholds(file, work_dir)
    analysis = analyse_detection(read_run(work_dir).table)
    assert analysis.threshold is not None
    assert found["overall"] == pytest.approx(analysis.threshold.score, abs=1e-6)
    for name, best in zip(analysis.table.class_names, analysis.class_thresholds, strict=True):
        assert best is not None
        assert found["per_class"][name] == pytest.approx(best.score, abs=1e-6)
    again = read_checkpoint(file)
    assert again["meta"].pop("score_thresholds") == found
    assert again["meta"] == dict(epoch=1, dataset_meta=dict(classes=("ball", "leaf")))
    assert again["state_dict"]["weight"].tolist() == [0, 1, 2]
    assert again["optimizer"]["state"][0]["step"] == 7
    assert again["message_hub"]["log_scalars"]["loss"].current() == 2.0
    assert list(tmp_path.iterdir()) == [file]


def test_the_predictor_and_a_published_checkpoint_have_them(tmp_path: Path) -> None:
    kept = dict(iou=0.5, overall=0.4, per_class=dict(person=0.25, car=0.75))
    plain = Predictor(small_detector(), device="cpu")
    assert plain.least_scores is None
    file = save_checkpoint(plain, tmp_path / "a.pth", score_thresholds=kept)
    predictor = Predictor(small_detector(), file, device="cpu")
    assert predictor.least_scores is not None
    by_name = dict(zip(predictor.class_names, predictor.least_scores.tolist(), strict=True))
    assert (by_name["person"], by_name["car"]) == (0.25, 0.75)
    assert by_name["bicycle"] == pytest.approx(0.4)
    found = predictor(np.full((96, 128, 3), 120, np.uint8))
    assert found.least_scores is predictor.least_scores
    content = torch.load(file, weights_only=True)
    slimmed = slim(content, config_text="model = dict()", classes=predictor.class_names)
    assert slimmed["meta"]["score_thresholds"] == kept


def test_a_detection_counts_by_its_class_threshold_unless_one_is_given() -> None:
    def prediction(least: list[float] | None) -> Prediction:
        return Prediction(
            (100, 100), ("cat", "dog"),
            boxes_xyxy=np.tile(np.float32([10, 10, 50, 50]), (4, 1)),
            scores=np.float32([0.8, 0.5, 0.5, 0.2]), labels=np.array([0, 0, 1, 1]),
            least_scores=None if least is None else np.float32(least),
        )  # fmt: skip

    assert prediction([0.6, 0.1]).confident().tolist() == [True, False, True, True]
    assert prediction([0.6, 0.1]).confident(0.5).tolist() == [True, True, True, False]
    assert prediction(None).confident().tolist() == [True, True, True, False]
    photo = np.full((100, 100, 3), 127, np.uint8)
    empty = prediction([0.9, 0.9]).draw(photo)
    assert (empty == 127).all()
    assert (prediction(None).draw(photo) != 127).any()


def test_what_cannot_work_is_refused_before_the_evaluation(work_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is for detectors"):
        check_can_save("a.pth", segments=True)
    with pytest.raises(UserError, match="is no local file"):
        check_can_save("https://example.org/a.pth", segments=False)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "bare.pth")
    with pytest.raises(UserError, match="holds bare weights"):
        save_thresholds(tmp_path / "bare.pth", work_dir)
