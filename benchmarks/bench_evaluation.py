"""Time COCO mAP by each back end, and mIoU by one confusion matrix against mmseg's own way.

    python benchmarks/bench_evaluation.py [--images 2000] [--rounds 3] [--out benchmarks/results]

mAP: random data, 100 detections a picture, from annotations and results in memory to the twelve
figures. All back ends must agree on every entry of precision and recall before a time is written.
A ratio is the time of pycocotools (or mmseg) over ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.evaluation.coco_backends import BACKENDS
from swin_dense.evaluation.coco_scores import score
from swin_dense.evaluation.confusion import Confusion

IMAGE_HW = (480, 640)


def main() -> None:
    """Measure, print, write ``evaluation.json`` and ``evaluation.md``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--mask-images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    rows = [
        *measure_coco("bbox", options.images, options.rounds),
        *measure_coco("segm", options.mask_images, options.rounds),
        *measure_miou(max(9, options.rounds)),
    ]
    packages = ["numpy", "pycocotools", "hotcoco", "mmsegmentation"]
    record = dict(
        date=date.today().isoformat(),
        machine=f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        load=round(os.getloadavg()[0], 1),
        threads=os.environ.get("OMP_NUM_THREADS", "all"),
        packages={name: version(name) for name in packages if _installed(name)},
        rows=rows,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "evaluation.json").write_text(json.dumps(record, indent=2) + "\n")
    page = to_markdown(record)
    (options.out / "evaluation.md").write_text(page)
    print(page)


