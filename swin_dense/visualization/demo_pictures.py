"""The demo's pictures: predictions beside the truth, and the sheet for the README.

Letters: N instances; H, W the picture.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from swin_dense.data.sample import SampleData
from swin_dense.visualization.draw import draw_instances, draw_semantic, save_png, side_by_side
from swin_dense.visualization.images import read_image

Picture = NDArray[np.uint8]

SHEET_TITLES = ("scene", "true instances", "Mask R-CNN", "true classes", "UperNet")
SHEET_SCENES = 4
SCORE_THRESHOLD = 0.5
IGNORED = 255


@dataclass(frozen=True)
class _Instances:
    """Boxes ``(N, 4)``, labels ``(N,)``, masks ``(N, H, W)``; predictions have scores ``(N,)``."""

    boxes_xyxy: NDArray[Any]
    labels: NDArray[Any]
    masks: NDArray[Any]
    scores: NDArray[Any] | None = None


def draw_demo_pictures(
    data: SampleData, *, detections: Path, segmentations: Path, out_dir: Path, count: int
) -> None:
    """Draw the first ``count`` held-out scenes.

    Writes ``pictures/<scene>_instances.png`` and ``pictures/<scene>_classes.png``, truth beside
    prediction, and ``demo.png`` with those that show the most kinds of things.

    Args:
        data: the sample data.
        detections: the detector's predictions as mmdet's DumpDetResults pickles them.
        segmentations: folder with the segmenter's label maps, 1.. for the classes.
        out_dir: where to write.
        count: of scenes.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools talks
        truth = COCO(str(data.coco_root / "annotations" / "instances_val2017.json"))
    with detections.open("rb") as file:
        predicted = {int(item["img_id"]): item["pred_instances"] for item in pickle.load(file)}
    sheet: list[tuple[tuple[int, int], list[Picture]]] = []
    for image in truth.loadImgs(sorted(truth.getImgIds())[:count]):
        stem = Path(image["file_name"]).stem
        photo = read_image(data.coco_root / "val2017" / image["file_name"])
        true_things = _true_instances(truth, image, data)
        found_things = _predicted_instances(predicted[image["id"]], photo.shape[:2])
        true_map = read_label_map(data.ade_root / "annotations" / "validation" / f"{stem}.png")
        found_map = read_label_map(segmentations / f"{stem}.png")
        views = [
            _with_instances(photo, true_things, data),
            _with_instances(photo, found_things, data),
            _with_classes(photo, true_map, data),
            _with_classes(photo, found_map, data),
        ]
        pictures = out_dir / "pictures"
        save_png(
            pictures / f"{stem}_instances.png", side_by_side(views[:2], ["truth", "Mask R-CNN"])
        )
        save_png(pictures / f"{stem}_classes.png", side_by_side(views[2:], ["truth", "UperNet"]))
        enlarged = photo.repeat(2, axis=0).repeat(2, axis=1)
        kinds, things = len(set(true_things.labels.tolist())), len(true_things.labels)
        sheet.append(((-kinds, things), [enlarged, *views]))
    sheet.sort(key=lambda row: row[0])
    save_png(out_dir / "demo.png", _sheet([row for _, row in sheet[:SHEET_SCENES]]))


def read_label_map(path: Path) -> NDArray[np.int64]:
    """Return a label map file as ``(H, W)`` class indices; its 0 becomes :data:`IGNORED`."""
    stored = read_image(path)[..., 0].astype(np.int64)
    return np.where(stored == 0, IGNORED, stored - 1)


def _true_instances(truth: COCO, image: dict[str, Any], data: SampleData) -> _Instances:
    annotations = truth.loadAnns(truth.getAnnIds(image["id"]))
    order = {c["id"]: data.thing_classes.index(c["name"]) for c in truth.dataset["categories"]}
    boxes = np.array([a["bbox"] for a in annotations], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = [truth.annToMask(a) for a in annotations]
    hw = (image["height"], image["width"])
    return _Instances(
        boxes_xyxy=boxes,
        labels=np.array([order[a["category_id"]] for a in annotations], int),
        masks=np.array(masks).reshape(-1, *hw),
    )


def _predicted_instances(predicted: dict[str, Any], image_hw: tuple[int, ...]) -> _Instances:
    masks = [mask_utils.decode(rle) for rle in predicted["masks"]]
    return _Instances(
        boxes_xyxy=np.asarray(predicted["bboxes"], float),
        labels=np.asarray(predicted["labels"], int),
        masks=np.array(masks).reshape(-1, *image_hw[:2]),
        scores=np.asarray(predicted["scores"], float),
    )


def _with_instances(photo: Picture, things: _Instances, data: SampleData) -> Picture:
    """Draw instances in the colours that their classes have in the label maps."""
    first_thing = len(data.semantic_classes) - len(data.thing_classes)
    return draw_instances(
        photo,
        boxes_xyxy=things.boxes_xyxy,
        labels=things.labels + first_thing,
        scores=things.scores,
        masks=things.masks,
        class_names=data.semantic_classes,
        score_threshold=SCORE_THRESHOLD,
    )


def _with_classes(photo: Picture, labels: NDArray[np.int64], data: SampleData) -> Picture:
    return draw_semantic(photo, labels, class_names=data.semantic_classes, ignore_index=IGNORED)


def _sheet(rows: list[list[Picture]]) -> Picture:
    """Lay out one scene a row, with titles over the first."""
    bands = [side_by_side(rows[0], list(SHEET_TITLES)), *(side_by_side(row) for row in rows[1:])]
    gap = np.full((6, bands[0].shape[1], 3), 255, np.uint8)
    pieces = [piece for band in bands for piece in (band, gap)]
    return np.concatenate(pieces[:-1])
