"""The demo: make sample data, train a detector and a segmenter on it, evaluate both, draw.

Everything is learned from random weights and measured on scenes that training never saw. The
last weights are measured, so validation during training chooses nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np

from swin_dense.data.sample import SampleData, generate_sample_data
from swin_dense.engine.demo_run import CONSOLE, Run
from swin_dense.engine.progress import ProgressLine, clock
from swin_dense.engine.test import write_metrics
from swin_dense.errors import UserError
from swin_dense.visualization.curves import plot_curves, read_scalars
from swin_dense.visualization.demo_pictures import draw_demo_pictures
from swin_dense.visualization.images import read_image, save_png

DETECTOR = "mask_rcnn/mask_rcnn_swin_mini_fpn_sample.py"
SEGMENTER = "upernet/upernet_swin_mini_sample.py"
TARGETS = {"coco/bbox_mAP_50": 0.50, "coco/segm_mAP_50": 0.50, "mIoU": 0.70}
TITLES = {"coco/bbox_mAP_50": "box AP50", "coco/segm_mAP_50": "mask AP50", "mIoU": "mIoU"}
CURVES_OF = {
    "Mask R-CNN": [
        "loss",
        "loss_rpn_cls",
        "loss_rpn_bbox",
        "loss_cls",
        "loss_bbox",
        "loss_mask",
        "coco/bbox_mAP_50",
        "coco/segm_mAP_50",
        "coco/bbox_mAP",
        "coco/segm_mAP",
    ],
    "UperNet": ["loss", "mIoU", "mAcc", "aAcc"],
}
_USUAL_S = 150.0  # of the two runs, until they can say themselves
_AFTER_TRAINING_S = 8.0
_PICTURES_S = 6.0


@dataclass(frozen=True)
class DemoSettings:
    """How much the demo does; the defaults are what ``make demo`` promises its figures for."""

    num_train: int = 240
    num_val: int = 60
    image_hw: tuple[int, int] = (160, 160)
    max_iters: int | None = None
    num_pictures: int = 12


@dataclass(frozen=True)
class DemoReport:
    """What the demo reached.

    Attributes:
        work_dir: where everything lies.
        metrics: as in ``metrics.json``; mIoU is a share of 1 here as the APs are.
    """

    work_dir: Path
    metrics: dict[str, float] = field(default_factory=dict)

    def missed(self) -> list[str]:
        """Return the names of the metrics that are below their targets."""
        return [name for name, target in TARGETS.items() if not self.metrics[name] >= target]

    def lines(self) -> list[str]:
        """Return the closing words: the figures against their targets, and where to look."""
        missed = self.missed()
        rows = [
            f"  {TITLES[name]:10} {self.metrics[name]:.3f}   target {target:.2f}   "
            f"{'MISSED' if name in missed else 'reached'}"
            for name, target in TARGETS.items()
        ]
        return [
            f"On {int(self.metrics['scenes_held_out'])} held-out scenes, "
            f"learned from random weights in {clock(self.metrics['seconds_total'])}:",
            *rows,
            f"Look at {self.work_dir / 'demo.png'} first, "
            "then at pictures/, curves.png and metrics.json beside it.",
        ]


def run_demo(
    work_dir: str | Path,
    *,
    seed: int = 0,
    settings: DemoSettings | None = None,
    progress: ProgressLine | None = None,
) -> DemoReport:
    """Run the whole demo and return what it reached.

    Args:
        work_dir: gets ``data/``, ``mask_rcnn/``, ``upernet/``, ``metrics.json``, ``curves.png``,
            ``pictures/`` and ``demo.png``.
        seed: of the data and of both runs.
        settings: how much to do.
        progress: where to say how far things are.

    Raises:
        UserError: ``work_dir`` cannot be used, or a run failed.
    """
    settings = settings or DemoSettings()
    progress = progress or ProgressLine()
    work_dir = Path(work_dir)
    started_s = time.monotonic()
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        (work_dir / "metrics.json").unlink(missing_ok=True)  # no figures of an earlier run
    except OSError as error:
        raise UserError(
            f"cannot write to {work_dir}: {error.strerror}. Give another --work-dir."
        ) from error
    data = _make_data(work_dir / "data", seed, settings, progress)
    data_s = time.monotonic()
    runs = _plan(work_dir, data, seed, settings.max_iters)
    logs = _learn(runs, progress)
    learned_s = time.monotonic()

    progress.show(f"[3/3] pictures  ETA {clock(_PICTURES_S)}")
    detector, segmenter = runs
    draw_demo_pictures(
        data,
        detections=detector.work_dir / detector.predictions,
        segmentations=segmenter.work_dir / segmenter.predictions,
        out_dir=work_dir,
        count=settings.num_pictures,
    )
    _draw_curves(runs, logs, work_dir / "curves.png")
    done_s = time.monotonic()
    progress.finish(f"[3/3] pictures  done in {clock(done_s - learned_s)}")
    metrics = _one_scale({**detector.metrics(), **segmenter.metrics()})
    metrics |= {
        "scenes_train": settings.num_train,
        "scenes_held_out": settings.num_val,
        "seconds_data": round(data_s - started_s, 1),
        "seconds_learning": round(learned_s - data_s, 1),
        "seconds_pictures": round(done_s - learned_s, 1),
        "seconds_total": round(done_s - started_s, 1),
    }
    write_metrics(work_dir / "metrics.json", metrics)
    return DemoReport(work_dir, metrics)


def _make_data(root: Path, seed: int, settings: DemoSettings, progress: ProgressLine) -> SampleData:
    started_s = time.monotonic()

    def tell(done: int, total: int) -> None:
        left_s = (time.monotonic() - started_s) / done * (total - done)
        progress.show(f"[1/3] sample data  {done}/{total} scenes  ETA {clock(left_s)}")

    data = generate_sample_data(
        root,
        num_train=settings.num_train,
        num_val=settings.num_val,
        image_hw=settings.image_hw,
        seed=seed,
        progress=tell,
    )
    took = clock(time.monotonic() - started_s)
    total = settings.num_train + settings.num_val
    progress.finish(f"[1/3] sample data  {total} scenes, done in {took}")
    return data


def _plan(work_dir: Path, data: SampleData, seed: int, max_iters: int | None) -> tuple[Run, Run]:
    threads = max(1, _num_processors() // 2)
    detector = Run(
        title="Mask R-CNN",
        config=DETECTOR,
        data_root=data.coco_root.resolve(),
        work_dir=work_dir / "mask_rcnn",
        predictions="predictions.pkl",
        seed=seed,
        num_threads=threads,
        max_iters=max_iters,
    )
    segmenter = Run(
        title="UperNet",
        config=SEGMENTER,
        data_root=data.ade_root.resolve(),
        work_dir=work_dir / "upernet",
        predictions="predictions",
        seed=seed,
        num_threads=threads,
        max_iters=max_iters,
    )
    return detector, segmenter


def _num_processors() -> int:
    """Return how many processors this process may use; not every system can tell those from all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _learn(runs: tuple[Run, Run], progress: ProgressLine) -> list[Path]:
    """Run both side by side to their ends; return the log of each."""
    started_s = time.monotonic()
    known_logs = [run.known_logs() for run in runs]
    totals = [int(run.load().train_cfg.max_iters) for run in runs]
    processes = [run.start() for run in runs]
    try:
        while any(process.is_alive() for process in processes):
            parts, left_s = [], 0.0
            for run, process, known, total in zip(runs, processes, known_logs, totals, strict=True):
                _check(run, process)
                text, run_left_s = _standing(run, process, known, total)
                if run_left_s is None:
                    run_left_s = max(0.0, _USUAL_S - (time.monotonic() - started_s))
                parts.append(f"{run.title} {text}")
                left_s = max(left_s, run_left_s)
            eta = clock(left_s + _PICTURES_S)
            progress.show(f"[2/3] train and evaluate  {', '.join(parts)}  ETA {eta}")
            for process in processes:
                process.join(0.25)
        for run, process in zip(runs, processes, strict=True):
            _check(run, process)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    progress.finish(
        f"[2/3] train and evaluate  {', '.join(run.title for run in runs)}, "
        f"done in {clock(time.monotonic() - started_s)}"
    )
    logs = [run.log(besides=known) for run, known in zip(runs, known_logs, strict=True)]
    return [log for log in logs if log is not None]


