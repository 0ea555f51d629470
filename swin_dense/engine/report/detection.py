"""A detector's analysis as the page takes it: plain lists, places in thousandths of the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_masks

from swin_dense.engine.report.runs import SavedRun
from swin_dense.errors import UserError
from swin_dense.evaluation.analysis.detection import DetectionAnalysis, not_found
from swin_dense.evaluation.analysis.error_kinds import KINDS
from swin_dense.evaluation.analysis.ranking import RECALLS, mean_over_classes
from swin_dense.evaluation.analysis.suspects import suspect_boxes
from swin_dense.evaluation.analysis.table import Instances
from swin_dense.visualization.report.shots import (
    outline,
    read_photo,
    small_size,
    write_outlines,
    write_photo,
)

MOST_MARKS = 125_000
"""Boxes that the page holds in all, annotations first, so that it stays small for many pictures."""

_STEPS = np.linspace(0, 1, 101)
_HEAT_CLASSES = 24
_TEXTS = {
    "classification": "The right place under another class's name.",
    "localisation": "The right class, overlapping its object by less than half.",
    "both": "Another class, and not well placed either.",
    "duplicate": "A second detection of an object that is found already.",
    "background": "Nothing of the kind is annotated there.",
    "missed": "Objects that no detection found, not even under a wrong name or badly placed.",
}
KIND_LABELS = {"bbox": "Boxes", "segm": "Masks"}


def view_of(analysis: DetectionAnalysis) -> dict[str, Any]:
    """Return everything of the page but its pictures, for boxes or for masks."""
    table, ranking = analysis.table, analysis.ranking
    names = table.class_names
    asked = np.bincount(table.truth.label[~table.truth.crowd], minlength=len(names))
    curves = [
        ranking.curve(0, label).at_recalls() if asked[label] else None
        for label in range(len(names))
    ]
    strict = [ranking.curve(5, label).at_recalls() for label in range(len(names)) if asked[label]]
    known = [curve for curve in curves if curve is not None]
    pooled = ranking.curve(0)
    kept = np.searchsorted(-pooled.score, -_STEPS, side="right")  # how many score that or more
    precision = np.append(1.0, pooled.precision)[kept]
    recall = np.append(0.0, pooled.recall)[kept]
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    nothing = np.zeros(len(RECALLS))
    reliability = analysis.calibration
    return {
        "key": analysis.kind,
        "label": KIND_LABELS[analysis.kind],
        "curves": {
            "recall": RECALLS.round(2),
            "all": np.round(np.mean(known, axis=0), 4) if known else nothing,
            "strict": np.round(np.mean(strict, axis=0), 4) if strict else nothing,
            "classes": [None if curve is None else curve.round(3) for curve in curves],
        },
        "scores": {
            "steps": _STEPS.round(2),
            "precision": np.where(kept > 0, precision, np.nan).round(4),
            "recall": recall.round(4),
            "f1": f1.round(4),
        },
        "threshold": analysis.threshold
        and {
            "score": round(analysis.threshold.score, 4),
            "f1": analysis.threshold.f1,
            "precision": analysis.threshold.precision,
            "recall": analysis.threshold.recall,
        },
        "table": _class_table(analysis, asked),
        "errors": [
            {
                "name": name,
                "text": text,
                "cost": 100 * analysis.costs[name],
                "count": analysis.counts[name],
            }
            for name, text in _TEXTS.items()
        ],
        "costLabel": "Cost in AP50",
        "countLabel": f"Count at score {analysis.least_score:.2f}",
        "confusion": confusion_of(
            analysis.confusion,
            [*names, "background"],
            unit="Count",
            note=f"Detections that score {analysis.least_score:.2f} or more, at an IoU of 0.5. "
            "Each row adds up to 100 %.",
        ),
        "calibration": {
            "count": reliability.count.astype(int),
            "confidence": reliability.confidence.round(4),
            "accuracy": reliability.accuracy.round(4),
        },
    }


def tiles_of(
    analyses: Sequence[DetectionAnalysis],
    metrics: Mapping[str, float],
    previous: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Return the figures at the head of the page, each with that of the last evaluation."""
    tiles = []
    for analysis in analyses:
        noun = "Box" if analysis.kind == "bbox" else "Mask"
        ours = {
            "mAP": analysis.mean_ap,
            "mAP_50": analysis.ap50,
            "mAP_75": mean_over_classes(analysis.average_precision[5]),
        }
        labels = {"mAP": f"{noun} AP", "mAP_50": f"{noun} AP50", "mAP_75": f"{noun} AP75"}
        for name, value in ours.items():
            key = f"coco/{analysis.kind}_{name}"
            before = previous.get(key)
            tiles.append(
                {
                    "label": labels[name],
                    "value": 100 * metrics.get(key, value),
                    "previous": None if before is None else 100 * before,
                    "digits": 1,
                    "hint": f"{key}, in percent",
                }
            )
    first = analyses[0]
    if first.threshold is not None:
        best = first.threshold
        note = f"at score {best.score:.2f}: P {best.precision:.2f}, R {best.recall:.2f}"
        tiles.append({"label": "Best F1", "value": 100 * best.f1, "digits": 1, "note": note})
    return tiles


