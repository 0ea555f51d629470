"""A segmenter's analysis as the page takes it.

Letters: I images; K classes; H, W a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.engine.report.detection import confusion_of
from swin_dense.engine.report.runs import SavedRun
from swin_dense.errors import UserError
from swin_dense.evaluation.analysis.calibration import Reliability
from swin_dense.evaluation.analysis.segmentation import (
    PIXEL_KINDS,
    PixelCounts,
    count_pixels,
    pixel_kinds,
    total,
)
from swin_dense.evaluation.analysis.suspects import Suspect, suspect_regions
from swin_dense.evaluation.analysis.table import Floats
from swin_dense.visualization.report.shots import (
    PIXEL_COLORS,
    read_photo,
    small_size,
    write_grids,
    write_overlay,
    write_photo,
)

_TEXTS = {
    "boundary": "Within a few pixels of a border between annotated classes.",
    "missed": "In annotated segments of which less than a tenth is right.",
    "partial": "Part of a segment, away from its border, taken for something else.",
}


@dataclass(frozen=True, eq=False)
class SegmentationAnalysis:
    """What is known of a segmenter.

    Attributes:
        class_names: by index, (K,).
        counts: over all pictures.
        per_image: (I, 3, K) pixels in both, predicted, annotated.
        image_kinds: (I, 3) the share of a picture's pixels that is wrong in each way.
    """

    class_names: tuple[str, ...]
    counts: PixelCounts
    per_image: Floats
    image_kinds: Floats

    @property
    def mean_iou(self) -> float:
        """MIoU over all pictures, 0..1."""
        return float(np.nanmean(self.counts.iou))

    @property
    def image_iou(self) -> Floats:
        """(I,) mean IoU over the classes that a picture has or is given; 1 without any."""
        both, found, truth = (self.per_image[:, part] for part in range(3))
        union = found + truth - both
        iou = np.divide(both, union, out=np.full_like(both, np.nan), where=union > 0)
        known = (~np.isnan(iou)).sum(axis=1)
        result = np.nansum(iou, axis=1) / np.maximum(known, 1)
        return np.asarray(np.where(known > 0, result, 1.0), np.float64)


def analyse_segmentation(
    run: SavedRun, tick: Callable[[int, int], None] = lambda done, of: None
) -> SegmentationAnalysis:
    """Return the analysis of a run's label maps.

    Args:
        run: a segmentation run.
        tick: called with (pictures done, pictures in all).
    """
    names, images = run.class_names, run.images
    whole = total([], len(names))
    per_image = np.zeros((len(images), 3, len(names)))
    shares = np.zeros((len(images), len(PIXEL_KINDS)))
    for index, entry in enumerate(images):
        counts = count_pixels(*run.label_maps(entry), len(names), run.ignore_index)
        whole = total([whole, counts], len(names))
        per_image[index] = counts.per_class
        shares[index] = counts.wrong.sum(axis=(1, 2)) / max(1, counts.confusion.sum())
        tick(index + 1, len(images))
    return SegmentationAnalysis(names, whole, per_image, shares)


def view_of(analysis: SegmentationAnalysis, calibration: Reliability | None) -> dict[str, Any]:
    """Return everything of the page but its pictures."""
    counts = analysis.counts
    costs, pixels = counts.costs(), counts.counts()
    every = max(1, int(counts.confusion.sum()))
    annotated = counts.confusion.sum(axis=1)
    rows = [
        [name, 100 * float(annotated[label]) / every,
         *(100 * float(values[label]) for values in (counts.iou, counts.recall, counts.precision))]
        for label, name in enumerate(analysis.class_names)
    ]  # fmt: skip
    columns: list[dict[str, Any]] = [
        {"label": "Class"},
        {"label": "Pixels, %", "digits": 2, "hint": "share of the annotated pixels"},
        {"label": "IoU", "digits": 1, "meter": 100},
        {"label": "Accuracy", "digits": 1, "hint": "share of the class's pixels that is found"},
        {"label": "Precision", "digits": 1, "hint": "share of the pixels given it that have it"},
    ]
    view = {
        "key": "miou",
        "label": "Pixels",
        "table": {"columns": columns, "rows": rows, "first": 2, "falling": True},
        "errors": [
            {
                "name": name,
                "text": text,
                "cost": 100 * costs[name],
                "count": 100 * pixels[name] / every,
            }
            for name, text in _TEXTS.items()
        ],
        "costLabel": "Cost in mIoU",
        "countLabel": "Share of pixels",
        "countShare": True,
        "confusion": confusion_of(
            counts.confusion,
            analysis.class_names,
            unit="Pixels",
            note="Each row adds up to 100 %.",
        ),
    }
    if calibration is not None:
        view["calibration"] = {
            "count": calibration.count.astype(int),
            "confidence": calibration.confidence.round(4),
            "accuracy": calibration.accuracy.round(4),
        }
    return view


def tiles_of(
    analysis: SegmentationAnalysis, metrics: Mapping[str, float], previous: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return the figures at the head of the page, each with that of the last evaluation."""
    counts = analysis.counts
    ours = {
        "mIoU": analysis.mean_iou,
        "mAcc": float(np.nanmean(counts.recall)),
        "aAcc": counts.accuracy,
    }
    hints = {
        "mIoU": "mean IoU of the classes",
        "mAcc": "mean share of a class's pixels that is found",
        "aAcc": "share of all pixels that is right",
    }
    return [
        {
            "label": name,
            "value": metrics.get(name, 100 * value),
            "previous": previous.get(name),
            "digits": 2,
            "hint": f"{hints[name]}, in percent",
        }
        for name, value in ours.items()
    ]


