"""The published rows of Focal Transformer: what ``docs/results.md`` shows beside what is counted.

No code of these detectors and segmenters was released. Their readme rounds parameters to millions;
``OWN_PARAMS`` are those of our models, worked out in ``tests/test_configs_focal_scalable.py``.
"""

from __future__ import annotations

from tests.published import DETECTION_HW, SEGMENTATION_HW, Row

README = "Focal readme"
DROP_PATH = {"1x": {"t": 0.2, "s": 0.2, "b": 0.3}, "3x": {"t": 0.3, "s": 0.5, "b": 0.5}}

MASK = {
    "t": (49, 291, {"1x": (44.8, 41.0), "3x": (47.2, 42.7)}),
    "s": (71, 401, {"1x": (47.4, 42.8), "3x": (48.8, 43.8)}),
    "b": (110, 533, {"1x": (47.8, 43.2), "3x": (49.0, 43.7)}),
}
RETINANET = {
    "t": (39, 265, {"1x": 43.7, "3x": 45.5}),
    "s": (62, 367, {"1x": 45.6, "3x": 47.3}),
    "b": (101, 514, {"1x": 46.3, "3x": 46.9}),
}
UPERNET = {
    "t": (62, 998, (45.8, 47.0)),
    "s": (85, 1130, (48.0, 50.0)),
    "b": (126, 1354, (49.0, 50.5)),
}
OWN_PARAMS = {
    "mask_rcnn": {"t": 48.70, "s": 70.96, "b": 109.60},
    "retinanet": {"t": 39.36, "s": 61.62, "b": 100.85},
    "cascade_mask_rcnn": {"t": 86.53},
    "upernet": {"t": 60.84, "s": 83.11, "b": 123.74},
}


def _detector(
    family: str, title: str, size: str, length: str, result: str, cost: tuple[int, int]
) -> Row:
    return Row(
        config=f"{family}/{family}_focal_{size}_fpn_{length}_coco.py",
        model=f"{title}, Focal-{size.upper()}, {length}",
        input_hw=DETECTION_HW,
        source=README,
        result=result,
        params=cost[0],
        macs=cost[1],
        window=7,
        drop_path=DROP_PATH[length][size],
        own_params=OWN_PARAMS[family][size],
        macs_within=0.07,
    )


def _rows() -> list[Row]:
    rows = []
    for size, (params, macs, results) in MASK.items():
        for length, (box, mask) in results.items():
            result = f"box AP {box}, mask AP {mask}"
            rows.append(_detector("mask_rcnn", "Mask R-CNN", size, length, result, (params, macs)))
    result, cost = "box AP 51.5", (87, 770)
    rows.append(_detector("cascade_mask_rcnn", "Cascade Mask R-CNN", "t", "3x", result, cost))
    for size, (params, macs, boxes) in RETINANET.items():
        for length, box in boxes.items():
            cost = (params, macs)
            rows.append(_detector("retinanet", "RetinaNet", size, length, f"box AP {box}", cost))
    for size, (params, macs, (miou, with_scales)) in UPERNET.items():
        rows.append(
            Row(
                config=f"upernet/upernet_focal_{size}_8xb2_160k_ade20k_512x512.py",
                model=f"UperNet, Focal-{size.upper()}, crop 512",
                input_hw=SEGMENTATION_HW,
                source=README,
                result=f"mIoU {miou}, with flips and scales {with_scales}",
                params=params,
                macs=macs,
                window=7,
                drop_path=0.3,
                own_params=OWN_PARAMS["upernet"][size],
                macs_within=0.11,
            )
        )
    return rows


FOCAL_ROWS = _rows()
