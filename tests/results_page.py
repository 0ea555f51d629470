"""Write ``docs/results.md``: ``python -m tests.results_page``. A test holds the page to it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from swin_dense.engine.config import load_config
from swin_dense.engine.counting import count_config
from swin_dense.evaluation.complexity import ModuleCost
from tests.published import OTHER_FIGURES, Row, all_rows

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"

INTRODUCTION = """\
# Published results, and what is counted here

**The AP and mIoU below were published by others and were not reproduced here.** They need eight
GPUs for days. What is ours are the columns "counted": parameters and multiply-accumulates of the
models that our configs build. `python -m tests.results_page` writes this page, and a test fails
when it no longer says what the configs do.

What papers on detection call FLOPs are multiply-accumulates (MACs). Counted are convolutions and
matrix products, those of attention included, padding included; not norms, activations, softmax,
interpolation and RoIAlign. One image of 800x1280 (height x width) for detectors; 512x2048 for
segmenters, 640x2560 for those with crops of 640. Each box head runs on 1,000 proposals, each mask
head on 100, in a cascade in each of its three stages, as the counter of the official code does.
The auxiliary head of UperNet has parameters and does not run. For any config:

```
python tools/get_flops.py mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_3x_coco.py
```

A test holds the parameters to within 0.5% and the MACs to within 2% of the published figures.
"""

NOTES = """\
## Where a figure or a recipe differs

- **UperNet, Swin-L, 640: the published 3230G is not the cost of this model.** The readme's 3230G
  cannot be had at 640x2560 with the published 234M parameters: window 12 gives 2580G, window 7
  gives 2482G. The table of UperNet results in the ConvNeXt paper (https://arxiv.org/abs/2201.03545)
  gives 2468G for the same row, and we agree with that within 0.6%; the test holds us to it.
- **UperNet from ImageNet-22K at 640: window 7.** The rows name no window and no config was
  released. The published 1841G of Swin-B is that of window 7 (1839G); window 12 costs 1891G.
  Learning rate, drop path and schedule are those of the crop of 512, which is an assumption.
- **Learning rate.** The official decay on ADE20K runs from iteration 0 and is multiplied by the
  warm-up; mmseg's own configs begin it after the warm-up. Each row has its author's.
- **Mixed precision.** The official detectors were trained with apex in fp16. Our configs train in
  fp32; `tools/train.py --amp` trains in mixed precision.
- **RetinaNet** is mmdet's recipe (SGD, everything decays), published without a result.
- **Mask R-CNN in mmdet** has its own recipe (no crops in 1x, drop path 0.2, warm-up over 1,000)
  with 42.7 / 39.3 for Swin-T 1x; `mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py` runs as it is.
- **PVT's parameters** are those of the official code's models; papers and readmes round them to
  0.1M. No FLOPs were published for these detectors, nor for the segmenters at 512x2048.
- **PVT on ADE20K.** For v1 the official code reports more than the paper (35.7, 39.8, 41.6 and
  42.1); the table has the code's. The readme of v2's segmentation code leaves its column empty:
  those figures are quoted as the paper's, from memory, and were not checked against it. Test images
  are resized to multiples of 32, as in that code.
- **PVT-L in RetinaNet** was trained in mixed precision at the learning rate of the smaller ones;
  add `--amp`. PVT-L in Mask R-CNN, B4 and B5 have one image a GPU and lr / 1.4, as published.
- **MoBY's weights** come from a Google Drive folder, so those configs name a local file.
"""

WITHOUT_A_CONFIG = [
    (
        "RepPoints V2, Swin-T, 3x",
        "50.0 / -",
        "45M, 283G",
        "mmdet has RepPoints V1 alone: the corner and foreground verification of V2 is not in it",
    ),
    (
        "Mask RepPoints V2, Swin-T, 3x",
        "50.4 / 43.8 (the Swin readme says 50.3 / 43.6)",
        "47M, 292G",
        "as above, and its mask branch",
    ),
    (
        "HTC++, Swin-B, ImageNet-22K, 6x",
        "56.4 / 49.1",
        "160M, 1043G",
        "mmdet has HTC, but no config of HTC++ was released, and its InstaBoost needs a package "
        "that mmdet does not bring",
    ),
    (
        "HTC++, Swin-L, ImageNet-22K, 3x",
        "57.1 / 49.5, with scales 58.0 / 50.4",
        "284M, 1470G",
        "as above",
    ),
    (
        "ATSS, GFL and Sparse R-CNN, PVT v2 B2-li and B2, 3x",
        "48.9 and 49.9; 49.2 and 50.2; 48.9 and 50.1",
        "-",
        "mmdet has these heads, but their leaves are not written",
    ),
    (
        "Cascade Mask R-CNN, Swin-B and Swin-L, ImageNet-22K, 50 epochs",
        "53.9 / 46.2 and 55.0 / 47.2",
        "-",
        "recipes of detectron2 with its large-scale jitter at 1024, not of mmdet",
    ),
]


@cache
def total_of(config: str) -> ModuleCost:
    """Return the whole model's cost for a shipped config."""
    return count_config(load_config(config))[0]


def results_page() -> str:
    """Return the page as the configs and the published rows make it."""
    detection = [row for row in all_rows() if row.is_detection]
    segmentation = [row for row in all_rows() if not row.is_detection]
    parts = [INTRODUCTION, "## COCO 2017, box / mask AP on val\n"]
    parts += ["\n".join(_table("box / mask AP", detection)) + "\n"]
    parts += ["## ADE20K, mIoU on val, single scale / with flips and scales\n"]
    parts += ["\n".join(_table("mIoU", segmentation)) + "\n", NOTES]
    parts += ["## Rows without a config\n", "\n".join(_rows_without_a_config()) + "\n"]
    return "\n".join(parts)


def _table(metric: str, rows: list[Row]) -> Iterator[str]:
    yield (
        f"| model | parameters, published | counted | MACs, published | counted "
        f"| {metric}, published by others | by | config |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        total = total_of(row.config)
        first, _, second = row.result.partition(", ")
        scores = " / ".join(part.split()[-1] for part in (first, second) if part)
        macs = "-" if row.macs is None else f"{row.macs}G"
        if row.config in OTHER_FIGURES:
            macs += f" ({OTHER_FIGURES[row.config].macs}G, see below)"
        cells = [
            row.model,
            "-" if row.params is None else f"{row.params}M",
            f"{total.parameters / 1e6:.2f}M",
            macs,
            f"{total.macs / 1e9:.1f}G",
            scores or "-",
            row.source,
            f"[config](../configs/{row.config})",
        ]
        yield f"| {' | '.join(cells)} |"


def _rows_without_a_config() -> Iterator[str]:
    yield "| row | box / mask AP, published by others | parameters, FLOPs | why not |"
    yield "|---|---|---|---|"
    for cells in WITHOUT_A_CONFIG:
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(results_page())
