"""The published rows of ScalableViT: what ``docs/results.md`` shows beside what is counted.

No code of these detectors and segmenters was released. ``OWN_PARAMS`` are those that the released
classifiers give with the hosts' heads: the published S is another S.
"""

from __future__ import annotations

from tests.published import DETECTION_HW, SEGMENTATION_HW, Row

README = "ScalableViT readme"
DROP_PATH = {"s": 0.2, "b": 0.3, "l": 0.3}

MASK = {
    "s": (46.3, 256, {"1x": (45.8, 41.7), "3x": (48.7, 43.6)}),
    "b": (94.9, 349, {"1x": (46.6, 42.1), "3x": (48.9, 43.6)}),
    "l": (121.4, 477, {"1x": (47.6, 42.9)}),
}
RETINANET = {
    "s": (36.4, 238, {"1x": 45.2, "3x": 47.8}),
    "b": (85.6, 330, {"1x": 45.8, "3x": 48.0}),
    "l": (112.6, 457, {"1x": 46.8}),
}
SEM_FPN = {"s": (30.4, 174, 44.9), "b": (79.0, 270, 48.4), "l": (105.5, 402, 49.4)}
UPERNET = {
    "s": (56.5, 931, (48.5, 49.4)),
    "b": (107.0, 1029, (49.5, 50.4)),
    "l": (135.5, 1162, (49.7, 50.7)),
}
OWN_PARAMS = {
    "mask_rcnn": {"s": 45.95, "b": 94.90, "l": 121.38},
    "retinanet": {"s": 36.03, "b": 85.56, "l": 112.63},
    "sem_fpn": {"s": 30.04, "b": 79.00, "l": 105.48},
    "upernet": {"s": 56.10, "b": 107.05, "l": 135.52},
}


def _row(config: str, size: str, model: str, result: str, params: float, macs: float) -> Row:
    """Return a row; ``config`` has a brace where the backbone's name stands, as ``model`` has."""
    family = config.partition("/")[0]
    return Row(
        config=config.format(f"scalablevit_{size}"),
        model=model.format(f"ScalableViT-{size.upper()}"),
        input_hw=SEGMENTATION_HW if "ade20k" in config else DETECTION_HW,
        source=README,
        result=result,
        params=params,
        macs=macs,
        window=7,
        drop_path=DROP_PATH[size],
        own_params=OWN_PARAMS[family][size],
        macs_leave_out_attention=True,
    )


def _rows() -> list[Row]:
    rows = []
    for size, (params, macs, results) in MASK.items():
        for length, (box, mask) in results.items():
            config = f"mask_rcnn/mask_rcnn_{{}}_fpn_{length}_coco.py"
            result = f"box AP {box}, mask AP {mask}"
            rows.append(_row(config, size, f"Mask R-CNN, {{}}, {length}", result, params, macs))
    for size, (params, macs, boxes) in RETINANET.items():
        for length, box in boxes.items():
            config = f"retinanet/retinanet_{{}}_fpn_{length}_coco.py"
            model = f"RetinaNet, {{}}, {length}"
            rows.append(_row(config, size, model, f"box AP {box}", params, macs))
    for size, (params, macs, miou) in SEM_FPN.items():
        config = "sem_fpn/fpn_{}_4xb4_80k_ade20k_512x512.py"
        rows.append(_row(config, size, "Semantic FPN, {}, 80k", f"mIoU {miou}", params, macs))
    for size, (params, macs, (one, many)) in UPERNET.items():
        config = "upernet/upernet_{}_8xb2_160k_ade20k_512x512.py"
        result = f"mIoU {one}, with flips and scales {many}"
        rows.append(_row(config, size, "UperNet, {}, crop 512", result, params, macs))
    return rows


SCALABLE_VIT_ROWS = _rows()