def doubts_of(analysis: DetectionAnalysis, limit: int = 200) -> list[dict[str, Any]]:
    """Return the annotations that look wrong, the most doubtful first."""
    table = analysis.table
    names = table.class_names
    least = max(0.5, analysis.least_score)
    found = suspect_boxes(table, table.overlaps(analysis.kind), analysis.kinds, least_score=least)
    texts = {
        "not annotated": lambda s: f"not annotated: {names[s.predicted]}?",
        "other class": lambda s: f"{names[s.annotated]}, or {names[s.predicted]}?",
        "annotated twice": lambda s: (
            f"{names[s.annotated]} and {names[s.predicted]} in one place"
            if s.annotated != s.predicted
            else f"{names[s.annotated]} annotated twice"
        ),
    }
    return [
        {
            "image": suspect.image,
            "box": _thousandths(np.array([suspect.box_xyxy]), table.image_hw[suspect.image])[0],
            "text": texts[suspect.reason](suspect),
            "weight": round(suspect.weight, 3),
        }
        for suspect in found[:limit]
    ]


def pictures_of(
    runs: Sequence[SavedRun],
    analyses: Sequence[DetectionAnalysis],
    folder: Path,
    tick: Callable[[int, int], None],
) -> tuple[list[dict[str, Any]], int]:
    """Write the pictures beside the page; return their entries and how many photographs lack.

    Args:
        runs: one run, or two on the same images.
        analyses: of each.
        folder: where the pictures go.
        tick: called with (pictures done, pictures in all).
    """
    table = analyses[0].table
    entries = {int(entry.id): entry for entry in runs[0].images}
    room = (MOST_MARKS - len(table.truth)) / max(1, len(entries) * len(runs))
    most = int(np.clip(room, 5, 60))
    f1 = [analysis.image_f1 for analysis in analyses]
    lost = [
        not_found(analysis.table, analysis.matches, analysis.least_score) for analysis in analyses
    ]
    result, absent = [], 0
    for index, image_id in enumerate(table.image_ids.tolist()):
        entry = entries[image_id]
        hw = (int(table.image_hw[index][0]), int(table.image_hw[index][1]))
        stem = f"{index:06d}"
        try:
            write_photo(folder / f"{stem}.jpg", read_photo(runs[0].photo(entry), hw))
        except UserError:
            absent += 1
        truth = table.truth.rows(index)
        kept = [_shown(analysis, index, most) for analysis in analyses]
        states = [
            np.where(table.truth.crowd[truth], 2, lost[run][truth]) for run in range(len(runs))
        ]
        if all(analysis.table.has_masks for analysis in analyses):
            write_outlines(
                folder / f"{stem}.js",
                _outlines(table.truth, range(truth.start, truth.stop)),
                [
                    _outlines(analysis.table.found, rows)
                    for analysis, rows in zip(analyses, kept, strict=True)
                ],
            )
        height, width = small_size(hw)
        result.append(
            {
                "n": runs[0].shown_name(entry),
                "u": stem,
                "w": width,
                "h": height,
                "size": [hw[1], hw[0]],
                "t": _flat(table.truth.label[truth, None],
                           _thousandths(table.truth.boxes_xyxy[truth], hw)),
                "r": [
                    {
                        "q": round(1000 * float(f1[run][index])),
                        "n": analysis.image_counts[index],
                        "s": states[run].astype(int),
                        "d": _marks(analysis, kept[run], hw),
                    }
                    for run, analysis in enumerate(analyses)
                ],
            }
        )  # fmt: skip
        tick(index + 1, len(entries))
    return result, absent


