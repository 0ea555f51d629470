"""The generated sample data set: the same beach scenes as COCO instances and as ADE20K label maps.

    coco/train2017/*.jpg  coco/val2017/*.jpg  coco/annotations/instances_{train,val}2017.json
    ade/images/{training,validation}/*.jpg    ade/annotations/{training,validation}/*.png
    sample.json                               what it was made from; written last

Masks are what is visible of each object, as run lengths, and agree with the label maps pixel by
pixel. There 0 is unlabeled and 1.. are the classes (``reduce_zero_label=True``). One file stem, one
scene.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from swin_dense.data.sample_ground import STUFF_CLASSES
from swin_dense.data.sample_objects import THING_CLASSES
from swin_dense.data.sample_scene import Scene, paint_scene
from swin_dense.errors import UserError

SEMANTIC_CLASSES = STUFF_CLASSES + THING_CLASSES
CATEGORY_IDS = (3, 7, 12, 18, 25)  # as in COCO, not 1..n: an id taken for an index shows at once
SCENE_VERSION = 1  # raise it when the painter changes, so that old data is made anew
STAMP = "sample.json"

_COCO_SPLITS = {"train": "train2017", "val": "val2017"}
_ADE_SPLITS = {"train": "training", "val": "validation"}
_FIRST_ID = {"train": 1, "val": 100_001}


@dataclass(frozen=True)
class SampleData:
    """Where a sample data set lies, and the names of its classes in index order."""

    root: Path
    coco_root: Path
    ade_root: Path
    thing_classes: tuple[str, ...] = THING_CLASSES
    semantic_classes: tuple[str, ...] = SEMANTIC_CLASSES


def generate_sample_data(
    root: str | Path,
    *,
    num_train: int = 240,
    num_val: int = 60,
    image_hw: tuple[int, int] = (160, 160),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> SampleData:
    """Write the data set to ``root``, unless exactly this one is already there.

    It is built beside ``root`` and moved there when complete: an interrupted call leaves nothing.

    Args:
        root: the folder to make. An earlier sample data set in it is replaced, nothing else.
        num_train: scenes to learn from.
        num_val: held-out scenes, from their own random streams.
        image_hw: height and width in pixels.
        seed: equal arguments give equal data.
        progress: called with (scenes done, scenes in all) after each scene.

    Raises:
        UserError: ``root`` holds something else, or an argument is out of range.
    """
    root = Path(root)
    if num_train < 1 or num_val < 1 or min(image_hw) < 48:
        raise UserError(
            f"sample data needs num_train >= 1, num_val >= 1 and sides of at least 48 px, "
            f"got num_train={num_train}, num_val={num_val}, image_hw={tuple(image_hw)}"
        )
    data = SampleData(root, root / "coco", root / "ade")
    recipe = {
        "version": SCENE_VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "image_hw": list(image_hw),
        "seed": seed,
    }
    if _is_complete(root, recipe):
        return data
    if root.exists() and not root.is_dir():
        raise UserError(f"cannot write sample data to {root}: it is a file, not a folder")
    if root.is_dir() and any(root.iterdir()) and not (root / STAMP).is_file():
        raise UserError(
            f"cannot write sample data to {root}: it holds something else. "
            "Name a new or an empty folder."
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        _write(unfinished, {"train": num_train, "val": num_val}, image_hw, seed, progress)
        (unfinished / STAMP).write_text(json.dumps(recipe, indent=1) + "\n")
        unfinished.chmod(0o755)  # mkdtemp's own mode shuts everybody else out
        if root.exists():
            shutil.rmtree(root)
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return data


def _is_complete(root: Path, recipe: dict[str, Any]) -> bool:
    try:
        if json.loads((root / STAMP).read_text()) != recipe:
            return False
    except (OSError, ValueError):
        return False
    return all(
        len(list(folder.glob(pattern))) == recipe[f"num_{split}"]
        for split in ("train", "val")
        for folder, pattern in (
            (root / "coco" / _COCO_SPLITS[split], "*.jpg"),
            (root / "ade" / "images" / _ADE_SPLITS[split], "*.jpg"),
            (root / "ade" / "annotations" / _ADE_SPLITS[split], "*.png"),
        )
    ) and all(
        (root / "coco" / "annotations" / f"instances_{name}.json").is_file()
        for name in _COCO_SPLITS.values()
    )


def _write(
    root: Path,
    counts: dict[str, int],
    image_hw: tuple[int, int],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    (root / "coco" / "annotations").mkdir(parents=True)
    done, total = 0, sum(counts.values())
    for split_index, (split, count) in enumerate(counts.items()):
        photos = root / "coco" / _COCO_SPLITS[split]
        copies = root / "ade" / "images" / _ADE_SPLITS[split]
        label_maps = root / "ade" / "annotations" / _ADE_SPLITS[split]
        for folder in (photos, copies, label_maps):
            folder.mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            scene = paint_scene(np.random.default_rng([seed, split_index, index]), image_hw)
            image_id = _FIRST_ID[split] + index
            stem = f"{image_id:012d}"
            _write_image(photos / f"{stem}.jpg", scene.image_rgb[..., ::-1])
            shutil.copyfile(photos / f"{stem}.jpg", copies / f"{stem}.jpg")
            _write_image(label_maps / f"{stem}.png", semantic_label_map(scene))
            images.append(
                {
                    "id": image_id,
                    "file_name": f"{stem}.jpg",
                    "height": image_hw[0],
                    "width": image_hw[1],
                }
            )
            annotations += _coco_annotations(scene, image_id, first_id=len(annotations) + 1)
            done += 1
            if progress is not None:
                progress(done, total)
        categories = [
            {"id": category_id, "name": name, "supercategory": "beach"}
            for category_id, name in zip(CATEGORY_IDS, THING_CLASSES, strict=True)
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        target = root / "coco" / "annotations" / f"instances_{_COCO_SPLITS[split]}.json"
        target.write_text(json.dumps(content))


def semantic_label_map(scene: Scene) -> NDArray[np.uint8]:
    """Return the ``(H, W)`` label map: 0 unlabeled, then stuff, then things, in class order."""
    labels = scene.ground_map + 1
    owned = scene.instance_map >= 0
    thing = np.array(scene.classes, np.int32)[scene.instance_map[owned]]
    labels[owned] = thing + 1 + len(STUFF_CLASSES)
    return labels.astype(np.uint8)


def _coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    annotations = []
    for index, class_index in enumerate(scene.classes):
        mask = scene.instance_map == index
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        left, top = int(columns[0]), int(rows[0])
        annotations.append(
            {
                "id": first_id + index,
                "image_id": image_id,
                "category_id": CATEGORY_IDS[class_index],
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
            }
        )
    return annotations


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths of an ``(H, W)`` mask: down the columns, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(n) for n in np.diff(np.concatenate([[0], starts, [mask.size]]))]


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    encoded, buffer = cv2.imencode(path.suffix, image, options)
    assert encoded
    path.write_bytes(buffer.tobytes())
