"""TensorBoard through mmengine's own back end, as docs/logging.md says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swin_dense.data.sample import generate_sample_data
from swin_dense.engine.train import TrainOptions
from tests import runs


def test_tensorboard_gets_every_scalar_of_a_training(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is in the dev extra: make setup")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = generate_sample_data(tmp_path / "data", num_train=4, num_val=2)
    options = {f"{split}_dataloader.dataset.data_root": str(data.ade_root) for split in runs.SPLITS}
    options["visualizer.vis_backends"] = [
        dict(type="LocalVisBackend"),
        dict(type="TensorboardVisBackend"),
    ]
    cfg = runs.load("upernet/upernet_swin_mini_sample.py", options, tmp_path / "run")
    cfg.train_dataloader.batch_size = 2
    runner = runs.run_iterations(cfg, 2, TrainOptions(val_loss=True))
    runner.visualizer.close()
    (log,) = (tmp_path / "run").rglob("scalars.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (events,) = (tmp_path / "run").rglob("events.out.tfevents.*")
    board = EventAccumulator(str(events))
    board.Reload()
    losses = [entry.value for entry in board.Scalars("loss")]
    assert losses == pytest.approx([line["loss"] for line in lines if "loss" in line])
    assert len(losses) == 2
    assert board.Scalars("mIoU")[0].value == pytest.approx(lines[-1]["mIoU"])
    assert board.Scalars("val/loss")[0].value == pytest.approx(lines[-1]["val/loss"])