def random_coco(
    images: int, detections: int, *, masks: bool = False, num_classes: int = 80, seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a data set and results: half of the detections lie near an object.

    Scores have three digits, so that many tie; one object in twenty is a crowd.
    """
    generator = np.random.default_rng(seed)
    height, width = IMAGE_HW
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    entries = [
        dict(id=n + 1, height=height, width=width, file_name=f"{n}.jpg") for n in range(images)
    ]
    for image_id in range(1, images + 1):
        count = int(generator.integers(0, 15))
        objects = _random_boxes(generator, count)
        labels = generator.integers(1, num_classes + 1, count)
        for box, label in zip(objects, labels, strict=True):
            annotation = _entry(image_id, label, box, masks=masks)
            annotation |= dict(id=len(annotations) + 1, iscrowd=int(generator.random() < 0.05))
            annotations.append(annotation | dict(area=float(box[2] * box[3])))
        boxes = _random_boxes(generator, detections)
        classes = generator.integers(1, num_classes + 1, detections)
        if count:
            near = generator.random(detections) < 0.5
            which = generator.integers(0, count, detections)
            moved = objects[which] * (1 + generator.normal(0, 0.1, (detections, 4)))
            boxes = np.where(near[:, None], moved, boxes)
            classes = np.where(near, labels[which], classes)
        for box, label in zip(boxes, classes, strict=True):
            found = _entry(image_id, label, np.maximum(box, 1.0), masks=masks)
            results.append(found | dict(score=float(np.round(generator.random(), 3))))
    categories = [dict(id=n, name=f"class {n}") for n in range(1, num_classes + 1)]
    return dict(images=entries, annotations=annotations, categories=categories), results


def measure_coco(iou_type: str, images: int, rounds: int) -> list[dict[str, Any]]:
    """Time every installed back end on the same data; the reference runs once."""
    annotations, results = random_coco(images, 100, masks=iou_type == "segm")
    seconds: dict[str, float] = {}
    answers = {}
    for name in sorted(BACKENDS, key=lambda each: each != "pycocotools"):
        if find_spec(name) is None:
            continue

        def run(name: str = name) -> None:
            answers[name] = score(annotations, results, iou_type=iou_type, backend=name)

        run() if name != "pycocotools" else None  # imports are not what is measured
        seconds[name] = _median_seconds(run, 1 if name == "pycocotools" else rounds)
    reference = answers["pycocotools"]
    for name, answer in answers.items():
        assert np.array_equal(answer.precision, reference.precision), name
        assert np.array_equal(answer.recall, reference.recall), name
        assert answer.stats() == reference.stats(), name
    case = f"{'box' if iou_type == 'bbox' else 'mask'} mAP, {images} images x 100 detections"
    return [_row(case, name, own, seconds["pycocotools"]) for name, own in seconds.items()]


def measure_miou(rounds: int) -> list[dict[str, Any]]:
    """Time one 512 x 683 picture of 150 classes."""
    import torch
    from mmseg.evaluation import IoUMetric

    generator = np.random.default_rng(0)
    true = generator.integers(0, 150, (64, 86)).repeat(8, 0).repeat(8, 1)[:512, :683]
    predicted = np.where(generator.random(true.shape) < 0.8, true, (true + 1) % 150)
    true = np.where(generator.random(true.shape) < 0.05, 255, true)
    tensors = torch.from_numpy(predicted), torch.from_numpy(true)
    confusion = Confusion(150)
    confusion.update(predicted, true)
    theirs = IoUMetric.intersect_and_union(*tensors, 150, 255)
    assert np.array_equal(np.diagonal(confusion.counts), theirs[0].numpy())
    own_s, their_s = [], []
    for _ in range(rounds):  # in turns
        own_s.append(_median_seconds(lambda: confusion.update(predicted, true), 1))
        their_s.append(
            _median_seconds(lambda: IoUMetric.intersect_and_union(*tensors, 150, 255), 1)
        )
    case = "mIoU, one 512 x 683 image, 150 classes"
    reference = statistics.median(their_s)
    return [
        _row(case, "mmseg", reference, reference),
        _row(case, "one confusion matrix", statistics.median(own_s), reference),
    ]


def to_markdown(record: dict[str, Any]) -> str:
    """Return the page of one record."""
    packages = ", ".join(f"{name} {number}" for name, number in record["packages"].items())
    lines = [
        "# Evaluation: time to the figures",
        "",
        f"`python benchmarks/bench_evaluation.py`, {record['date']}, {record['machine']}, threads: "
        f"{record['threads']}, load {record['load']} at the end; {packages}.",
        "",
        "All back ends of a case agree on every entry of precision and recall, to the last bit.",
        "",
        "| Case | By | Seconds | Times as fast as the reference |",
        "|---|---|---:|---:|",
    ]
    lines += [
        f"| {row['case']} | {row['by']} | {row['seconds']:.4g} | {row['ratio']:.1f} |"
        for row in record["rows"]
    ]
    return "\n".join(lines) + "\n"


def _random_boxes(generator: np.random.Generator, count: int) -> Any:
    """Return (count, 4) left, top, width, height within the picture, sides from 6 to 400 px."""
    sides = np.exp(generator.uniform(np.log(6), np.log(400), (count, 2)))
    corners = generator.uniform(0, 1, (count, 2)) * (np.array(IMAGE_HW[::-1]) - sides)
    return np.concatenate([corners, sides], axis=1)


def _entry(image_id: int, label: Any, box: Any, *, masks: bool) -> dict[str, Any]:
    left, top, width, height = map(float, box)
    entry: dict[str, Any] = dict(
        image_id=image_id, category_id=int(label), bbox=[left, top, width, height]
    )
    if masks:
        from pycocotools import mask as coco_mask

        right, bottom, middle = left + width, top + height, top + 0.3 * height
        outline = [[left, top, right, middle, right, bottom, left, bottom]]
        rle = coco_mask.frPyObjects(outline, *IMAGE_HW)[0]
        entry["segmentation"] = rle | dict(counts=rle["counts"].decode())
    return entry


def _row(case: str, by: str, seconds: float, reference: float) -> dict[str, Any]:
    return dict(case=case, by=by, seconds=round(seconds, 6), ratio=round(reference / seconds, 1))


def _median_seconds(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _installed(name: str) -> bool:
    try:
        version(name)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()
