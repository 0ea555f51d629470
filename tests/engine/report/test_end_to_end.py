"""From a checkpoint to the report: tools/test.py on generated scenes, for both tasks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from swin_dense.cli.test import main
from swin_dense.data.sample import SampleData, generate_sample_data
from swin_dense.inference.predictor import Predictor
from tests import runs
from tests.small import save_checkpoint

CONFIGS = {
    "detection": "mask_rcnn/mask_rcnn_swin_mini_fpn_sample.py",
    "segmentation": "upernet/upernet_swin_mini_sample.py",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    return generate_sample_data(tmp_path_factory.mktemp("beach") / "data", num_train=1, num_val=3)


def options_for(task: str, data: SampleData) -> dict[str, Any]:
    root = data.coco_root if task == "detection" else data.ade_root
    options: dict[str, Any] = {"test_dataloader.dataset.data_root": f"{root}/"}
    if task == "detection":
        annotations = f"{root}/annotations/instances_val2017.json"
        options["test_evaluator.ann_file"] = annotations
        options["model.test_cfg.rcnn.score_thr"] = 0.01
    return options


@pytest.mark.parametrize("task", CONFIGS)
def test_an_evaluation_ends_with_a_report_of_the_same_figures(
    data: SampleData, tmp_path: Path, capfd: Any, task: str
) -> None:
    cfg = runs.load(CONFIGS[task], options_for(task, data), tmp_path / "run")
    checkpoint = save_checkpoint(Predictor(cfg, device="cpu"), tmp_path / "random.pth")
    flags = runs.as_flags(options_for(task, data))
    work_dir = tmp_path / "run"
    assert main([CONFIGS[task], str(checkpoint), "--work-dir", str(work_dir), *flags]) == 0
    assert f"report: {work_dir / 'report.html'}" in capfd.readouterr().out
    metrics = json.loads((work_dir / "metrics.json").read_text())
    page = (work_dir / "report.html").read_text()
    found = re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.S)
    assert found is not None
    report = json.loads(found.group(1))
    assert report["task"] == task
    tiles = {tile["label"]: tile["value"] for tile in report["summary"]}
    if task == "detection":
        assert tiles["Box AP"] == pytest.approx(100 * metrics["coco/bbox_mAP"], abs=1e-9)
        assert tiles["Mask AP50"] == pytest.approx(100 * metrics["coco/segm_mAP_50"], abs=1e-9)
    else:
        assert tiles["mIoU"] == pytest.approx(metrics["mIoU"], abs=1e-9)
        assert "calibration" in report["views"][0]
    names = [image["n"] for image in report["gallery"]["images"]]
    assert names == sorted(path.name for path in data.coco_root.glob("val2017/*.jpg"))
    assert (work_dir / "report_files" / "000002.jpg").is_file()
    assert "could not be read" not in page
