"""The published rows of PVT v1 and v2: what ``docs/results.md`` shows beside what is counted."""

from __future__ import annotations

from tests.published import DETECTION_HW, SEGMENTATION_HW, Row

SIZES = ("t", "s", "m", "l", "b0", "b1", "b2_li", "b2", "b3", "b4", "b5")
DETECTION, SEGMENTATION = "official detection code", "official segmentation code"
PAPER = "PVT v2 paper"

RETINANET = (36.7, 40.4, 41.9, 42.6, 37.2, 41.2, 43.6, 44.6, 45.9, 46.1, 46.2)
MASK = (
    (36.7, 35.1), (40.4, 37.8), (42.0, 39.0), (42.9, 39.5), (38.2, 36.2), (41.8, 38.8),
    (44.1, 40.5), (45.3, 41.2), (47.0, 42.5), (47.5, 42.7), (47.4, 42.5),
)  # fmt: skip
SEM_FPN = (36.6, 41.9, 43.5, 43.5, 37.2, 42.5, 45.1, 45.2, 47.3, 47.9, 48.7)

COUNTS = {
    "retinanet": (22.96, 34.22, 53.94, 71.10, 12.95, 23.75, 32.29, 35.10, 54.98, 72.29, 91.69),
    "mask_rcnn": (32.88, 44.14, 63.86, 81.02, 23.45, 33.66, 42.21, 45.02, 64.89, 82.21, 101.61),
    "sem_fpn": (16.98, 28.24, 47.96, 65.12, 7.55, 17.76, 26.31, 29.12, 48.99, 66.31, 85.71),
}
"""Parameters in millions of the official code's models."""


def drop_path(size: str, task: str) -> float:
    """Return the rate of the last block: the detection code leaves it out of v1's larger sizes."""
    return 0.0 if size in ("m", "l") and task == "detection" else 0.1


def _row(config: str, size: str, model: str, result: str, params: float) -> Row:
    """Return a row; ``config`` has a brace where the backbone's name stands, as ``model`` has."""
    task = "segmentation" if config.startswith("sem_fpn") else "detection"
    is_v2 = size.startswith("b")
    return Row(
        config=config.format(f"pvtv2_{size}" if is_v2 else f"pvt_{size}"),
        model=model.format(
            f"PVT v2 B{size[1:].replace('_', '-')}" if is_v2 else f"PVT-{size.upper()}"
        ),
        input_hw=DETECTION_HW if task == "detection" else SEGMENTATION_HW,
        source=DETECTION if task == "detection" else PAPER if is_v2 else SEGMENTATION,
        result=result,
        params=params,
        macs=None,
        window=None,
        drop_path=drop_path(size, task),
    )


def _rows() -> list[Row]:
    retinanet, mask = (
        "retinanet/retinanet_{}_fpn_1x_coco.py",
        "mask_rcnn/mask_rcnn_{}_fpn_{}_coco.py",
    )
    cascade = "cascade_mask_rcnn/cascade_mask_rcnn_{}_fpn_3x_coco.py"
    semantic = "sem_fpn/fpn_{}_8xb4_40k_ade20k_512x512.py"
    rows = []
    for size, ap, params in zip(SIZES, RETINANET, COUNTS["retinanet"], strict=True):
        rows.append(_row(retinanet, size, "RetinaNet, {}, 1x", f"box AP {ap}", params))
    once = mask.format("{}", "1x")
    for size, (box, masks), params in zip(SIZES, MASK, COUNTS["mask_rcnn"], strict=True):
        result = f"box AP {box}, mask AP {masks}"
        rows.append(_row(once, size, "Mask R-CNN, {}, 1x", result, params))
    thrice = mask.format("{}", "3x")
    for config, size, model, result, params in (
        (thrice, "b0", "Mask R-CNN, {}, 3x", "box AP 41.6, mask AP 38.2", 23.45),
        (thrice, "b2", "Mask R-CNN, {}, 3x", "box AP 47.8, mask AP 43.1", 45.02),
        (cascade, "b2_li", "Cascade Mask R-CNN, {}, 3x", "box AP 50.9, mask AP 44.0", 80.04),
        (cascade, "b2", "Cascade Mask R-CNN, {}, 3x", "box AP 51.1, mask AP 44.4", 82.85),
    ):
        rows.append(_row(config, size, model, result, params))
    for size, miou, params in zip(SIZES, SEM_FPN, COUNTS["sem_fpn"], strict=True):
        rows.append(_row(semantic, size, "Semantic FPN, {}, 40k", f"mIoU {miou}", params))
    return rows


PVT_ROWS = _rows()
