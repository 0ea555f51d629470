"""Evaluate a checkpoint with the metrics of its config."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process

from swin_dense.engine.config import host_of
from swin_dense.engine.evaluation import PREDICTIONS, evaluate_predictions
from swin_dense.engine.hooks import ValLossHook
from swin_dense.engine.report.write import write_report
from swin_dense.engine.session import build_runner, leaving_nothing_of_a_refusal
from swin_dense.engine.thresholds import check_can_save, save_thresholds
from swin_dense.engine.tta import augment
from swin_dense.errors import UserError
from swin_dense.evaluation.predictions import INDEX

_NOT_KEPT = (
    "the config's metric keeps no predictions; expected CocoMetric (with ann_file) or IoUMetric."
)


@dataclass(frozen=True)
class TestOptions:
    """What the command line can ask of an evaluation.

    Attributes:
        out: where predictions go: a .pkl file for detection, a folder of PNGs for segmentation.
        show: open a window for each picture; needs a screen.
        show_dir: folder for pictures of the predictions.
        wait_time: seconds each window stays.
        tta: test-time augmentation, see :func:`swin_dense.engine.tta.augment`.
        launcher: "none", "pytorch", "slurm" or "mpi".
        report: write ``report.html`` and the pictures beside it.
        save_thresholds: keep the score thresholds with the best F1 in the checkpoint.
        from_predictions: a predictions folder to measure again, without a model.
        val_loss: also compute the model's losses.
    """

    __test__ = False

    out: str | None = None
    show: bool = False
    show_dir: str | None = None
    wait_time: float = 2.0
    tta: bool = False
    launcher: str = "none"
    report: bool = True
    save_thresholds: bool = False
    from_predictions: str | None = None
    val_loss: bool = False


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
        return _test_again(cfg, checkpoint, options)
    if checkpoint is None:
        raise UserError("a checkpoint is needed, or --from-predictions with a predictions folder.")
    if cfg.get("test_dataloader") is None or cfg.get("test_evaluator") is None:
        raise UserError("the config needs test_dataloader and test_evaluator; it has not both.")
    if not str(checkpoint).startswith(("http://", "https://")) and not Path(checkpoint).is_file():
        raise UserError(f"no checkpoint at {checkpoint}. Training leaves them in its work dir.")
    cfg.load_from = str(checkpoint)
    cfg.resume = False
    segments = host_of(cfg) == "mmseg"
    if options.save_thresholds:
        check_can_save(checkpoint, segments=segments)
    if options.show or options.show_dir:
        _draw(cfg, options, segments=segments)
    if options.tta and options.val_loss:
        raise UserError("--val-loss: a loss has no views to merge. Give --tta in a run of its own.")
    if options.tta:
        augment(cfg, segments=segments)
    if options.out is not None:
        _save_predictions(cfg, options.out, segments=segments)
    index = Path(cfg.work_dir) / PREDICTIONS / INDEX
    before = index.stat().st_mtime_ns if index.is_file() else None
    with leaving_nothing_of_a_refusal(cfg.work_dir):
        runner = build_runner(cfg, splits=("test",), launcher=options.launcher)
        if options.val_loss:
            runner.register_hook(ValLossHook("test"))
        metrics = {name: float(value) for name, value in runner.test().items()}
    if is_main_process():
        fresh = index.is_file() and index.stat().st_mtime_ns != before
        _leave(Path(cfg.work_dir), metrics, checkpoint, options, index.parent if fresh else None)
    return metrics


def _leave(
    work_dir: Path,
    metrics: dict[str, float],
    checkpoint: str | Path | None,
    options: TestOptions,
    predictions: str | Path | None,
) -> None:
    """Write what an evaluation leaves: the figures first, so that nothing later can lose them.

    Raises:
        UserError: thresholds are asked for, and cannot be saved.
    """
    previous = _read_metrics(work_dir / "metrics.json")
    write_metrics(work_dir / "metrics.json", metrics)
    if options.save_thresholds:
        if predictions is None:
            raise UserError(f"--save-thresholds: {_NOT_KEPT}")
        assert checkpoint is not None
        meta = save_thresholds(checkpoint, predictions)
        print(f"thresholds are in {checkpoint}: {meta['overall']:.3f} over all classes")
    if not options.report:
        return
    try:
        if predictions is None:
            raise UserError(_NOT_KEPT)
        write_report(work_dir, predictions, metrics=metrics, previous=previous)
    except UserError as error:  # the figures are there; what a report needs besides may lack
        (work_dir / "report.html").unlink(missing_ok=True)  # an earlier one would mislead
        print(f"note: no report was written: {error}", file=sys.stderr)


def _read_metrics(path: Path) -> dict[str, float]:
    try:
        content = json.loads(path.read_text())
        return {name: float(value) for name, value in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # none, or no figures: there is nothing to compare with


def _test_again(
    cfg: Config, checkpoint: str | Path | None, options: TestOptions
) -> dict[str, float]:
    for flag in ("out", "show", "show_dir", "tta", "val_loss"):
        if getattr(options, flag):
            raise UserError(
                f"--{flag.replace('_', '-')} needs a model; --from-predictions measures alone."
            )
    assert options.from_predictions is not None
    if options.save_thresholds:
        check_can_save(checkpoint or "", segments=host_of(cfg) == "mmseg")
    metrics = evaluate_predictions(cfg, options.from_predictions)
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    _leave(Path(cfg.work_dir), metrics, checkpoint, options, options.from_predictions)
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
