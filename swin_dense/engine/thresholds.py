"""Keep the score thresholds that were chosen on test data in the checkpoint that they belong to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from swin_dense.checkpoints.read import read_checkpoint
from swin_dense.engine.report.runs import read_run
from swin_dense.errors import UserError
from swin_dense.evaluation.analysis.matching import match
from swin_dense.evaluation.analysis.ranking import Ranking
from swin_dense.evaluation.analysis.thresholds import (
    META_KEY,
    as_meta,
    best_threshold,
    class_thresholds,
)
from swin_dense.host.repairs import repair_hosts


def check_can_save(checkpoint: str | Path, *, segments: bool) -> None:
    """Refuse, before anything runs, what :func:`save_thresholds` could not do at the end.

    Raises:
        UserError: the checkpoint is no local file, or the model is no detector.
    """
    if segments:
        raise UserError(
            "--save-thresholds is for detectors; a label map has no scores to choose from."
        )
    if not Path(checkpoint).is_file():
        raise UserError(
            f"--save-thresholds writes into the checkpoint, and {checkpoint} is no local file. "
            "Download it first."
        )


def save_thresholds(checkpoint: str | Path, run: str | Path) -> dict[str, Any]:
    """Write the thresholds with the best F1 of a run's boxes into a checkpoint; return them.

    They go to ``meta["score_thresholds"]``; all else in the file stays. The predictor and
    ``tools/visualize.py predict`` honour them.

    Args:
        checkpoint: a file that torch saved; it is replaced, whole or not at all.
        run: a work dir with predictions of that checkpoint.

    Raises:
        UserError: nothing was found right, or the file cannot be read or written.
    """
    table = read_run(run).table
    ranking = Ranking.of(table, match(table, table.box_overlaps, (0.5,)))
    overall = best_threshold(ranking.curve(0))
    if overall is None:
        raise UserError(
            "no threshold to save: not one detection was right at an IoU of 0.5. Train longer, or "
            "look at the report for what is wrong."
        )
    names = table.class_names
    meta = as_meta(overall, dict(zip(names, class_thresholds(ranking), strict=True)))
    repair_hosts()  # allows the classes that mmengine's checkpoints hold
    path = Path(checkpoint)
    content = read_checkpoint(path)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(
            f"{path} holds bare weights and has no place for thresholds; expected a checkpoint of "
            "a run, with state_dict and meta. tools/publish_model.py makes one."
        )
    content.setdefault("meta", {})[META_KEY] = meta
    partial = path.with_name(path.name + ".part")
    try:
        torch.save(content, partial)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error}.") from error
    return meta
