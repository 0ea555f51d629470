"""What an evaluation leaves behind once its figures are known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from swin_dense.cli.test import build_parser
from swin_dense.engine.test import TestOptions, _leave
from swin_dense.errors import UserError
from tests.engine.report.saved import sample, save_detection


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    return save_detection(sample(tmp_path / "data", 3), tmp_path / "run")


def tile(work_dir: Path) -> dict[str, Any]:
    page = (work_dir / "report.html").read_text()
    found = re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found.group(1))["summary"][0]


def test_the_second_report_compares_with_the_first(work_dir: Path) -> None:
    folder = work_dir / "predictions"
    _leave(work_dir, {"coco/bbox_mAP": 0.25}, "a.pth", TestOptions(), folder)
    assert tile(work_dir)["previous"] is None
    _leave(work_dir, {"coco/bbox_mAP": 0.5}, "a.pth", TestOptions(), folder)
    assert (tile(work_dir)["previous"], tile(work_dir)["value"]) == (25, 50)
    assert json.loads((work_dir / "metrics.json").read_text()) == {"coco/bbox_mAP": 0.5}


def test_without_predictions_the_figures_are_kept_and_the_reason_is_told(
    tmp_path: Path, capsys: Any
) -> None:
    _leave(tmp_path, {"mIoU": 40.0}, "a.pth", TestOptions(), None)
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"mIoU": 40.0}
    assert (
        "note: no report was written: the config's metric keeps no predictions"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "report_files").exists()


def test_flags_skip_the_report_and_keep_thresholds(work_dir: Path, tmp_path: Path) -> None:
    args = build_parser().parse_args(["c.py", "a.pth", "--no-report", "--save-thresholds"])
    assert (args.no_report, args.save_thresholds) == (True, True)
    torch.save(dict(state_dict={}, meta={}), tmp_path / "a.pth")
    options = TestOptions(report=False, save_thresholds=True)
    _leave(work_dir, {}, tmp_path / "a.pth", options, work_dir / "predictions")
    assert not (work_dir / "report.html").exists()
    kept = torch.load(tmp_path / "a.pth", weights_only=True)["meta"]["score_thresholds"]
    assert 0 < kept["overall"] < 1
    assert len(kept["per_class"]) == 5
    with pytest.raises(UserError, match="--save-thresholds: the config's metric keeps no"):
        _leave(work_dir, {}, tmp_path / "a.pth", options, None)
