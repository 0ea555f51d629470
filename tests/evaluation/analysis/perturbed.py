"""Detections made from annotations by known mistakes, and hand-made tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swin_dense.evaluation.analysis.table import DetectionTable, from_coco


def perturb(annotations: Mapping[str, Any], *, seed: int = 0) -> list[dict[str, Any]]:
    """Return COCO results: most annotations found, some moved, renamed, doubled, some made up."""
    rng = np.random.default_rng(seed)
    categories = [entry["id"] for entry in annotations["categories"]]
    results = []
    for entry in annotations["annotations"]:
        x, y, width, height = entry["bbox"]
        for _ in range(rng.choice(3, p=[0.15, 0.65, 0.2])):
            spread = rng.choice([0.02, 0.12, 0.4])
            dx, dy, dw, dh = rng.normal(0, spread, 4)
            category = entry["category_id"] if rng.random() < 0.8 else int(rng.choice(categories))
            box = [x + dx * width, y + dy * height, width * np.exp(dw), height * np.exp(dh)]
            results.append(_result(entry["image_id"], category, box, rng.random()))
    for image in annotations["images"]:
        for _ in range(rng.poisson(1.5)):
            corner = rng.random(2) * [image["width"] / 2, image["height"] / 2]
            box = [*corner, *(rng.random(2) * 100 + 10)]
            results.append(_result(image["id"], int(rng.choice(categories)), box, rng.random() / 2))
    return results


def _result(image: int, category: int, box: Sequence[float], score: float) -> dict[str, Any]:
    numbers = [float(value) for value in box]
    return dict(image_id=image, category_id=category, bbox=numbers, score=float(score))


def table_of(
    truth: Sequence[tuple[int, int, Sequence[float]]],
    found: Sequence[tuple[int, int, Sequence[float], float]],
    *,
    classes: Sequence[str] = ("cat", "dog"),
    images: int = 1,
    crowd: Sequence[int] = (),
) -> DetectionTable:
    """Return a table of (image, class, box) and (image, class, box, score), x1 y1 x2 y2."""
    content = dict(
        images=[dict(id=index, height=1000, width=1000) for index in range(images)],
        categories=[dict(id=10 + index, name=name) for index, name in enumerate(classes)],
        annotations=[
            dict(
                id=1 + index,
                image_id=image,
                category_id=10 + label,
                bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]],
                iscrowd=int(index in crowd),
            )
            for index, (image, label, box) in enumerate(truth)
        ],
    )
    results = [
        _result(image, 10 + label, [box[0], box[1], box[2] - box[0], box[3] - box[1]], score)
        for image, label, box, score in found
    ]
    return from_coco(content, results)
