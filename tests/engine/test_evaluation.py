"""The hosts' own configs measure with our metrics, and predictions on the disk measure again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from swin_dense.cli.test import main as evaluate
from swin_dense.engine.config import load_config
from swin_dense.engine.evaluation import use_own_metrics
from swin_dense.engine.session import build_runner
from swin_dense.errors import UserError
from swin_dense.evaluation.predictions import (
    DetectionPredictions,
    SegmentationPredictions,
    load_predictions,
)
from tests import runs


def untrained(host: str, shared_data: Path, folder: Path) -> tuple[list[str], Path]:
    """Flags of a small config, and a checkpoint of it with random weights."""
    if host == "mmdet":
        options = runs.coco_options(shared_data / "coco_mini", short_side=96)
        options.pop("train_dataloader.dataset.pipeline")
        config = runs.MASK_RCNN
    else:
        options = runs.semantic_options(shared_data / "ade_mini", crop=64)
        config = runs.UPERNET
    options |= runs.small_swin(host)
    cfg = runs.load(config, options, folder / "made")
    runner: Runner = build_runner(cfg, splits=())
    runner.model.init_weights()
    checkpoint = folder / "random.pth"
    torch.save(dict(state_dict=runner.model.state_dict(), meta={}), checkpoint)
    flags = runs.as_flags({key: str(value).replace(" ", "") for key, value in options.items()})
    return [config, *flags], checkpoint


@pytest.mark.parametrize("host", ["mmdet", "mmseg"])
def test_predictions_on_the_disk_give_the_same_figures_again(
    host: str, shared_data: Path, tmp_path: Path
) -> None:
    (config, *flags), checkpoint = untrained(host, shared_data, tmp_path)
    first, again = tmp_path / "first", tmp_path / "again"
    assert evaluate([config, str(checkpoint), "--work-dir", str(first), *flags]) == 0
    stored = load_predictions(first / "predictions")
    assert stored.run.checkpoint == str(checkpoint)
    photographs = [Path(stored.run.image_root) / image.file for image in stored.images]
    assert photographs
    assert all(path.is_file() for path in photographs)
    if host == "mmdet":
        assert isinstance(stored, DetectionPredictions)
        assert stored.with_masks
        assert len(stored.run.classes) == 80
    else:
        assert isinstance(stored, SegmentationPredictions)
        assert stored.reduce_zero_label
        assert stored.calibration is not None
        truth = stored.ground_truth(stored.images[0])
        assert truth is not None
        assert truth.shape == (stored.images[0].height, stored.images[0].width)
    checkpoint.unlink()
    folder = str(first / "predictions")
    arguments = [config, "--from-predictions", folder, "--work-dir", str(again), *flags]
    assert evaluate(arguments) == 0
    figures = [json.loads((path / "metrics.json").read_text()) for path in (first, again)]
    assert figures[0] == pytest.approx(figures[1], nan_ok=True)
    wanted = {"mmdet": {"coco/bbox_mAP", "coco/segm_mAP_50"}, "mmseg": {"mIoU", "mAcc", "aAcc"}}
    assert wanted[host] <= set(figures[0])


@pytest.mark.parametrize(
    ("name", "own"),
    [(runs.MMDET_SWIN, "swin_dense.CocoMetric"), (runs.MMSEG_SWIN, "swin_dense.IoUMetric")],
)
def test_the_hosts_own_configs_get_our_metrics_and_the_log_says_so(name: str, own: str) -> None:
    cfg = load_config(name)
    cfg.work_dir = "work"
    notes = use_own_metrics(cfg, "test", predictions=True)
    assert cfg.test_evaluator.type == own
    assert cfg.test_evaluator.predictions_dir == "work/predictions"
    assert cfg.val_evaluator.type == own.removeprefix("swin_dense.")
    assert len(notes) == 1
    assert own in notes[0]


def test_a_metric_of_another_kind_stays_as_it_is() -> None:
    cfg = load_config(runs.MMDET_SWIN)
    cfg.test_evaluator = [dict(type="DumpDetResults", out_file_path="x.pkl")]
    assert use_own_metrics(cfg, "test") == []
    assert cfg.test_evaluator == [dict(type="DumpDetResults", out_file_path="x.pkl")]


def test_a_test_without_checkpoint_or_predictions_says_what_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate([runs.MASK_RCNN, "--work-dir", str(tmp_path)]) == 1
    assert "--from-predictions" in capsys.readouterr().err
    arguments = [runs.MASK_RCNN, "--from-predictions", str(tmp_path), "--tta"]
    assert evaluate([*arguments, "--work-dir", str(tmp_path)]) == 1
    assert "--tta needs a model" in capsys.readouterr().err
    with pytest.raises(UserError, match="no predictions at"):
        load_predictions(tmp_path)
