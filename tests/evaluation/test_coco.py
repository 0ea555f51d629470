"""Our evaluation path against the figures that the COCO API publishes for its own example."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from swin_dense.host.repairs import repair_hosts

PUBLISHED = {
    "mAP": 0.505, "mAP_50": 0.697, "mAP_75": 0.573, "mAP_s": 0.586, "mAP_m": 0.519, "mAP_l": 0.501,
    "AR@100": 0.595,
}  # fmt: skip


def test_the_published_box_ap_of_the_coco_api_is_reproduced(shared_data: Path) -> None:
    repair_hosts()
    from mmdet.evaluation import CocoMetric

    folder = shared_data / "coco_eval"
    annotations = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    names = {category["id"]: category["name"] for category in annotations["categories"]}
    # the classes in another order than the file's, as a config may have them
    classes = sorted(names.values())
    label_of = {category_id: classes.index(name) for category_id, name in names.items()}
    metric = CocoMetric(
        ann_file=str(folder / "instances_val2014_100.json"),
        metric="bbox",
        metric_items=["mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l", "AR@100"],
    )
    metric.dataset_meta = dict(classes=classes)
    for image in annotations["images"]:
        own = [result for result in results if result["image_id"] == image["id"]]
        boxes = np.array([result["bbox"] for result in own], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        prediction = dict(
            bboxes=torch.from_numpy(boxes),
            scores=torch.tensor([result["score"] for result in own], dtype=torch.float64),
            labels=torch.tensor(
                [label_of[result["category_id"]] for result in own], dtype=torch.int64
            ),
        )
        shape = (image["height"], image["width"])
        metric.process({}, [dict(img_id=image["id"], ori_shape=shape, pred_instances=prediction)])
    figures = metric.evaluate(size=len(annotations["images"]))
    for name, published in PUBLISHED.items():
        if name != "AR@100":
            assert figures[f"coco/bbox_{name}"] == pytest.approx(published, abs=5e-4), name
    assert figures["coco/bbox_AR@100"] == pytest.approx(PUBLISHED["AR@100"], abs=5e-4)