def confusion_of(
    counts: np.ndarray[Any, Any], names: Sequence[str], *, unit: str, note: str
) -> dict[str, Any]:
    """Return a confusion matrix as the page draws it: of many classes the most confused ones."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    last = len(names) - 1 if names[-1] == "background" else None
    shown = np.arange(len(names))
    if len(names) > _HEAT_CLASSES + 1:
        weight = wrong.sum(axis=0) + wrong.sum(axis=1)
        if last is not None:
            weight = wrong[:last, :last].sum(axis=0) + wrong[:last, :last].sum(axis=1)
        shown = np.sort(np.argsort(-weight, kind="stable")[:_HEAT_CLASSES])
        shown = shown if last is None else np.append(shown, last)
        note = f"The {_HEAT_CLASSES} classes that are confused most. {note}"
    pairs = wrong if last is None else wrong[:last, :last]
    order = np.argsort(-pairs, axis=None, kind="stable")[:60]
    rows, columns = np.unravel_index(order, pairs.shape)
    asked = counts.sum(axis=1)
    return {
        "rows": [names[int(index)] for index in shown],
        "columns": [names[int(index)] for index in shown],
        "counts": counts[np.ix_(shown, shown)],
        "rowName": "annotated",
        "columnName": "predicted",
        "unit": unit,
        "note": note,
        "pairs": [
            [names[int(row)], names[int(column)], int(pairs[row, column]),
             100 * float(pairs[row, column]) / max(1, int(asked[row]))]
            for row, column in zip(rows, columns, strict=True)
            if pairs[row, column]
        ],
    }  # fmt: skip


def _class_table(analysis: DetectionAnalysis, asked: np.ndarray[Any, Any]) -> dict[str, Any]:
    ap = 100 * analysis.average_precision
    rows = []
    for label, name in enumerate(analysis.table.class_names):
        best = analysis.class_thresholds[label]
        whole = float(np.mean(ap[:, label]))
        rows.append(
            [name, int(asked[label]), whole, float(ap[0, label]), float(ap[5, label]),
             best and best.score, best and 100 * best.f1, best and 100 * best.precision,
             best and 100 * best.recall]
        )  # fmt: skip
    columns: list[dict[str, Any]] = [
        {"label": "Class"},
        {"label": "Objects", "digits": 0, "hint": "annotated, without crowds"},
        {"label": "AP", "digits": 1, "meter": 100, "hint": "mean over IoU 0.50 to 0.95"},
        {"label": "AP50", "digits": 1},
        {"label": "AP75", "digits": 1},
        {"label": "Best threshold", "digits": 2, "hint": "the score with the best F1"},
        {"label": "F1", "digits": 1, "hint": "at that threshold, IoU 0.5"},
        {"label": "Precision", "digits": 1, "hint": "at that threshold, IoU 0.5"},
        {"label": "Recall", "digits": 1, "hint": "at that threshold, IoU 0.5"},
    ]
    return {"columns": columns, "rows": rows, "first": 2, "falling": True}


def _shown(analysis: DetectionAnalysis, image: int, most: int) -> np.ndarray[Any, Any]:
    """Return the rows of an image's detections that the page holds, best first."""
    rows = analysis.table.found.rows(image)
    kept = np.arange(rows.start, rows.stop)[:most]
    floor = min(0.05, analysis.least_score / 2)
    return kept[analysis.table.found.score[kept] >= floor]


def _marks(
    analysis: DetectionAnalysis, rows: np.ndarray[Any, Any], hw: tuple[int, int]
) -> list[int]:
    found, kinds = analysis.table.found, analysis.kinds
    columns = [
        found.label[rows],
        np.rint(1000 * found.score[rows]),
        np.where(kinds.kind[rows] < 0, len(KINDS), kinds.kind[rows]),
        np.rint(1000 * kinds.overlap[rows]),
    ]
    return _flat(np.stack(columns, axis=1), _thousandths(found.boxes_xyxy[rows], hw))


def _flat(*columns: np.ndarray[Any, Any]) -> list[int]:
    values = np.concatenate([np.asarray(part, np.int64) for part in columns], axis=1)
    return [int(value) for value in values.ravel()]


def _thousandths(boxes_xyxy: Any, image_hw: Any) -> Any:
    """Return (N, 4) x, y, width, height in thousandths of the picture, clipped to it."""
    height, width = (int(side) for side in image_hw)
    scale = np.array([1000 / width, 1000 / height] * 2)
    boxes = np.clip(np.asarray(boxes_xyxy, np.float64).reshape(-1, 4) * scale, 0, 1000)
    boxes[:, 2:] -= boxes[:, :2]
    return np.rint(boxes).astype(np.int64)


def _outlines(side: Instances, rows: Any) -> list[list[list[int]]]:
    assert side.masks is not None
    decoded = (coco_masks.decode([dict(side.masks[int(row)])])[..., 0] for row in rows)
    return [outline(mask) for mask in decoded]
