"""COCO's figures from annotations and results: AP, AR, by size and by class.

Source: https://cocodataset.org/#detection-eval and the definitions of pycocotools' ``summarize``.
Where nothing was to be found a figure is -1, as there.

Letters: T IoU thresholds; R recall points; K categories; A areas (all, small, medium, large);
M limits on detections per picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swin_dense.errors import UserError, did_you_mean
from swin_dense.evaluation.coco_backends import BACKENDS, Question, choose_backend

IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
AREAS = ("", "s", "m", "l")


@dataclass(frozen=True, eq=False)
class CocoScores:
    """What one evaluation found.

    Attributes:
        precision: (T, R, K, A, M), -1 where nothing was to be found.
        recall: (T, K, A, M).
        question: what was asked.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    question: Question

    def average_precision(
        self,
        *,
        iou: float | None = None,
        area: str = "",
        limit: int | None = None,
        category: int | None = None,
    ) -> float:
        """Return AP as a share of 1, or -1.

        Args:
            iou: one threshold; None averages over all.
            area: "", "s", "m" or "l".
            limit: detections per picture; None is the largest.
            category: an index into the question's categories; None averages over all.
        """
        values = self.precision[:, :, :, AREAS.index(area), self._limit(limit)]
        return _mean_of_known(_pick(values, self.question.iou_thresholds, iou, category, axis=2))

    def average_recall(self, *, area: str = "", limit: int | None = None) -> float:
        """Return AR over all thresholds and categories as a share of 1, or -1."""
        return _mean_of_known(self.recall[:, :, AREAS.index(area), self._limit(limit)])

    def stats(self) -> dict[str, float]:
        """Return the twelve figures of pycocotools' summary, by the names mmdet gives them."""
        limits = self.question.max_detections
        # pycocotools' summary takes AP at 100 detections, and all that follow at the largest limit
        first = 100 if 100 in limits else limits[-1]
        figures = {"mAP": self.average_precision(limit=first)}
        for iou in (0.5, 0.75):
            known = any(np.isclose(iou, self.question.iou_thresholds))
            figures[f"mAP_{iou * 100:.0f}"] = self.average_precision(iou=iou) if known else -1.0
        figures |= {f"mAP_{area}": self.average_precision(area=area) for area in AREAS[1:]}
        figures |= {f"AR@{limit}": self.average_recall(limit=limit) for limit in limits}
        for area in AREAS[1:]:
            figures[f"AR_{area}@{limits[-1]}"] = self.average_recall(area=area)
        return figures

    def _limit(self, limit: int | None) -> int:
        return -1 if limit is None else self.question.max_detections.index(limit)


def score(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    iou_type: str = "bbox",
    category_ids: Sequence[int] | None = None,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    max_detections: Sequence[int] = (100, 300, 1000),
    use_categories: bool = True,
    backend: str = "auto",
) -> CocoScores:
    """Measure COCO results against a COCO data set.

    Args:
        annotations: as :func:`read_annotations` returns them.
        results: COCO results; none at all is an answer too: 0 wherever there was something to find.
        iou_type: "bbox" or "segm".
        category_ids: those that count, in the order wanted; None takes the file's.
        iou_thresholds, max_detections, use_categories: as in :class:`.coco_backends.Question`.
        backend: "auto", "hotcoco" or "pycocotools".

    Raises:
        UserError: no such back end, or masks are asked for that one of the two sides has not.
    """
    wanted = list(category_ids or [category["id"] for category in annotations["categories"]])
    question = Question(
        iou_type,
        tuple(sorted(wanted)),
        tuple(sorted(image["id"] for image in annotations["images"])),
        tuple(map(float, np.atleast_1d(iou_thresholds))),
        tuple(sorted(max_detections)),
        use_categories,
    )
    backend = choose_backend(backend)
    if not all(isinstance(image_id, int) for image_id in question.image_ids):
        backend = "pycocotools"  # which takes any name for an id
    if iou_type == "segm":
        _check_masks(annotations, results)
        # with a box at hand the API would take the box's area for the mask's
        results = [{k: v for k, v in result.items() if k != "bbox"} for result in results]
    empty = not results
    if empty:
        # the API refuses an empty list: one detection of no use is asked for, and then taken out
        results = [_useless(annotations, iou_type, question)]
    precision, recall = BACKENDS[backend](annotations, results, question)
    if empty:
        precision, recall = np.where(precision > 0, 0.0, precision), np.minimum(recall, 0.0)
    if use_categories:
        order = [question.category_ids.index(category_id) for category_id in wanted]
        precision, recall = precision[:, :, order], recall[:, order]
    return CocoScores(precision, recall, replace(question, category_ids=tuple(wanted)))


