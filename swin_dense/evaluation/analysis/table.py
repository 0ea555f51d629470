"""Annotations and detections of a data set as flat arrays, and their overlaps.

Boxes are left, top, right, bottom in pixels. Letters: I images; K classes; N detections; M
annotations; D and G those of one image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

from swin_dense.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_DETECTIONS = 100
"""Detections an image and class that count, best first, as in COCO's main metric."""


@dataclass(frozen=True, eq=False)
class Instances:
    """Objects of all images, those of one image together, in the order of the images.

    Attributes:
        image: (N,) index of the image.
        label: (N,) index of the class.
        boxes_xyxy: (N, 4).
        score: (N,) in 0..1, falling inside an image; ones for annotations.
        crowd: (N,) whether it marks a group that evaluation passes over; False for detections.
        masks: compact run lengths, one each, or None.
    """

    image: Ints
    label: Ints
    boxes_xyxy: Floats
    score: Floats
    crowd: Bools
    masks: tuple[Mapping[str, Any], ...] | None = None

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, image: int) -> slice:
        """Return where the instances of an image stand."""
        first, last = np.searchsorted(self.image, [image, image + 1])
        return slice(int(first), int(last))


@dataclass(frozen=True, eq=False)
class DetectionTable:
    """A data set's annotations (``truth``) beside what was detected (``found``).

    Attributes:
        image_ids: (I,) as in the annotation file, rising.
        image_hw: (I, 2) in pixels.
        class_names: by index, (K,).
        truth: the annotations.
        found: the detections, best first inside an image.
    """

    image_ids: Ints
    image_hw: Ints
    class_names: tuple[str, ...]
    truth: Instances
    found: Instances

    @property
    def has_masks(self) -> bool:
        """Whether both sides have masks."""
        return self.truth.masks is not None and self.found.masks is not None

    @cached_property
    def box_overlaps(self) -> list[Floats]:
        """IoU of boxes, an array (D, G) an image; with a crowd, the share of the detection."""
        return [self._overlap(index, boxes=True) for index in range(len(self.image_ids))]

    @cached_property
    def mask_overlaps(self) -> list[Floats]:
        """IoU of masks, an array (D, G) an image; with a crowd, the share of the detection."""
        return [self._overlap(index, boxes=False) for index in range(len(self.image_ids))]

    def overlaps(self, kind: str) -> list[Floats]:
        """Return :attr:`box_overlaps` for "bbox" and :attr:`mask_overlaps` for "segm"."""
        return self.mask_overlaps if kind == "segm" else self.box_overlaps

    def _overlap(self, image: int, *, boxes: bool) -> Floats:
        found, truth = self.found.rows(image), self.truth.rows(image)
        shape = (found.stop - found.start, truth.stop - truth.start)
        if 0 in shape:
            return np.zeros(shape)
        crowd = [int(flag) for flag in self.truth.crowd[truth]]
        if boxes:
            pair = (_xywh(self.found.boxes_xyxy[found]), _xywh(self.truth.boxes_xyxy[truth]))
            return np.asarray(coco_masks.iou(*pair, crowd), np.float64)
        assert self.found.masks is not None
        assert self.truth.masks is not None
        masks = (list(self.found.masks[found]), list(self.truth.masks[truth]))
        return np.asarray(coco_masks.iou(*masks, crowd), np.float64)


