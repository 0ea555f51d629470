"""The published rows: what each config's authors report, as ``docs/results.md`` shows it."""

from __future__ import annotations

import re
from dataclasses import dataclass

OFFICIAL_DET, OFFICIAL_SEG = "official detection code", "official segmentation code"
READMES = "Swin readme"
DETECTION_HW, SEGMENTATION_HW, LARGE_SEGMENTATION_HW = (800, 1280), (512, 2048), (640, 2560)


@dataclass(frozen=True)
class Row:
    """One published row and the config that states it.

    Attributes:
        config: below ``configs/``.
        model: as the table of results names it.
        input_hw: height and width in pixels at which the FLOPs are published.
        source: who published the row.
        result: the published figures, as the config's header words them.
        params: published parameters in millions; None where there is no figure.
        macs: published FLOPs, which are multiply-accumulates, in billions.
        window: side of the attention windows in tokens; None where there are none.
        drop_path: rate of the last block.
        own_params: parameters in millions of the model that was released, where it is not the
            published one, or where the published figure is rounded to millions.
        macs_leave_out_attention: the published FLOPs have no matrix products of attention in them.
        macs_within: how near ours must come to the published FLOPs.
    """

    config: str
    model: str
    input_hw: tuple[int, int]
    source: str
    result: str
    params: float | None
    macs: float | None
    window: int | None
    drop_path: float
    own_params: float | None = None
    macs_leave_out_attention: bool = False
    macs_within: float = 0.02

    @property
    def length(self) -> str:
        """Return "1x", "160k", "100e" and the like."""
        return next(part for part in self.config.split("_") if re.fullmatch(r"\dx|\d+[ke]", part))

    @property
    def is_detection(self) -> bool:
        """Whether the row is of a detector."""
        return self.input_hw == DETECTION_HW


def _coco(
    family: str, arch: str, ap: tuple[float, float], drop_path: float, cost: tuple[int, int]
) -> Row:
    """Return a row of COCO; ``arch`` is "t_p4_w7_moby_fpn_1x" and the like."""
    letter, *_, length = arch.split("_")
    moby = "_moby" in arch
    title = {"mask_rcnn": "Mask R-CNN", "cascade_mask_rcnn": "Cascade Mask R-CNN"}[family]
    return Row(
        config=f"{family}/{family}_swin_{arch}_coco.py",
        model=f"{title}, Swin-{letter.upper()}{', MoBY' if moby else ''}, {length}",
        input_hw=DETECTION_HW,
        source="MoBY readme" if moby else OFFICIAL_DET,
        result=f"box AP {ap[0]}, mask AP {ap[1]}",
        params=cost[0],
        macs=cost[1],
        window=7,
        drop_path=drop_path,
    )


def _ade(
    arch: str,
    source: str,
    miou: tuple[float, float],
    cost: tuple[int, int] | tuple[None, None] = (None, None),
    crop: int = 512,
) -> Row:
    """Return a row of ADE20K; ``arch`` is "b_p4_w12_in22k" and the like."""
    letter, _, window, *weights = arch.split("_")
    named = {"in22k": ", ImageNet-22K", "in1k": ", ImageNet-1K at 384", "moby": ", MoBY"}
    return Row(
        config=f"upernet/upernet_swin_{arch}_8xb2_160k_ade20k_{crop}x{crop}.py",
        model=f"UperNet, Swin-{letter.upper()}, window {window[1:]}"
        f"{''.join(named[word] for word in weights)}, crop {crop}",
        input_hw=SEGMENTATION_HW if crop == 512 else LARGE_SEGMENTATION_HW,
        source=source,
        result=f"mIoU {miou[0]}, with flips and scales {miou[1]}",
        params=cost[0],
        macs=cost[1],
        window=int(window[1:]),
        drop_path=0.3,
    )


MASK, CASCADE = "mask_rcnn", "cascade_mask_rcnn"
RETINANET = Row(
    config="retinanet/retinanet_swin_t_p4_w7_fpn_1x_coco.py",
    model="RetinaNet, Swin-T, 1x",
    input_hw=DETECTION_HW,
    source="mmdet",
    result="",
    params=None,
    macs=None,
    window=7,
    drop_path=0.2,
)
SWIN_ROWS = [
    _coco(MASK, "t_p4_w7_fpn_1x", (43.7, 39.8), 0.1, (48, 267)),
    _coco(MASK, "t_p4_w7_fpn_3x", (46.0, 41.6), 0.2, (48, 267)),
    _coco(MASK, "s_p4_w7_fpn_3x", (48.5, 43.3), 0.2, (69, 359)),
    _coco(MASK, "t_p4_w7_moby_fpn_1x", (43.6, 39.6), 0.1, (48, 267)),
    _coco(MASK, "t_p4_w7_moby_fpn_3x", (46.0, 41.7), 0.2, (48, 267)),
    _coco(CASCADE, "t_p4_w7_fpn_1x", (48.1, 41.7), 0.0, (86, 745)),
    _coco(CASCADE, "t_p4_w7_fpn_3x", (50.4, 43.7), 0.2, (86, 745)),
    _coco(CASCADE, "s_p4_w7_fpn_3x", (51.9, 45.0), 0.2, (107, 838)),
    _coco(CASCADE, "b_p4_w7_fpn_3x", (51.9, 45.0), 0.3, (145, 982)),
    _coco(CASCADE, "t_p4_w7_moby_fpn_1x", (48.1, 41.5), 0.0, (86, 745)),
    _coco(CASCADE, "t_p4_w7_moby_fpn_3x", (50.2, 43.5), 0.2, (86, 745)),
    RETINANET,
    _ade("t_p4_w7", OFFICIAL_SEG, (44.51, 45.81), (60, 945)),
    _ade("s_p4_w7", OFFICIAL_SEG, (47.64, 49.47), (81, 1038)),
    _ade("b_p4_w7", OFFICIAL_SEG, (48.13, 49.72), (121, 1188)),
    _ade("t_p4_w7_moby", "MoBY readme", (44.06, 45.58), (60, 945)),
    _ade("b_p4_w7_in22k", READMES, (50.04, 51.66), (121, 1841), crop=640),
    _ade("l_p4_w7_in22k", READMES, (52.05, 53.53), (234, 3230), crop=640),
    _ade("b_p4_w7_in22k", "mmseg", (50.13, 51.9)),
    _ade("b_p4_w12_in1k", "mmseg", (48.35, 49.65)),
    _ade("b_p4_w12_in22k", "mmseg", (50.76, 52.4)),
]


@dataclass(frozen=True)
class OtherFigure:
    """A second published count for a row whose own one is not that of its model."""

    macs: float
    source: str


OTHER_FIGURES = {
    "upernet/upernet_swin_l_p4_w7_in22k_8xb2_160k_ade20k_640x640.py": OtherFigure(
        2468, "table of UperNet results in the ConvNeXt paper (https://arxiv.org/abs/2201.03545)"
    ),
}


def all_rows() -> list[Row]:
    """Return the rows of every family, in the order in which the page shows them."""
    from tests.published_focal import FOCAL_ROWS
    from tests.published_pvt import PVT_ROWS
    from tests.published_scalable_vit import SCALABLE_VIT_ROWS
    from tests.published_vit import VIT_ROWS

    return [*SWIN_ROWS, *PVT_ROWS, *SCALABLE_VIT_ROWS, *FOCAL_ROWS, *VIT_ROWS]
