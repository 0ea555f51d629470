"""One of the demo's two runs, in a process of its own: train a config, evaluate what it became.

Two processes with half of the processors each finish sooner than one after the other with all of
them: the demo's models are too small to keep several threads busy.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from mmengine.config import Config

from swin_dense.engine.config import load_config
from swin_dense.errors import UserError

CONSOLE = "console.log"


@dataclass(frozen=True)
class Run:
    """What to train, on what, and where to leave it.

    Attributes:
        title: what a person calls it.
        config: as :func:`swin_dense.engine.config.load_config` takes it.
        data_root: replaces the one that the config names.
        work_dir: for logs and checkpoints; evaluation goes to ``test`` below it.
        predictions: file (detection) or folder (segmentation) below ``work_dir``.
        seed: of the weights and of the order of the images.
        num_threads: of the process.
        max_iters: None for the config's own.
    """

    title: str
    config: str
    data_root: Path
    work_dir: Path
    predictions: str
    seed: int
    num_threads: int
    max_iters: int | None = None

    def load(self) -> Config:
        """Load the config, pointed at the data and with the schedule at its length."""
        cfg = load_config(self.config)
        for split in ("train", "val", "test"):
            cfg[f"{split}_dataloader"].dataset.data_root = f"{self.data_root}/"
            evaluator = cfg.get(f"{split}_evaluator") or {}
            if "ann_file" in evaluator:
                name = Path(evaluator["ann_file"]).name
                evaluator["ann_file"] = str(self.data_root / "annotations" / name)
        if self.max_iters is not None:
            _set_length(cfg, self.max_iters)
        return cfg

    def start(self) -> SpawnProcess:
        """Start the run's process; what it prints goes to ``console.log`` in its work dir."""
        self.work_dir.mkdir(parents=True, exist_ok=True)
        process = multiprocessing.get_context("spawn").Process(
            target=_learn, args=(self,), daemon=True
        )
        process.start()
        return process

    def metrics(self) -> dict[str, float]:
        """Return what the evaluation measured."""
        return dict(json.loads((self.work_dir / "test" / "metrics.json").read_text()))

    def last_words(self) -> str:
        """Return the last line that the process printed: after a failure, the error."""
        try:
            lines = (self.work_dir / CONSOLE).read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "it printed nothing"

    def known_logs(self) -> frozenset[Path]:
        """Return the scalar logs that the work dir holds by now, to tell the next one from them."""
        return frozenset(self.work_dir.glob("*/vis_data/scalars.json"))

    def log(self, *, besides: frozenset[Path] = frozenset()) -> Path | None:
        """Return the newest scalar log, if there is one yet."""
        return max(self.known_logs() - besides, default=None)

    def records(self, *, besides: frozenset[Path] = frozenset()) -> list[dict[str, Any]]:
        """Return what the newest training has logged, oldest first: ``step`` and values."""
        log = self.log(besides=besides)
        records = []
        for line in log.read_text().splitlines() if log else []:
            try:
                records.append(json.loads(line))
            except ValueError:  # the line that is being written
                break
        return records


def _set_length(cfg: Config, max_iters: int) -> None:
    cfg.train_cfg.max_iters = max_iters
    cfg.train_cfg.val_interval = max(1, max_iters // 4)
    warmup, decay = cfg.param_scheduler
    warmup.end = min(warmup.end, max(1, max_iters // 10))
    decay.begin, decay.end = warmup.end, max(max_iters, warmup.end + 1)
    decay.T_max = decay.end - decay.begin


def _learn(run: Run) -> None:
    console = os.open(run.work_dir / CONSOLE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(console, 1)
    os.dup2(console, 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _train_and_test(run)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, UserError):  # leave the last line to the message alone
            print(str(error).replace("\n", " "), file=sys.stderr)
        sys.exit(1)


def _end_with_parent() -> None:
    """A killed demo cannot stop its runs; they would train on, unseen."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train_and_test(run: Run) -> None:
    import torch

    from swin_dense.engine.test import TestOptions, test
    from swin_dense.engine.train import TrainOptions, train

    torch.set_num_threads(run.num_threads)
    cfg = run.load()
    cfg.work_dir = str(run.work_dir)
    train(cfg, TrainOptions(seed=run.seed))
    checkpoint = (run.work_dir / "last_checkpoint").read_text().strip()
    cfg = run.load()
    cfg.work_dir = str(run.work_dir / "test")
    test(cfg, checkpoint, TestOptions(out=str(run.work_dir / run.predictions)))