def from_coco(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    classes: Sequence[str] | None = None,
    image_ids: Sequence[int] | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> DetectionTable:
    """Return the table of a COCO annotation file's content and a COCO result list.

    Args:
        annotations: ``images``, ``annotations`` and ``categories``.
        results: ``image_id``, ``category_id``, ``score``, ``bbox`` (x, y, width, height), and
            ``segmentation`` where there are masks.
        classes: names in index order; the file's own order where it is None.
        image_ids: the images that were predicted; all where it is None.
        max_detections: how many an image and class count, best first.

    Raises:
        UserError: a class that the file has not, or a result for an image that is not there.
    """
    by_name = {entry["name"]: int(entry["id"]) for entry in annotations["categories"]}
    names = tuple(classes) if classes is not None else tuple(by_name)
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UserError(
            f"the predictions have the classes {', '.join(unknown[:5])}, which the annotations "
            f"lack; expected some of {', '.join(list(by_name)[:8])}. Were they made with other "
            "annotations?"
        )
    label_of = {by_name[name]: index for index, name in enumerate(names)}
    sizes = {int(e["id"]): (int(e["height"]), int(e["width"])) for e in annotations["images"]}
    ids = sorted(sizes if image_ids is None else {int(value) for value in image_ids})
    missing = [value for value in ids if value not in sizes]
    if missing:
        raise UserError(
            f"{len(missing)} predicted images, such as id {missing[0]}, are not in the "
            "annotations; expected the annotation file that was evaluated on."
        )
    position = {image_id: index for index, image_id in enumerate(ids)}
    hw = np.array([sizes[image_id] for image_id in ids], np.int64).reshape(-1, 2)
    truth = _collect(annotations["annotations"], position, label_of, hw, truth=True)
    stray = next((r for r in results if int(r["image_id"]) not in position), None)
    if stray is not None:
        raise UserError(
            f"a detection is for image id {stray['image_id']}, which was not evaluated; expected "
            "detections and annotations of one run."
        )
    found = _collect(results, position, label_of, hw, truth=False)
    found = _best(found, len(names), max_detections)
    return DetectionTable(np.array(ids, np.int64), hw, names, truth, found)


def _collect(
    entries: Sequence[Mapping[str, Any]],
    position: Mapping[int, int],
    label_of: Mapping[int, int],
    hw: Ints,
    *,
    truth: bool,
) -> Instances:
    kept = [
        entry
        for entry in entries
        if int(entry["image_id"]) in position and int(entry["category_id"]) in label_of
        if not (truth and entry.get("ignore"))
    ]
    image = np.array([position[int(entry["image_id"])] for entry in kept], np.int64)
    score = np.array([float(entry.get("score", 1.0)) for entry in kept], np.float64)
    order = np.lexsort((-score, image))
    kept = [kept[index] for index in order]
    boxes = np.array([entry["bbox"] for entry in kept], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]  # x, y, width, height -> left, top, right, bottom
    masks = None
    if kept and all(entry.get("segmentation") for entry in kept):
        pairs = zip(kept, image[order], strict=True)
        masks = tuple(run_lengths(entry["segmentation"], *hw[index]) for entry, index in pairs)
    return Instances(
        image=image[order],
        label=np.array([label_of[int(entry["category_id"])] for entry in kept], np.int64),
        boxes_xyxy=boxes,
        score=score[order],
        crowd=np.array([bool(entry.get("iscrowd", 0)) for entry in kept], np.bool_),
        masks=masks,
    )


def _best(found: Instances, num_classes: int, limit: int) -> Instances:
    """Keep the best ``limit`` detections of each class in each image."""
    group = found.image * num_classes + found.label
    order = np.argsort(group, kind="stable")
    ranks = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    keep = np.zeros(len(group), np.bool_)
    keep[order] = ranks < limit
    if keep.all():
        return found
    masks = found.masks
    return Instances(
        found.image[keep],
        found.label[keep],
        found.boxes_xyxy[keep],
        found.score[keep],
        found.crowd[keep],
        None if masks is None else tuple(m for m, kept in zip(masks, keep, strict=True) if kept),
    )


def run_lengths(segmentation: Any, height: int, width: int) -> Mapping[str, Any]:
    """Return COCO's polygons, or either kind of its run lengths, as compact run lengths."""
    if isinstance(segmentation, list):
        parts = coco_masks.frPyObjects(segmentation, int(height), int(width))
        return coco_masks.merge(parts)
    if isinstance(segmentation["counts"], list):
        return coco_masks.frPyObjects(segmentation, int(height), int(width))
    return segmentation


def _xywh(boxes_xyxy: Floats) -> Floats:
    boxes = boxes_xyxy.copy()
    boxes[:, 2:] -= boxes[:, :2]
    return boxes
