"""Annotations that look wrong: where a confident prediction and the annotation disagree.

Each is a question to a person, not a verdict. Letters: H, W a picture; M annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from swin_dense.evaluation.analysis.error_kinds import (
    BACKGROUND,
    CLASSIFICATION,
    ErrorKinds,
)
from swin_dense.evaluation.analysis.table import DetectionTable, Floats

REASONS = ("not annotated", "other class", "annotated twice")


@dataclass(frozen=True)
class Suspect:
    """A place in a picture where the annotation is doubtful.

    Attributes:
        image: index of the picture.
        reason: one of ``REASONS``.
        box_xyxy: where, in pixels.
        annotated: index of the annotated class; -1 where nothing is annotated.
        predicted: index of the predicted class, or of the other annotation's.
        weight: 0..1, how strongly it speaks against the annotation.
    """

    image: int
    reason: str
    box_xyxy: tuple[float, float, float, float]
    annotated: int
    predicted: int
    weight: float


def suspect_boxes(
    table: DetectionTable,
    overlaps: Sequence[Floats],
    kinds: ErrorKinds,
    *,
    least_score: float = 0.5,
    same_place: float = 0.7,
    twice: float = 0.9,
) -> list[Suspect]:
    """Return doubtful annotations of a detection data set, the most doubtful first.

    Args:
        table: the data set.
        overlaps: an array (D, G) an image.
        kinds: from :func:`~swin_dense.evaluation.analysis.error_kinds.error_kinds`.
        least_score: how sure a detection must be.
        same_place: least IoU of a detection and an annotation of another class.
        twice: least IoU of two annotations that may mean one object.
    """
    suspects = []
    sure = table.found.score >= least_score
    renamed = (kinds.kind == CLASSIFICATION) & (kinds.overlap >= same_place)
    for row in np.flatnonzero(sure & ((kinds.kind == BACKGROUND) | renamed)):
        target = int(kinds.target[row])
        lone = kinds.kind[row] == BACKGROUND
        if not lone and not kinds.unfound[target]:  # its own class was found there as well
            continue
        box = table.found.boxes_xyxy[row] if lone else table.truth.boxes_xyxy[target]
        suspects.append(
            Suspect(
                int(table.found.image[row]),
                REASONS[0] if lone else REASONS[1],
                _box(box),
                -1 if lone else int(table.truth.label[target]),
                int(table.found.label[row]),
                float(table.found.score[row]),
            )
        )
    for image in range(len(overlaps)):
        suspects += _annotated_twice(table, image, twice)
    return sorted(suspects, key=lambda suspect: -suspect.weight)


def suspect_regions(
    image: int,
    labels: NDArray[np.generic],
    prediction: NDArray[np.generic],
    class_iou: Floats,
    *,
    ignore_index: int = 255,
    least_share: float = 0.005,
    agreement: float = 0.9,
    least_iou: float = 0.5,
) -> list[Suspect]:
    """Return annotated regions of one picture that are predicted whole as another, trusted class.

    Args:
        image: index of the picture.
        labels: (H, W) annotated classes.
        prediction: (H, W) predicted classes.
        class_iou: (K,) over the data set: how far a class is to be trusted.
        ignore_index: the label of pixels without a class.
        least_share: of the picture that a region must cover.
        agreement: share of the region that must have the same other class.
        least_iou: both classes must be known that well elsewhere.
    """
    truth, found = labels.astype(np.int64), prediction.astype(np.int64)
    suspects = []
    for label in np.unique(truth[truth != found]):
        if label == ignore_index or not 0 <= label < len(class_iou):
            continue
        if not class_iou[label] >= least_iou:
            continue
        number, regions, stats, _ = cv2.connectedComponentsWithStats(
            (truth == label).astype(np.uint8), connectivity=8
        )
        for region in range(1, number):
            left, top, width, height, area = (int(value) for value in stats[region])
            if area < least_share * truth.size:
                continue
            names, counts = np.unique(found[regions == region], return_counts=True)
            other, share = int(names[counts.argmax()]), float(counts.max() / area)
            known = 0 <= other < len(class_iou) and class_iou[other] >= least_iou
            if other != label and share >= agreement and known:
                box = (float(left), float(top), float(left + width), float(top + height))
                weight = share * float(min(class_iou[label], class_iou[other]))
                suspects.append(Suspect(image, REASONS[1], box, int(label), other, weight))
    return suspects


def _annotated_twice(table: DetectionTable, image: int, least_iou: float) -> list[Suspect]:
    rows = table.truth.rows(image)
    boxes = table.truth.boxes_xyxy[rows]
    wanted = ~table.truth.crowd[rows]
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    iou = both / np.maximum(area[:, None] + area[None] - both, 1e-9)
    pairs = np.argwhere(np.triu(iou >= least_iou, 1) & wanted[:, None] & wanted[None])
    labels = table.truth.label[rows]
    return [
        Suspect(image, REASONS[2], _box(boxes[a]), int(labels[a]), int(labels[b]), float(iou[a, b]))
        for a, b in pairs
    ]


def _box(values: Floats) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in values)
    return left, top, right, bottom