def pictures_of(
    runs: Sequence[SavedRun],
    analyses: Sequence[SegmentationAnalysis],
    folder: Path,
    tick: Callable[[int, int], None],
) -> tuple[list[dict[str, Any]], list[Suspect], int]:
    """Write the pictures beside the page; return entries, doubtful regions, missing photographs.

    Args:
        runs: one run, or two on the same images.
        analyses: of each.
        folder: where the pictures go.
        tick: called with (pictures done, pictures in all).
    """
    result: list[dict[str, Any]] = []
    doubts: list[Suspect] = []
    absent = 0
    ious = [analysis.image_iou for analysis in analyses]
    images = runs[0].images
    others = [{entry.id: entry for entry in run.images} for run in runs]
    for index, entry in enumerate(images):
        stem = f"{index:06d}"
        hw = (entry.height, entry.width)
        height, width = small_size(hw)
        try:
            write_photo(folder / f"{stem}.jpg", read_photo(runs[0].photo(entry), hw))
        except UserError:
            absent += 1
        parts, maps = [], []
        for number, run in enumerate(runs):
            truth, found = run.label_maps(others[number][entry.id])
            counted = (truth != run.ignore_index) & (truth >= 0) & (truth < len(run.class_names))
            if number == 0:
                annotated = np.where(counted, truth, -1)
                write_overlay(folder / f"{stem}_t.png", annotated, run.colors)
                doubts += suspect_regions(
                    index, truth, found, analyses[0].counts.iou, ignore_index=run.ignore_index
                )
            write_overlay(folder / f"{stem}_{number}.png", found, run.colors)
            maps.append(found)
            if len(runs) == 1:
                kinds = pixel_kinds(truth, found, counted)
                write_overlay(folder / f"{stem}_{number}e.png", kinds, PIXEL_COLORS)
            parts.append(
                {
                    "q": round(1000 * float(ious[number][index])),
                    "k": np.rint(1000 * analyses[number].image_kinds[index]).astype(int),
                    "c": _classes(analyses[number].per_image[index]),
                }
            )
        write_grids(folder / f"{stem}.js", annotated, maps)
        result.append(
            {
                "n": runs[0].shown_name(entry),
                "u": stem,
                "w": width,
                "h": height,
                "size": [hw[1], hw[0]],
                "r": parts,
            }
        )
        tick(index + 1, len(images))
    return result, sorted(doubts, key=lambda doubt: -doubt.weight), absent


def doubts_of(
    suspects: Sequence[Suspect],
    names: Sequence[str],
    images: Sequence[Mapping[str, Any]],
    limit: int = 200,
) -> list[dict[str, Any]]:
    """Return doubtful regions as the page takes them."""
    result = []
    for suspect in suspects[:limit]:
        width, height = images[suspect.image]["size"]
        left, top, right, bottom = suspect.box_xyxy
        box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        result.append(
            {
                "image": suspect.image,
                "box": [round(1000 * value) for value in box],
                "text": f"{names[suspect.annotated]}, or {names[suspect.predicted]}?",
                "weight": round(suspect.weight, 3),
            }
        )
    return result


def _classes(counts: Floats) -> list[int]:
    """Return class, annotated and predicted share of the picture, IoU, in thousandths, flat."""
    both, found, truth = counts
    union = found + truth - both
    every = max(1.0, float(truth.sum()))
    flat: list[int] = []
    for label in np.flatnonzero(union > 0):
        values = (truth[label] / every, found[label] / every, both[label] / union[label])
        flat += [int(label), *(round(1000 * float(value)) for value in values)]
    return flat
