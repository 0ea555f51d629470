"""Time a training iteration of Mask R-CNN and of UperNet on the CPU, beside the hosts' own runner.

    python -m benchmarks.bench_training [--iterations 5] [--turns 1] [--compiled-python PYTHON]

The same published recipes of Swin-T on generated photographs, at the 800 scale with one image a
step and at 512x512 with two, out of the box: ours as ``tools/train.py`` runs it, the host's
packaged config through mmengine's runner with its defaults. mmdet runs on the portable ops of this
project; ``--compiled-python`` names the Python of an environment with a compiled mmcv for a further
row. ``--amp`` is ours in bfloat16, which mmengine's own wrapper refuses on a CPU: other arithmetic,
so a row of its own. Each side has a process of its own; sides take turns, and each turn's first two
iterations are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, setting, table, versions, write

ROOT = Path(__file__).resolve().parents[1]
OURS = {
    "Mask R-CNN": "configs/mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py",
    "UperNet": "configs/upernet/upernet_swin_t_p4_w7_8xb2_160k_ade20k_512x512.py",
}
THEIRS = {
    "Mask R-CNN": ("mmdet", "configs/swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py"),
    "UperNet": (
        "mmseg",
        "configs/swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
    ),
}
WARM_UP = 2


def main() -> None:
    """Measure, print, write ``training.json`` and ``training.md``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=5, help="a turn, the first two included")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--compiled-python", help="Python of an environment with compiled mmcv")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_side(**json.loads(options.child))
        return
    facts = setting(
        iterations=options.iterations,
        turns=options.turns,
        images="Mask R-CNN 1 of 800x1067, UperNet 2 of 512x512",
        versions=versions("mmdet", "mmsegmentation", "mmengine", "mmcv-lite"),
    )
    sides = {}
    for model, (host, _) in THEIRS.items():
        sides[f"{model}, swin_dense"] = (model, "ours", sys.executable)
        sides[f"{model}, swin_dense --amp"] = (model, "ours --amp", sys.executable)
        sides[f"{model}, {host}'s runner"] = (model, "theirs", sys.executable)
    if options.compiled_python:
        compiled = ("Mask R-CNN", "theirs", options.compiled_python)
        sides["Mask R-CNN, mmdet's runner, compiled mmcv"] = compiled
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.turns):
            for name, (model, side, python) in sides.items():
                child = dict(
                    model=model,
                    side=side,
                    folder=folder,
                    iterations=options.iterations,
                    tag=f"{turn}{len(rows)}",
                )
                seconds = _in_own_process(python, child)
                rows.append(dict(model=model, side=name, turn=turn, seconds=seconds))
                print(f"{name:44} {statistics.median(seconds):6.2f} s an iteration", flush=True)
    write(
        options.out,
        "training",
        "A training iteration of Swin-T recipes on the CPU",
        facts,
        rows,
        page(rows),
    )


def _in_own_process(python: str, child: dict[str, Any]) -> list[float]:
    command = [python, "-m", "benchmarks.bench_training", "--child", json.dumps(child)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds[WARM_UP:]


def run_side(model: str, side: str, folder: str, iterations: int, tag: str) -> None:
    """Train and print the seconds of each iteration as JSON, last line."""
    from mmengine.config import Config
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    from swin_dense.data.sample import generate_sample_data
    from swin_dense.engine.config import load_config

    ends: list[float] = []

    @HOOKS.register_module()
    class Stopwatch(Hook):
        def before_train(self, runner: Any) -> None:
            ends.append(time.perf_counter())

        def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

    data = generate_sample_data(
        Path(folder) / "data", num_train=12, num_val=1, image_hw=(480, 640), seed=0
    )
    if side.startswith("ours"):
        cfg = load_config(str(ROOT / OURS[model]))
    else:
        host, config = THEIRS[model]
        package = find_spec(host)
        assert package is not None
        assert package.origin is not None
        cfg = Config.fromfile(Path(package.origin).parent / ".mim" / config)
    (_fit_detector if model == "Mask R-CNN" else _fit_segmentor)(cfg, data)
    _shorten(cfg, iterations)
    cfg.work_dir = str(Path(folder) / tag)
    cfg.custom_hooks = [dict(type="Stopwatch")]
    if side.startswith("ours"):
        from swin_dense.engine.train import TrainOptions, train

        train(cfg, TrainOptions(amp="--amp" in side))
    else:
        from mmengine.runner import Runner

        Runner.from_cfg(cfg).train()
    print()
    print(json.dumps([round(b - a, 4) for a, b in pairwise(ends)]))


def _fit_detector(cfg: Any, data: Any) -> None:
    """Point a config at the sample data's instances, one image a step, at one scale."""
    classes = data.thing_classes
    for head in (cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = len(classes)
    cfg.train_dataloader.batch_size = 1
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = str(data.coco_root) + "/"
    dataset.ann_file = "annotations/instances_train2017.json"
    dataset.data_prefix = dict(img="train2017/")
    dataset.metainfo = dict(classes=classes)
    dataset.pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="Resize", scale=(1333, 800), keep_ratio=True),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PackDetInputs"),
    ]


def _fit_segmentor(cfg: Any, data: Any) -> None:
    """Point a config at the sample data's label maps; crops, pairs and 150 classes stay."""
    cfg.train_dataloader.dataset.data_root = str(data.ade_root)


def _shorten(cfg: Any, iterations: int) -> None:
    """Train a few iterations from fresh weights, and nothing else."""
    for part in (cfg.model, cfg.model.backbone):
        part.init_cfg = None
        part.pop("pretrained", None)
    cfg.train_dataloader.num_workers = 1
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=10**6)
    for split in ("val", "test"):
        for part in ("dataloader", "cfg", "evaluator"):
            cfg[f"{split}_{part}"] = None
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint = None
    cfg.default_hooks.logger.interval = 10**6
    cfg.log_processor = dict(by_epoch=False)
    cfg.randomness = dict(seed=0)


def page(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table: medians, and the ratio theirs / ours turn by turn."""
    names = list(dict.fromkeys(row["side"] for row in rows))
    medians = {
        name: [statistics.median(row["seconds"]) for row in rows if row["side"] == name]
        for name in names
    }
    body = []
    for name in names:
        ours = medians[name.split(",")[0] + ", swin_dense"]
        ratios = [t / o for t, o in zip(medians[name], ours, strict=True)]
        body.append(
            [name, f"{statistics.median(medians[name]):.2f}", f"{statistics.median(ratios):.2f}"]
        )
    return table(["side", "seconds an iteration", "theirs / ours"], body)


if __name__ == "__main__":
    main()
