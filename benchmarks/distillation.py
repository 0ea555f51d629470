"""Does a frozen teacher help a small UperNet that has few labels? Three seeds, paired.

    python benchmarks/distillation.py --work-dir work_dirs/distillation

The teacher is the segmenter of ``make demo``, trained on all scenes. The student is the same
network from other first weights and has few of the scenes; with and without the teacher it has the
same seed, hence the same first weights and the same order of images. The last weights are measured
on held-out scenes. This is the third setting; each was fixed, with seeds that had not been used,
before it ran. In the first two the student was half as wide and had 80 and 240 iterations: it ended
near 29 mIoU, ground classes alone, and a teacher gave -0.04, +0.08, -0.07 and -0.55, +0.04, -0.39.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, setting
from mmengine.config import Config, ConfigDict

from swin_dense.data.sample import generate_sample_data
from swin_dense.engine.config import load_config
from swin_dense.engine.demo import SEGMENTER
from swin_dense.engine.demo_run import _set_length
from swin_dense.engine.train import TrainOptions, train

SEEDS = (6, 7, 8)
TEACHER_ITERATIONS = 400
STUDENT_ITERATIONS = 400
LABELLED = 16
DISTILLATION = dict(kind="soft", alpha=0.5, tau=2.0, reduction="positions")


def main() -> None:
    """Train the teacher and the pairs, write ``results/distillation.{json,md}``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/distillation"))
    work_dir: Path = parser.parse_args().work_dir
    torch.set_num_threads(1)
    started = setting(
        teacher_iterations=TEACHER_ITERATIONS,
        student_iterations=STUDENT_ITERATIONS,
        labelled_scenes=LABELLED,
        **DISTILLATION,
    )
    root = generate_sample_data(work_dir / "data", seed=0).ade_root
    teacher_cfg = _config(root, work_dir / "teacher", TEACHER_ITERATIONS)
    teacher_model = teacher_cfg.model.to_dict()
    teacher = _learn(teacher_cfg, seed=0)
    checkpoint = (work_dir / "teacher" / "last_checkpoint").read_text().strip()
    rows = []
    for seed in SEEDS:
        alone = _student(root, work_dir / f"alone_{seed}")
        taught = _student(root, work_dir / f"taught_{seed}")
        taught.model = ConfigDict(
            type="swin_dense.DistilledSegmentor",
            student=taught.model.to_dict(),
            teacher=teacher_model,
            teacher_checkpoint=checkpoint,
            **DISTILLATION,
        )
        pair = {"alone": _learn(alone, seed), "taught": _learn(taught, seed)}
        rows.append({"seed": seed, **pair, "gain": round(pair["taught"] - pair["alone"], 2)})
        print(rows[-1], flush=True)
    _write({"setting": started, "teacher_miou": teacher, "seeds": rows})


def _config(root: Path, work_dir: Path, iterations: int) -> Config:
    cfg = load_config(SEGMENTER)
    for split in ("train", "val", "test"):
        cfg[f"{split}_dataloader"].dataset.data_root = f"{root.resolve()}/"
        cfg[f"{split}_dataloader"].num_workers = 0
        cfg[f"{split}_dataloader"].persistent_workers = False
    _set_length(cfg, iterations)
    cfg.train_cfg.val_interval = iterations
    cfg.work_dir = str(work_dir)
    return cfg


def _student(root: Path, work_dir: Path) -> Config:
    cfg = _config(root, work_dir, STUDENT_ITERATIONS)
    cfg.train_dataloader.dataset.indices = LABELLED
    return cfg


def _learn(cfg: Config, seed: int) -> float:
    """Train and return the held-out mIoU of the last weights, in percent."""
    start = time.monotonic()
    runner = train(cfg, TrainOptions(seed=seed))
    print(cfg.work_dir, f"{time.monotonic() - start:.0f} s", flush=True)
    return float(runner.message_hub.get_scalar("val/mIoU").current())


def _write(result: dict[str, Any]) -> None:
    rows = result["seeds"]
    for name in ("alone", "taught", "gain"):
        result[f"mean_{name}"] = round(statistics.fmean(row[name] for row in rows), 2)
    (RESULTS / "distillation.json").write_text(json.dumps(result, indent=1) + "\n")
    s = result["setting"]
    lines = [
        "# A small UperNet with and without a teacher",
        "",
        f"{s['date']}, {s['machine']}, torch {s['torch']}, one thread. "
        f"`python benchmarks/distillation.py`. mIoU in percent on 60 held-out sample scenes, last "
        f"weights. Teacher: 240 labelled scenes, {TEACHER_ITERATIONS} iterations, "
        f"{result['teacher_miou']:.2f}. Student: the same network, {LABELLED} labelled scenes, "
        f"{STUDENT_ITERATIONS} iterations; {DISTILLATION}.",
        "",
        "| seed | alone | with teacher | gain |",
        "|---|---|---|---|",
        *(
            f"| {r['seed']} | {r['alone']:.2f} | {r['taught']:.2f} | {r['gain']:+.2f} |"
            for r in rows
        ),
        f"| mean | {result['mean_alone']:.2f} | {result['mean_taught']:.2f} | "
        f"{result['mean_gain']:+.2f} |",
    ]
    (RESULTS / "distillation.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
