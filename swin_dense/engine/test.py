"""Evaluate a checkpoint with the metrics of its config."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process

from swin_dense.engine.config import host_of
from swin_dense.engine.evaluation import evaluate_predictions
from swin_dense.engine.session import build_runner, leaving_nothing_of_a_refusal
from swin_dense.errors import UserError


@dataclass(frozen=True)
class TestOptions:
    """What the command line can ask of an evaluation.

    Attributes:
        out: where predictions go: a .pkl file for detection, a folder of PNGs for segmentation.
        show: open a window for each picture; needs a screen.
        show_dir: folder for pictures of the predictions.
        wait_time: seconds each window stays.
        tta: test-time augmentation as the config defines it, or flips where it does not.
        launcher: "none", "pytorch", "slurm" or "mpi".
        from_predictions: a predictions folder to measure again, without a model.
    """

    __test__ = False

    out: str | None = None
    show: bool = False
    show_dir: str | None = None
    wait_time: float = 2.0
    tta: bool = False
    launcher: str = "none"
    from_predictions: str | None = None


def test(
    cfg: Config, checkpoint: str | Path | None, options: TestOptions | None = None
) -> dict[str, float]:
    """Evaluate ``checkpoint`` on the config's test data and return the metrics by name.

    They are also written to ``metrics.json`` in the work dir, flat: ``coco/bbox_mAP``, ``mIoU``,
    ...

    Raises:
        UserError: the data or the checkpoint is missing, or the config does not fit an option.
    """
    options = options or TestOptions()
    if options.from_predictions is not None:
        return _test_again(cfg, options)
    if checkpoint is None:
        raise UserError("a checkpoint is needed, or --from-predictions with a predictions folder.")
    if cfg.get("test_dataloader") is None or cfg.get("test_evaluator") is None:
        raise UserError("the config needs test_dataloader and test_evaluator; it has not both.")
    if not str(checkpoint).startswith(("http://", "https://")) and not Path(checkpoint).is_file():
        raise UserError(f"no checkpoint at {checkpoint}. Training leaves them in its work dir.")
    cfg.load_from = str(checkpoint)
    cfg.resume = False
    segments = host_of(cfg) == "mmseg"
    if options.show or options.show_dir:
        _draw(cfg, options, segments=segments)
    if options.tta:
        _augment(cfg, segments=segments)
    if options.out is not None:
        _save_predictions(cfg, options.out, segments=segments)
    with leaving_nothing_of_a_refusal(cfg.work_dir):
        runner = build_runner(cfg, splits=("test",), launcher=options.launcher)
        metrics = {name: float(value) for name, value in runner.test().items()}
    if is_main_process():
        write_metrics(Path(runner.work_dir) / "metrics.json", metrics)
    return metrics


def _test_again(cfg: Config, options: TestOptions) -> dict[str, float]:
    for flag in ("out", "show", "show_dir", "tta"):
        if getattr(options, flag):
            raise UserError(
                f"--{flag.replace('_', '-')} needs a model; --from-predictions measures alone."
            )
    assert options.from_predictions is not None
    metrics = evaluate_predictions(cfg, options.from_predictions)
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    write_metrics(Path(cfg.work_dir) / "metrics.json", metrics)
    for name, value in metrics.items():
        print(f"{name}: {value:.4f}")
    return metrics


def write_metrics(path: Path, metrics: dict[str, float]) -> None:
    """Write ``metrics`` as JSON, whole or not at all."""
    partial = path.with_suffix(".json.part")
    partial.write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    partial.replace(path)


def _draw(cfg: Config, options: TestOptions, *, segments: bool) -> None:
    hook = (cfg.get("default_hooks") or {}).get("visualization")
    if hook is None:
        raise UserError(
            "--show and --show-dir need a visualization hook: add default_hooks.visualization = "
            f"dict(type='{'Seg' if segments else 'Det'}VisualizationHook') to the config."
        )
    hook["draw"] = True
    if options.show:
        hook["show"], hook["wait_time"] = True, options.wait_time
    if options.show_dir and segments:
        cfg.visualizer["save_dir"] = options.show_dir
    elif options.show_dir:
        hook["test_out_dir"] = options.show_dir


def _save_predictions(cfg: Config, out: str, *, segments: bool) -> None:
    evaluators: Any = cfg.test_evaluator
    if segments:
        if out.endswith((".pkl", ".pickle")):
            raise UserError(f"--out {out}: segmentation writes a folder of PNGs; give a folder.")
        for metric in evaluators if isinstance(evaluators, list) else [evaluators]:
            metric["output_dir"], metric["keep_results"] = out, True
        return
    if not out.endswith((".pkl", ".pickle")):
        raise UserError(
            f"--out {out}: detection writes one pickle file; give a name that ends in .pkl"
        )
    dump = ConfigDict(type="DumpDetResults", out_file_path=out)
    cfg.test_evaluator = [*(evaluators if isinstance(evaluators, list) else [evaluators]), dump]


def _augment(cfg: Config, *, segments: bool) -> None:
    if segments and ("tta_model" not in cfg or "tta_pipeline" not in cfg):
        raise UserError(
            "--tta needs tta_model and tta_pipeline in the config; see configs/_base_/."
        )
    if "tta_model" not in cfg:
        nms = dict(type="nms", iou_threshold=0.5)
        cfg.tta_model = ConfigDict(type="DetTTAModel", tta_cfg=dict(nms=nms, max_per_img=100))
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    if "tta_pipeline" not in cfg:
        cfg.tta_pipeline = _flip_pipeline(dataset.pipeline)
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def _flip_pipeline(pipeline: list[Any]) -> list[Any]:
    """Return a detection pipeline that shows each image plain and flipped."""
    keys = (
        "img_id",
        "img_path",
        "ori_shape",
        "img_shape",
        "scale_factor",
        "flip",
        "flip_direction",
    )
    views = [[dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)]]
    pack = [dict(type="PackDetInputs", meta_keys=keys)]
    return [*deepcopy(pipeline[:-1]), dict(type="TestTimeAug", transforms=[*views, pack])]
