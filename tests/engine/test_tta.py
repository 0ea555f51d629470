"""``tools/test.py --tta`` from a command line to figures, and the pipelines that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swin_dense.cli.test import main as evaluate
from swin_dense.engine.config import load_config
from swin_dense.engine.tta import augment, view_pipeline
from swin_dense.errors import UserError
from swin_dense.evaluation.predictions import (
    DetectionPredictions,
    SegmentationPredictions,
    load_predictions,
)
from tests import runs
from tests.engine.test_evaluation import untrained


@pytest.mark.parametrize("host", ["mmdet", "mmseg"])
def test_an_evaluation_with_tta_leaves_figures_predictions_and_a_report(
    host: str, shared_data: Path, tmp_path: Path
) -> None:
    (config, *flags), checkpoint = untrained(host, shared_data, tmp_path)
    flags.append("test_dataloader.dataset.indices=3")
    if host == "mmseg":  # the config's own views, six scales, are many for a test
        flags.append("tta_pipeline=None")
    flags.append("tta_scales=[1.0,1.5]")
    found = []
    for extra in ([], ["--tta"]):
        folder = tmp_path / f"run{len(extra)}"
        assert evaluate([config, str(checkpoint), "--work-dir", str(folder), *extra, *flags]) == 0
        figures = json.loads((folder / "metrics.json").read_text())
        wanted = {"mmdet": {"coco/bbox_mAP", "coco/segm_mAP"}, "mmseg": {"mIoU", "aAcc"}}
        assert wanted[host] <= set(figures)
        assert (folder / "report.html").is_file()
        found.append(load_predictions(folder / "predictions"))
    plain, views = found
    assert [image.file for image in plain.images] == [image.file for image in views.images]
    if host == "mmdet":
        assert isinstance(views, DetectionPredictions)
        assert views.with_masks
    else:
        assert isinstance(plain, SegmentationPredictions)
        assert isinstance(views, SegmentationPredictions)
        assert views.calibration is not None


def test_the_views_are_every_scale_plain_and_mirrored_with_annotations_behind_the_flip() -> None:
    cfg = load_config(runs.MASK_RCNN)
    cfg.tta_scales = [0.5, 1.0]
    augment(cfg, segments=False)
    load, views = cfg.test_dataloader.dataset.pipeline
    assert load["type"] == "LoadImageFromFile"
    sizes, flips, notes, packs = views["transforms"]
    assert [size["scale"] for size in sizes] == [(666, 400), (1333, 800)]
    assert [flip["prob"] for flip in flips] == [0.0, 1.0]
    assert notes[0]["type"] == "LoadAnnotations"
    assert packs[0]["meta_keys"][-2:] == ("flip", "flip_direction")
    assert cfg.model.type == "swin_dense.DetectorTTA"
    assert cfg.model.module.type == "MaskRCNN"


def test_a_pipeline_in_the_config_is_taken_and_the_hosts_merger_is_replaced() -> None:
    cfg = load_config(runs.UPERNET)
    own = cfg.tta_pipeline
    augment(cfg, segments=True)
    assert cfg.test_dataloader.dataset.pipeline == own
    assert cfg.model.type == "swin_dense.SegmentorTTA"
    cfg = load_config(runs.UPERNET, {"tta_model": dict(type="my.TTA")})
    augment(cfg, segments=True)
    assert cfg.model.type == "my.TTA"


@pytest.mark.parametrize(
    ("steps", "scales", "message"),
    [
        (["Resize", "PackSegInputs"], [], "expected positive factors"),
        (["Resize", "PackSegInputs"], [0], "expected positive factors"),
        (["PackSegInputs"], [2.0], "no Resize to scale"),
        (["Resize"], [1.0], "does not end with Pack"),
    ],
)
def test_views_that_cannot_be_made_are_refused(
    steps: list[str], scales: list[Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        view_pipeline([dict(type=s) for s in steps], scales=scales, flip=True, segments=True)
