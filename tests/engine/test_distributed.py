"""Real processes started by torchrun train one model, and evaluate to the figures of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import runs

ROOT = Path(__file__).resolve().parents[2]


def launch(tool: str, *arguments: str, port: int) -> str:
    """Run a distributed tool to its end and return what it printed."""
    environment = os.environ | {"PYTHON": sys.executable, "PORT": str(port), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", str(ROOT / "tools" / tool), *arguments],
        env=environment, capture_output=True, text=True, timeout=600, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("host", ["mmdet", "mmseg"])
def test_two_processes_train_and_evaluate_like_one(
    host: str, shared_data: Path, tmp_path: Path
) -> None:
    if host == "mmdet":
        config = runs.MASK_RCNN
        options = runs.coco_options(shared_data / "coco_mini", short_side=96, images=4)
        options.pop("train_dataloader.dataset.pipeline")
        options["train_cfg.max_epochs"] = 1
        options["test_dataloader.dataset.indices"] = 3  # one process gets two, the other one
        checkpoint = tmp_path / "two" / "epoch_1.pth"
    else:
        config = runs.UPERNET
        options = runs.semantic_options(shared_data / "ade_mini", crop=64)
        options |= {"train_cfg.max_iters": 2, "train_cfg.val_interval": 2}
        options["default_hooks.checkpoint.interval"] = 2
        checkpoint = tmp_path / "two" / "iter_2.pth"
    options |= runs.small_swin(host)
    flags = runs.as_flags({key: str(value).replace(" ", "") for key, value in options.items()})
    port = 29_600 + os.getpid() % 300
    output = launch(
        "dist_train.sh",
        config,
        "2",
        "--work-dir",
        str(tmp_path / "two"),
        "--val-loss",
        *flags,
        port=port,
    )
    assert "gloo" in output
    assert checkpoint.is_file()
    metrics = {}
    for count in ("2", "1"):
        work_dir = tmp_path / f"test{count}"
        arguments = [config, str(checkpoint), count, "--work-dir", str(work_dir)]
        arguments += ["--val-loss", *flags]
        launch("dist_test.sh", *arguments, port=port + int(count))
        metrics[count] = json.loads((work_dir / "metrics.json").read_text())
    assert metrics["2"] == pytest.approx(metrics["1"], nan_ok=True)
    losses = [name for name in metrics["1"] if name.startswith("val/")]
    assert "val/loss" in losses
    assert all(metrics["2"][name] == metrics["1"][name] for name in losses)