def read_annotations(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Return a COCO data set with the fields that every annotation needs.

    ``iscrowd`` is 0 where it is missing, and ``area`` that of the box.

    Raises:
        UserError: no such file, no COCO data set, or one without images or categories.
    """
    name = "the annotations" if isinstance(source, Mapping) else str(source)
    content: Any = source
    if not isinstance(source, Mapping):
        try:
            content = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{name} does not read as a COCO annotation file: {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{name} holds a {type(content).__name__}; expected a COCO data set.")
    for key in ("images", "categories"):
        if not content.get(key):
            raise UserError(
                f"{name} has no {key}: there is nothing to measure on. Expected a COCO annotation "
                "file with images, categories and annotations."
            )
    annotations = []
    for place, annotation in enumerate(content.get("annotations") or []):
        if any(key not in annotation for key in ("image_id", "category_id", "bbox")):
            raise UserError(f"{name}: annotation {place} lacks one of image_id, category_id, bbox.")
        entry = dict(annotation)
        entry.setdefault("id", place + 1)
        entry.setdefault("iscrowd", 0)
        entry.setdefault("area", entry["bbox"][2] * entry["bbox"][3])
        annotations.append(entry)
    return dict(content, annotations=annotations)


def category_ids_of(annotations: Mapping[str, Any], classes: Sequence[str]) -> list[int]:
    """Return the annotation file's ids of ``classes``, bound by name, in their order.

    Raises:
        UserError: the file lacks some.
    """
    by_name: dict[str, int] = {}
    for category in annotations["categories"]:
        by_name.setdefault(category["name"], category["id"])
    unknown = [name for name in classes if name not in by_name]
    if unknown:
        raise UserError(
            f"{len(unknown)} of the {len(classes)} classes of the config are not in the annotation "
            f"file: {', '.join(map(repr, unknown[:5]))}{did_you_mean(unknown[0], by_name)}. The "
            f"file has {', '.join(list(by_name)[:8])}."
        )
    return [by_name[name] for name in classes]


def _pick(
    values: NDArray[np.float64],
    thresholds: tuple[float, ...],
    iou: float | None,
    category: int | None,
    *,
    axis: int,
) -> NDArray[np.float64]:
    if iou is not None:
        values = values[np.isclose(iou, thresholds)]
    return values if category is None else np.take(values, [category], axis=axis)


def _mean_of_known(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(np.mean(known)) if known.size else -1.0


def _check_masks(annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    for side, entries in (("annotation", annotations["annotations"]), ("prediction", results)):
        for entry in entries:
            if not entry.get("segmentation"):
                raise UserError(
                    f"mask AP was asked for, but the {side} of image {entry['image_id']} has no "
                    "segmentation. Measure metric='bbox' alone, or use a model and annotations "
                    "with masks."
                )


def _useless(annotations: Mapping[str, Any], iou_type: str, question: Question) -> dict[str, Any]:
    image = annotations["images"][0]
    result = dict(image_id=image["id"], category_id=question.category_ids[0], score=0.0)
    if iou_type == "bbox":
        return result | dict(bbox=[-10.0, -10.0, 1.0, 1.0])
    from pycocotools import mask

    blank = mask.encode(np.zeros((image["height"], image["width"], 1), np.uint8, order="F"))[0]
    return result | dict(segmentation=blank | dict(counts=blank["counts"].decode()))
