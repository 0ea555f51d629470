"""The published rows of ViTDet, ViT and DeiT: what ``docs/results.md`` shows.

No parameters or FLOPs of these whole models were published by those who released the recipes.
"""

from __future__ import annotations

from tests.published import DETECTION_HW, SEGMENTATION_HW, Row

VITDET = {
    "mask_rcnn": {"b": (51.6, 45.9), "l": (55.5, 49.2), "h": (56.7, "50.2")},
    "cascade_mask_rcnn": {"b": ("54.0", 46.7), "l": (57.6, "50.0"), "h": (58.7, "51.0")},
}
DROP_PATH = {"b": 0.1, "l": 0.4, "h": 0.5}
UPERNET = [
    ("vit_b", "mln", "80k", "47.71, with flips and scales 49.51"),
    ("vit_b", "mln", "160k", "46.75, with flips and scales 48.46"),
    ("vit_b", "ln_mln", "160k", "47.73, with flips and scales 49.95"),
    ("deit_s", "", "80k", "42.96"),
    ("deit_s", "", "160k", "42.87"),
    ("deit_s", "mln", "160k", "43.82"),
    ("deit_s", "ln_mln", "160k", "43.52"),
    ("deit_b", "", "80k", "45.24"),
    ("deit_b", "", "160k", "45.36"),
    ("deit_b", "mln", "160k", "45.46"),
    ("deit_b", "ln_mln", "160k", "45.37"),
]
NECKS = {"": "", "mln": ", MultiLevelNeck", "ln_mln": ", LayerNorm, MultiLevelNeck"}


def _rows() -> list[Row]:
    rows = []
    for family, results in VITDET.items():
        title = "Cascade Mask R-CNN" if family.startswith("cascade") else "Mask R-CNN"
        for size, (box, mask) in results.items():
            length = "75e" if size == "h" else "100e"
            rows.append(
                Row(
                    config=f"{family}/{family}_vitdet_{size}_sfp_{length}_coco.py",
                    model=f"{title}, ViTDet-{size.upper()}, {length[:-1]} epochs",
                    input_hw=DETECTION_HW,
                    source="detectron2",
                    result=f"box AP {box}, mask AP {mask}",
                    params=None,
                    macs=None,
                    window=14,
                    drop_path=DROP_PATH[size],
                )
            )
    for model, neck, length, miou in UPERNET:
        kind, size = model.split("_")
        stem = "_".join(filter(None, ["upernet", model, "p16", neck]))
        rows.append(
            Row(
                config=f"upernet/{stem}_8xb2_{length}_ade20k_512x512.py",
                model=f"UperNet, {'ViT' if kind == 'vit' else 'DeiT'}-{size.upper()}"
                f"{NECKS[neck]}, {length}, crop 512",
                input_hw=SEGMENTATION_HW,
                source="mmseg",
                result=f"mIoU {miou}",
                params=None,
                macs=None,
                window=None,
                drop_path=0.1,
            )
        )
    return rows


VIT_ROWS = _rows()