def _check(run: Run, process: SpawnProcess) -> None:
    if process.exitcode not in (None, 0):
        raise UserError(
            f"{run.title} stopped: {run.last_words()}\n(more in {run.work_dir / CONSOLE})"
        )


def _standing(
    run: Run, process: SpawnProcess, known: frozenset[Path], total: int
) -> tuple[str, float | None]:
    """Return how far a run is, and the seconds it still needs if that can be told."""
    if not process.is_alive():
        return "done", 0.0
    steps = [record for record in run.records(besides=known) if "loss" in record]
    if not steps:
        return "starting", None
    last = steps[-1]
    if last["step"] >= total:
        return "evaluating", _AFTER_TRAINING_S
    left_s = (total - last["step"]) * last["time"] * 1.08 + _AFTER_TRAINING_S
    return f"{last['step']}/{total} loss {last['loss']:.2f}", left_s


def _draw_curves(runs: tuple[Run, Run], logs: list[Path], out: Path) -> None:
    """Write one picture: losses and held-out scores of both runs, one run a row."""
    rows = []
    for run, log in zip(runs, logs, strict=True):
        series = {
            name: curve for name, curve in read_scalars(log).items() if name in CURVES_OF[run.title]
        }
        rows.append(read_image(plot_curves(series, run.work_dir / "curves.png", title=run.title)))
    width = max(row.shape[1] for row in rows)
    rows = [
        np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
        for row in rows
    ]
    save_png(out, np.concatenate(rows))


def _one_scale(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return all scores as shares of 1: mmseg counts in percent, COCO does not."""
    percent = {"mIoU", "aAcc", "mAcc"}
    return {
        name: round(value / 100, 4) if name in percent else value for name, value in metrics.items()
    }
