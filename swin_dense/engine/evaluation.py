"""Swap the hosts' metrics for ours in a config, and evaluate predictions from the disk again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict

from swin_dense.engine.config import host_of, leaf_datasets
from swin_dense.errors import UserError
from swin_dense.evaluation.coco_metric import CocoMetric
from swin_dense.evaluation.iou_metric import IoUMetric
from swin_dense.evaluation.predictions import (
    DetectionPredictions,
    SegmentationPredictions,
    load_predictions,
)

_OWN = {"mmdet": {"CocoMetric": "swin_dense.CocoMetric"},
        "mmseg": {"IoUMetric": "swin_dense.IoUMetric"}}  # fmt: skip
PREDICTIONS = "predictions"


def use_own_metrics(cfg: Config, split: str, *, predictions: bool = False) -> list[str]:
    """Give the metrics of ``split`` our types, in place; return a line for the log for each.

    Only the hosts' ``CocoMetric`` and ``IoUMetric`` are swapped, and a ``CocoMetric`` without
    ``ann_file`` is left: it measures against the data set itself.

    Args:
        cfg: a whole config.
        split: "val" or "test".
        predictions: leave the predictions in ``<work_dir>/predictions``.
    """
    evaluators = cfg.get(f"{split}_evaluator")
    if evaluators is None:
        return []
    host = host_of(cfg)
    several = isinstance(evaluators, list | tuple)
    metrics = list(evaluators) if several else [evaluators]
    notes, written = [], False
    for place, metric in enumerate(metrics):
        kind = str(metric.get("type", ""))
        own = _OWN[host].get(kind.removeprefix(f"{host}."))
        if kind in _OWN[host].values():
            own = kind
        if own is None or (host == "mmdet" and not metric.get("ann_file")):
            continue
        metrics[place] = metric = ConfigDict(metric)
        if kind != own:
            metric.type = own
            notes.append(f"{split}: {own} measures in place of {kind}; the names stay")
        if predictions and not written:
            written = True
            metric.setdefault("predictions_dir", str(Path(cfg.work_dir) / PREDICTIONS))
            metric.setdefault("run", _run_fields(cfg, split))
    # not back into the config's own list: configs share one evaluator between val and test
    cfg[f"{split}_evaluator"] = metrics if several else metrics[0]
    return notes


def evaluate_predictions(cfg: Config, folder: str | Path) -> dict[str, float]:
    """Measure a predictions folder with the config's test metric: no model, no pictures needed.

    Raises:
        UserError: the folder is not whole, is of the other task, or the config has no metric of
            ours for it.
    """
    predictions = load_predictions(folder)
    use_own_metrics(cfg, "test")
    evaluators: Any = cfg.get("test_evaluator") or []
    for options in evaluators if isinstance(evaluators, list | tuple) else [evaluators]:
        kwargs = {key: value for key, value in options.items() if key != "type"}
        if options.get("type") == "swin_dense.CocoMetric":
            if not isinstance(predictions, DetectionPredictions):
                raise UserError(f"{folder} holds label maps, and the config is a detector's.")
            coco = CocoMetric(**kwargs)
            coco.dataset_meta = dict(classes=predictions.run.classes)
            figures = coco.measure(predictions.results)
            return {f"{coco.prefix}/{name}": value for name, value in figures.items()}
        if options.get("type") == "swin_dense.IoUMetric":
            if not isinstance(predictions, SegmentationPredictions):
                raise UserError(f"{folder} holds detections, and the config is a segmenter's.")
            return _evaluate_label_maps(IoUMetric(**kwargs), predictions)
    raise UserError(
        "the config's test_evaluator has neither CocoMetric (with ann_file) nor IoUMetric; "
        "predictions from the disk are measured by these two alone."
    )


def _evaluate_label_maps(
    metric: IoUMetric, predictions: SegmentationPredictions
) -> dict[str, float]:
    metric.dataset_meta = dict(classes=predictions.run.classes)
    for image in predictions.images:
        true = predictions.ground_truth(image)
        if true is None:
            raise UserError(
                f"{image.file} was predicted without ground truth: there is nothing to measure."
            )
        predicted = predictions.prediction(image).astype(np.int64)
        maps = dict(pred_sem_seg=dict(data=predicted), gt_sem_seg=dict(data=true))
        metric.process({}, [maps | dict(img_path=image.file)])
    return metric.evaluate(len(predictions.images))


def _run_fields(cfg: Config, split: str) -> dict[str, str]:
    roots = []
    loader = cfg.get(f"{split}_dataloader")
    for leaf in leaf_datasets(loader["dataset"]) if loader else []:
        prefix = leaf.get("data_prefix") or {}
        below = (
            prefix.get("img", prefix.get("img_path")) or "" if isinstance(prefix, Mapping) else ""
        )
        roots.append(os.path.abspath(os.path.join(leaf.get("data_root") or "", below)))
    return dict(
        config=str(cfg.filename or ""),
        checkpoint=str(cfg.get("load_from") or ""),
        image_root=os.path.commonpath(roots) if roots else "",
    )
