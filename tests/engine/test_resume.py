"""Resuming goes on where the run stopped, and never unpickles anything that is not allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from swin_dense.checkpoints.read import read_checkpoint
from swin_dense.engine.train import TrainOptions, train
from swin_dense.errors import UserError
from tests import runs


def small_run(shared_data: Path, work_dir: Path, iterations: int) -> Any:
    """UperNet on ``ade_mini`` with a checkpoint every two iterations and no validation."""
    options = runs.semantic_options(shared_data / "ade_mini", crop=64) | runs.small_swin("mmseg")
    cfg = runs.load(runs.UPERNET, options, work_dir)
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.interval = 2
    cfg.default_hooks.checkpoint.pop("save_best")
    return cfg


def test_resume_restores_weights_optimizer_schedule_and_history(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small_run(shared_data, tmp_path, 2), TrainOptions(seed=0))
    saved = read_checkpoint(tmp_path / "iter_2.pth")
    calls = []
    original = torch.load

    def watched(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs.get("weights_only"))
        return original(*args, **kwargs)

    monkeypatch.setattr(torch, "load", watched)
    states = []

    class Snoop(runs.LossRecorder):
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            if not states:
                states.append(
                    (
                        runner.iter,
                        {k: v.clone() for k, v in runner.model.state_dict().items()},
                        runner.optim_wrapper.state_dict()["state"][0]["step"].item(),
                        runner.param_schedulers[0].last_step,
                    )
                )

    from swin_dense.engine import session

    build = session.build_runner

    def with_snoop(*args: Any, **kwargs: Any) -> Any:
        runner = build(*args, **kwargs)
        runner.register_hook(Snoop())
        return runner

    monkeypatch.setattr("swin_dense.engine.train.build_runner", with_snoop)
    runner = train(small_run(shared_data, tmp_path, 4), TrainOptions(resume="auto"))
    iteration, weights, step, schedule_step = states[0]
    assert (iteration, step, schedule_step) == (2, 2.0, 2)
    for name, value in saved["state_dict"].items():
        assert torch.equal(weights[name], value), name
    assert runner.iter == 4
    assert calls
    assert all(calls)
    assert (tmp_path / "iter_4.pth").is_file()
    steps = []
    for log in sorted(tmp_path.glob("*/vis_data/scalars.json")):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        steps.append([line["step"] for line in lines if "loss" in line])
    assert steps == [[1, 2], [3, 4]]


def test_resume_from_a_missing_checkpoint_is_refused(shared_data: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "iter_9.pth")
    with pytest.raises(UserError, match=r"iter_9\.pth: no such checkpoint"):
        train(small_run(shared_data, tmp_path / "run", 2), TrainOptions(resume=missing))
    assert not (tmp_path / "run").exists()
