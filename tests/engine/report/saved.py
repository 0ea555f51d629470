"""Folders of predictions made from the generated sample data by known mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_masks

from swin_dense.data.sample import SEMANTIC_CLASSES, THING_CLASSES, SampleData, generate_sample_data
from swin_dense.evaluation.analysis.table import run_lengths


def sample(root: Path, num_val: int = 12, image_hw: tuple[int, int] = (160, 160)) -> SampleData:
    return generate_sample_data(root, num_train=1, num_val=num_val, image_hw=image_hw)


def save_detection(data: SampleData, work_dir: Path, *, skill: float = 0.8, seed: int = 0) -> Path:
    """Write a detector's predictions on the validation set; ``skill`` 1 finds nearly all."""
    rng = np.random.default_rng(seed)
    path = data.coco_root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    categories = [entry["id"] for entry in content["categories"]]
    results: list[dict[str, Any]] = []
    for entry in content["annotations"]:
        size = entry["segmentation"]["size"]
        mask = np.asarray(coco_masks.decode([run_lengths(entry["segmentation"], *size)]))[..., 0]
        for twin in range(2):
            luck = rng.random()
            if luck > (skill + 0.1 if twin == 0 else 0.12):
                continue
            reach = max(
                1, int((1.2 - skill) * np.sqrt(entry["area"]) * rng.choice([0.1, 0.3, 1.2]))
            )
            moved = _shift(mask, *rng.integers(-reach, reach + 1, 2))
            if not moved.any():
                continue
            category = entry["category_id"]
            if rng.random() > skill + 0.1:
                category = int(rng.choice(categories))
            score = float(np.clip(rng.normal(0.75 - 0.3 * twin, 0.18), 0.06, 0.99))
            results.append(_result(entry["image_id"], category, moved, score))
    for image in content["images"]:
        for _ in range(rng.poisson(1.6 * (1.1 - skill))):
            mask = np.zeros((image["height"], image["width"]), np.uint8)
            center = (int(rng.integers(20, image["width"] - 20)),
                      int(rng.integers(20, image["height"] - 20)))  # fmt: skip
            axes = (int(rng.integers(6, 18)), int(rng.integers(6, 18)))
            cv2.ellipse(mask, center, axes, 0, 0, 360, 1, -1)
            score = float(np.clip(rng.normal(0.4, 0.2), 0.06, 0.97))
            results.append(_result(image["id"], int(rng.choice(categories)), mask, score))
    folder = work_dir / "predictions"
    folder.mkdir(parents=True)
    (folder / "detections.json").write_text(json.dumps(results))
    index = dict(
        format=1, task="detection", classes=list(THING_CLASSES), palette=None,
        config="configs/mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py",
        checkpoint="work_dirs/beach/epoch_12.pth", created="2026-11-21T09:30:00",
        annotations=str(path), image_root=str(data.coco_root / "val2017"),
        images=[
            dict(id=image["id"], file=image["file_name"], height=image["height"],
                 width=image["width"])
            for image in content["images"]
        ],
    )  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index))
    return work_dir


def save_segmentation(
    data: SampleData, work_dir: Path, *, shift_px: int = 3, seed: int = 0
) -> Path:
    """Write a segmenter's predictions: borders off by ``shift_px``, some segments lost."""
    rng = np.random.default_rng(seed)
    folder = work_dir / "predictions"
    (folder / "labels").mkdir(parents=True)
    images = []
    truth_folder = data.ade_root / "annotations" / "validation"
    for path in sorted(truth_folder.glob("*.png")):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        found = np.where(labels == 0, 1, labels) - 1
        offset = rng.integers(-shift_px, shift_px + 1, 2)
        found = _shift(found, *offset, border=cv2.BORDER_REPLICATE)
        for label in np.unique(found):
            if label >= len(SEMANTIC_CLASSES) - len(THING_CLASSES) and rng.random() < 0.25:
                found[found == label] = int(rng.integers(0, len(SEMANTIC_CLASSES)))
        if rng.random() < 0.5:
            top, left = rng.integers(0, np.array(found.shape) - 40)
            found[top : top + 30, left : left + 40] = int(rng.integers(0, 3))
        cv2.imwrite(str(folder / "labels" / path.name), found.astype(np.uint8))
        images.append(
            dict(id=path.stem, file=f"{path.stem}.jpg", height=labels.shape[0],
                 width=labels.shape[1], labels=str(path), prediction=f"labels/{path.name}")
        )  # fmt: skip
    confidence = (np.arange(100) + 0.5) / 100
    count = (4 + 9000 * confidence**9).astype(int)
    correct = (count * confidence**1.25).astype(int)
    np.savez(folder / "calibration.npz", n=count, correct=correct)
    index = dict(
        format=1, task="segmentation", classes=list(SEMANTIC_CLASSES), palette=None,
        config="configs/upernet/upernet_swin_t_p4_w7_8xb2_160k_ade20k_512x512.py",
        checkpoint="work_dirs/beach/iter_160000.pth", created="2026-11-21T09:30:00",
        annotations=None, image_root=str(data.ade_root / "images" / "validation"),
        reduce_zero_label=True, ignore_index=255, images=images,
    )  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index))
    return work_dir


def _shift(image: np.ndarray, down: int, right: int, border: int = 0) -> np.ndarray:
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
    size = (image.shape[1], image.shape[0])
    return cv2.warpAffine(
        image.astype(np.uint8), matrix, size, flags=cv2.INTER_NEAREST, borderMode=border
    )


def _result(image_id: int, category: int, mask: np.ndarray, score: float) -> dict[str, Any]:
    runs = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    box = [float(value) for value in coco_masks.toBbox([runs])[0]]
    text = {"size": list(runs["size"]), "counts": runs["counts"].decode()}
    return dict(image_id=image_id, category_id=category, bbox=box, score=score, segmentation=text)
