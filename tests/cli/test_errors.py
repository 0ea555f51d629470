"""A user's mistake gives one clear message, exit code 1, no traceback, nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from swin_dense.cli import print_config
from swin_dense.cli import test as test_cli
from swin_dense.cli import train as train_cli
from swin_dense.cli.__main__ import main as swin_dense
from tests import runs

ROOT = Path(__file__).resolve().parents[2]


def message(capsys: pytest.CaptureFixture[str]) -> str:
    """The error that was printed; there is no traceback beside it."""
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert printed.count("error: ") == 1
    return printed[printed.index("error: ") :]


def flags(options: dict[str, Any]) -> list[str]:
    return runs.as_flags({key: str(value).replace(" ", "") for key, value in options.items()})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mask_rcnn_swin_t_p4_w7_fpn_1x_cocoo.py"], ["no config", "did you mean", "1x_coco.py"]),
        (["mmdet::swin/none.py"], ["no config", "mmdet::swin/none.py"]),
        ([runs.MASK_RCNN, "--wrok-dir", "x"], ["--wrok-dir", "did you mean '--work-dir'"]),
        ([runs.MASK_RCNN, "--launcher", "slrum"], ["slrum", "slurm"]),
        ([], ["config"]),
        (
            [runs.MASK_RCNN],
            ["data_root data/coco/ is not a folder", "train_dataloader", "val_data"],
        ),
        ([runs.UPERNET], ["data_root data/ade/ADEChallengeData2016 is not a folder"]),
        ([runs.MASK_RCNN, "--cfg-options", "train_cgf.max_epochs=1"], ["train_cgf", "'train_cfg'"]),
        ([runs.MASK_RCNN, "--cfg-options", "work_dri=1"], ["work_dri", "'work_dir'"]),
        ([runs.MASK_RCNN, "--cfg-options", "nonsense"], ["nonsense", "key=value"]),
        (
            [runs.MASK_RCNN, "--cfg-options", "train_dataloader.dataset.pipeline.9.prob=1"],
            ["list of 5", "'9'"],
        ),
    ],
)
def test_train_names_what_is_wrong(
    arguments: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train_cli.main(arguments) == 1
    printed = message(capsys)
    for word in words:
        assert word in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.backbone.arch": "tyni"}, ["arch='tyni'", "did you mean 'tiny'"]),
        ({"model.backbone.drop_path": 0.1}, ["SwinTransformer has no option 'drop_path'"]),
        ({"model.backbone.type": "swin_dense.SwinTransfomer"}, ["SwinTransfomer"]),
        ({"model.backbone.init_cfg.checkpoint": "/nowhere/swin.pth"}, ["/nowhere/swin.pth"]),
        (
            {"train_dataloader.dataset.ann_file": "annotations/none.json"},
            ["none.json does not exist"],
        ),
        (
            {"train_dataloader.dataset.data_prefix.img": "train2016/"},
            ["train2016/ is not a folder"],
        ),
        ({"val_evaluator.ann_file": "/nowhere/val.json"}, ["val_evaluator", "/nowhere/val.json"]),
        (
            {"train_dataloader.dataset.metainfo.classes": "(persn,dog)"},
            ["'persn'", "did you mean 'person'"],
        ),
    ],
)
def test_train_names_a_wrong_option_or_path_of_a_config(
    changes: dict[str, Any],
    words: list[str],
    shared_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = runs.coco_options(shared_data / "coco_mini", short_side=64, images=2)
    options.pop("train_dataloader.dataset.pipeline")
    if "model.backbone.init_cfg.checkpoint" in changes:
        options.pop("model.backbone.init_cfg")
    arguments = [runs.MASK_RCNN, "--work-dir", str(tmp_path / "run"), *flags(options | changes)]
    assert train_cli.main(arguments) == 1
    printed = message(capsys)
    for word in words:
        assert word in printed
    assert not (tmp_path / "run").exists()


def broken_ade(root: Path, *, image: bytes | None, label: bytes | None) -> Path:
    """A data set of two images in ADE20K's layout, one of whose files is replaced or missing."""
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for number in range(2):
            picture = np.full((64, 64, 3), 90 * number, np.uint8)
            cv2.imwrite(str(root / f"images/{split}/{number}.jpg"), picture)
            cv2.imwrite(str(root / f"annotations/{split}/{number}.png"), picture[:, :, 0])
    for path, content in (
        (root / "images/training/1.jpg", image),
        (root / "annotations/training/1.png", label),
    ):
        if content is None:
            continue
        path.unlink()
        if content:
            path.write_bytes(content)
    return root


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("image", "label", "words"),
    [
        (b"not an image", None, ["image", "images/training/1.jpg", "could not be read"]),
        (None, b"not an image", ["label map", "annotations/training/1.png", "could not be read"]),
        (None, b"", ["1 of 2 files", "annotations/training/1.png"]),
    ],
)
def test_train_names_a_file_that_is_missing_or_does_not_decode(
    image: bytes | None,
    label: bytes | None,
    words: list[str],
    workers: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = broken_ade(tmp_path / "data", image=image, label=label)
    options = runs.semantic_options(root, crop=32) | runs.small_swin("mmseg")
    options |= {"train_cfg.max_iters": 8, "train_dataloader.num_workers": workers}
    assert train_cli.main([runs.UPERNET, "--work-dir", str(tmp_path / "run"), *flags(options)]) == 1
    printed = message(capsys)
    for word in words:
        assert word in printed


def test_a_refused_run_takes_nothing_that_was_there_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = broken_ade(tmp_path / "data", image=None, label=b"")
    options = runs.semantic_options(root, crop=32) | runs.small_swin("mmseg")
    earlier = tmp_path / "run" / "20260101_000000"
    earlier.mkdir(parents=True)
    (tmp_path / "run" / "iter_2.pth").write_bytes(b"an earlier run's")
    assert train_cli.main([runs.UPERNET, "--work-dir", str(tmp_path / "run"), *flags(options)]) == 1
    message(capsys)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {earlier.name, "iter_2.pth"}


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_cli.main(["nothing.py", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_test_names_a_checkpoint_that_is_missing_or_unreadable(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = runs.coco_options(shared_data / "coco_mini", short_side=64, images=2)
    options.pop("train_dataloader.dataset.pipeline")
    files = {
        "none.pth": (None, "no checkpoint"),
        "empty.pth": (b"", "is empty"),
        "page.pth": (b"<!DOCTYPE html><html>404</html>", "web page"),
        "cut.pth": (b"PK\x03\x04" + b"\0" * 50, "truncated"),
    }
    for name, (content, words) in files.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        arguments = [runs.MASK_RCNN, str(tmp_path / name), "--work-dir", str(tmp_path / "out")]
        assert test_cli.main(arguments + flags(options)) == 1
        printed = message(capsys)
        assert words in printed
        assert name in printed
    assert not (tmp_path / "out").exists()


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must not run",))


def test_a_checkpoint_that_would_run_code_is_refused_by_name(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(dict(state_dict={}, meta=_Evil()), tmp_path / "evil.pth")
    options = runs.coco_options(shared_data / "coco_mini", short_side=64, images=2)
    options.pop("train_dataloader.dataset.pipeline")
    arguments = [runs.MASK_RCNN, str(tmp_path / "evil.pth"), "--work-dir", str(tmp_path / "out")]
    assert test_cli.main(arguments + flags(options)) == 1
    captured = capsys.readouterr()
    assert "print" in captured.err
    assert "refused" in captured.err
    assert "this must not run" not in captured.out


def test_out_of_the_wrong_kind_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "a.pth"
    checkpoint.write_bytes(b"x")
    assert test_cli.main([runs.MASK_RCNN, str(checkpoint), "--out", "folder"]) == 1
    assert ".pkl" in message(capsys)
    assert test_cli.main([runs.UPERNET, str(checkpoint), "--out", "a.pkl"]) == 1
    assert "folder" in message(capsys)


def test_print_config_prints_what_reloads_to_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmengine.config import Config

    saved = tmp_path / "whole.py"
    option = "model.backbone.drop_path_rate=0.33"
    assert (
        print_config.main([runs.MASK_RCNN, "--cfg-options", option, "--save-path", str(saved)]) == 0
    )
    printed = capsys.readouterr().out
    assert "drop_path_rate=0.33" in printed
    assert Config.fromfile(saved).pretty_text.strip() == printed.strip()


def test_older_flags_still_work_and_say_their_new_name(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["none.py", "x.pth", "--eval", "bbox", "segm", "--aug-test"]
    assert test_cli.main(arguments) == 1
    assert "--eval is an older name" in capsys.readouterr().err
    assert train_cli.main(["none.py", "--resume-from", "x.pth"]) == 1
    assert "--resume-from is an older name" in capsys.readouterr().err


def test_the_one_command_lists_its_commands_and_helps_with_a_misspelt_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert swin_dense(["--help"]) == 0
    assert "visualize" in capsys.readouterr().out
    assert swin_dense(["trian"]) == 1
    assert "did you mean 'train'" in capsys.readouterr().err


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, swin_dense\n"
        "from swin_dense.cli import train, test, visualize, demo, print_config, get_flops\n"
        "for tool in (train, test, visualize, demo, print_config, get_flops): "
        "tool.build_parser().format_help()\n"
        "heavy = {'torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'matplotlib', 'cv2'} & "
        "set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
