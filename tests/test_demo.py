"""The demo: what it promises, kept (slow), and what it leaves behind, on a few iterations."""

import json

import cv2
import numpy as np
import pytest

from swin_dense.cli import demo as cli
from swin_dense.data.sample import SEMANTIC_CLASSES
from swin_dense.data.sample_objects import THING_CLASSES
from swin_dense.engine import demo as engine
from swin_dense.engine.config import load_config
from swin_dense.engine.demo import DETECTOR, SEGMENTER, DemoReport, DemoSettings, run_demo
from swin_dense.errors import UserError

GOOD = {"coco/bbox_mAP_50": 0.66, "coco/segm_mAP_50": 0.5, "mIoU": 0.8}
SPENT = {"scenes_held_out": 60.0, "seconds_total": 151.0}


@pytest.mark.slow
def test_the_demo_reaches_its_targets_from_random_weights(tmp_path, capfd):
    assert cli.main(["--work-dir", str(tmp_path / "demo")]) == 0
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert metrics["coco/bbox_mAP_50"] >= 0.50
    assert metrics["coco/segm_mAP_50"] >= 0.50
    assert metrics["mIoU"] >= 0.70
    assert "mmengine" not in capfd.readouterr().out


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("demo") / "work"
    settings = DemoSettings(num_train=8, num_val=3, max_iters=8, num_pictures=2)
    return run_demo(work_dir, seed=3, settings=settings)


def test_metrics_json_holds_the_scores_and_what_they_cost(tiny):
    metrics = json.loads((tiny.work_dir / "metrics.json").read_text())
    assert metrics == tiny.metrics
    for name in ("coco/bbox_mAP", "coco/bbox_mAP_50", "coco/segm_mAP", "coco/segm_mAP_50"):
        assert -1 <= metrics[name] <= 1
    for name in ("mIoU", "aAcc", "mAcc"):
        assert 0 <= metrics[name] <= 1
    assert (metrics["scenes_train"], metrics["scenes_held_out"]) == (8, 3)
    parts = metrics["seconds_data"] + metrics["seconds_learning"] + metrics["seconds_pictures"]
    assert metrics["seconds_total"] == pytest.approx(parts, abs=0.2)
    assert tiny.missed() == list(engine.TARGETS)  # eight iterations teach nothing


def test_pictures_show_each_scene_twice_and_the_sheet_all(tiny):
    names = sorted(path.name for path in (tiny.work_dir / "pictures").iterdir())
    assert names == [
        f"00000010000{index}_{kind}.png" for index in (1, 2) for kind in ("classes", "instances")
    ]
    sheet = cv2.imread(str(tiny.work_dir / "demo.png"))
    assert sheet.shape[0] > 2 * 320  # two scenes, one a row
    assert sheet.shape[1] > 5 * 320  # photo, and truth and prediction of both kinds
    assert np.ptp(cv2.imread(str(tiny.work_dir / "curves.png"))) > 100


def test_each_run_leaves_its_log_and_checkpoint_in_its_own_folder(tiny):
    for name in ("mask_rcnn", "upernet"):
        folder = tiny.work_dir / name
        assert (folder / "iter_8.pth").is_file()
        assert "Iter(train)" in (folder / "console.log").read_text()
        steps = [json.loads(line) for line in next(folder.glob("*/vis_data/scalars.json")).open()]
        assert any("loss" in step for step in steps)


def test_configs_and_sample_data_name_the_same_classes():
    detector, segmenter = load_config(DETECTOR), load_config(SEGMENTER)
    for cfg, classes in ((detector, THING_CLASSES), (segmenter, SEMANTIC_CLASSES)):
        for split in ("train", "val", "test"):
            metainfo = cfg[f"{split}_dataloader"].dataset.metainfo
            assert tuple(metainfo.classes) == classes
            assert len(metainfo.palette) == len(classes)
    assert detector.model.roi_head.bbox_head.num_classes == len(THING_CLASSES)
    assert detector.model.roi_head.mask_head.num_classes == len(THING_CLASSES)
    assert segmenter.model.decode_head.num_classes == len(SEMANTIC_CLASSES)


def test_configs_start_from_random_weights_and_train_on_training_scenes_only():
    for name in (DETECTOR, SEGMENTER):
        cfg = load_config(name)
        assert cfg.load_from is None
        assert cfg.model.backbone.init_cfg is None
        assert cfg.model.backbone.type == "swin_dense.SwinTransformer"
        assert "train" in json.dumps(cfg.train_dataloader.dataset.data_prefix)
        assert "val" not in json.dumps(cfg.train_dataloader.dataset.data_prefix)


def test_the_last_lines_say_the_figures_and_where_to_look(tmp_path):
    lines = DemoReport(tmp_path, GOOD | SPENT).lines()
    assert lines[0] == "On 60 held-out scenes, learned from random weights in 2:31:"
    assert lines[1].split() == ["box", "AP50", "0.660", "target", "0.50", "reached"]
    assert str(tmp_path / "demo.png") in lines[-1]


@pytest.mark.parametrize("bad", [0.49, float("nan"), -1.0])
def test_a_missed_target_is_named_and_gives_exit_code_1(bad, tmp_path, monkeypatch, capsys):
    report = DemoReport(tmp_path, GOOD | SPENT | {"coco/segm_mAP_50": bad})
    monkeypatch.setattr(engine, "run_demo", lambda *args, **kwargs: report)
    assert cli.main([]) == 1
    printed = capsys.readouterr()
    assert "MISSED" in printed.out
    assert "below target: mask AP50." in printed.err


def test_a_run_that_fails_is_named_with_its_error(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "SEGMENTER", "upernet/no_such_config.py")
    settings = DemoSettings(num_train=1, num_val=1, max_iters=1)
    with pytest.raises(UserError, match=r"no config at upernet/no_such_config\.py"):
        run_demo(tmp_path / "work", settings=settings)
    assert not (tmp_path / "work" / "metrics.json").exists()


def test_a_work_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot write to"):
        run_demo(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
