"""Parameters and multiply-accumulates: by hand, by symmetry, and against the published rows."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

import swin_dense
from swin_dense.cli import get_flops
from swin_dense.engine.config import load_config
from swin_dense.engine.counting import build_on_meta, count_config, published_hw
from swin_dense.errors import UserError
from swin_dense.evaluation.complexity import ModuleCost, count_model, format_costs
from tests import runs
from tests.published import OTHER_FIGURES, Row, all_rows


@cache
def costs_of(config: str) -> dict[str, ModuleCost]:
    """Return the costs of a shipped config's modules by name, "" for the whole model."""
    return {cost.name: cost for cost in count_config(load_config(config))}


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.config)
def test_a_recipe_has_the_published_parameters_and_flops(row: Row) -> None:
    assert published_hw(load_config(row.config)) == row.input_hw
    total = costs_of(row.config)[""]
    if row.params is not None:
        assert total.parameters / 1e6 == pytest.approx(row.params, rel=0.005)
    if row.config in OTHER_FIGURES:
        other = OTHER_FIGURES[row.config]
        assert total.macs / 1e9 < 0.8 * row.macs, "the row's own figure fits: take the other out"
        assert total.macs / 1e9 == pytest.approx(other.macs, rel=0.02)
    elif row.macs is not None:
        assert total.macs / 1e9 == pytest.approx(row.macs, rel=0.02)


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        ("mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py", 47.79),
        ("mask_rcnn/mask_rcnn_swin_s_p4_w7_fpn_3x_coco.py", 69.11),
        ("cascade_mask_rcnn/cascade_mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py", 85.63),
        ("cascade_mask_rcnn/cascade_mask_rcnn_swin_s_p4_w7_fpn_3x_coco.py", 106.95),
        ("cascade_mask_rcnn/cascade_mask_rcnn_swin_b_p4_w7_fpn_3x_coco.py", 144.98),
        ("retinanet/retinanet_swin_t_p4_w7_fpn_1x_coco.py", 38.46),
        ("upernet/upernet_swin_t_p4_w7_8xb2_160k_ade20k_512x512.py", 59.94),
        ("upernet/upernet_swin_s_p4_w7_8xb2_160k_ade20k_512x512.py", 81.26),
        ("upernet/upernet_swin_b_p4_w7_8xb2_160k_ade20k_512x512.py", 121.28),
        ("upernet/upernet_swin_l_p4_w7_in22k_8xb2_160k_ade20k_640x640.py", 233.76),
    ],
)
def test_parameters_are_those_of_the_formulas_to_a_hundredth_of_a_million(
    config: str, millions: float
) -> None:
    assert costs_of(config)[""].parameters / 1e6 == pytest.approx(millions, abs=0.0051)


def test_the_parts_add_up_to_the_whole() -> None:
    costs = costs_of("cascade_mask_rcnn/cascade_mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py")
    parts = [cost for cost in costs.values() if cost.depth == 1]
    assert sum(part.parameters for part in parts) == costs[""].parameters
    assert sum(part.macs for part in parts) == costs[""].macs
    blocks = [costs[f"backbone.layers.2.blocks.{index}"] for index in range(6)]
    assert len({block.macs for block in blocks}) == 1
    assert len({costs[f"roi_head.bbox_head.{index}"].macs for index in range(3)}) == 1


def test_region_heads_run_on_a_thousand_boxes_and_a_hundred_masks() -> None:
    costs = costs_of("mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py")
    box = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * 81 + 1024 * 4 * 80
    assert costs["roi_head.bbox_head"].macs == 1_000 * box
    mask = 4 * 256 * 256 * 9 * 14 * 14 + 256 * 256 * 4 * 14 * 14 + 256 * 80 * 28 * 28
    assert costs["roi_head.mask_head"].macs == 100 * mask


def test_the_auxiliary_head_has_parameters_and_does_not_run() -> None:
    cost = costs_of("upernet/upernet_swin_t_p4_w7_8xb2_160k_ade20k_512x512.py")["auxiliary_head"]
    assert cost.parameters == 384 * 256 * 9 + 2 * 256 + 256 * 150 + 150
    assert cost.macs == 0


class Backbone(nn.Module):
    """A convolution, and a product of two maps as attention has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.conv(images).flatten(2)  # (B, C, H, W) -> (B, C, H * W)
        return tokens.transpose(1, 2) @ tokens


class Model(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.decode_head = head


def test_a_small_model_is_counted_as_by_hand() -> None:
    # 6 x 10 pixels at stride 2 are 3 x 5 = 15 cells, hence 15 x 15 products of 8 channels
    costs = {cost.name: cost for cost in count_model(Model(nn.Linear(15, 4)), (6, 10))}
    assert costs["backbone.conv"] == ModuleCost("backbone.conv", 3 * 8 * 9 + 8, 3 * 8 * 9 * 15)
    assert costs["backbone"].macs == 3 * 8 * 9 * 15 + 15 * 8 * 15
    assert costs["decode_head"] == ModuleCost("decode_head", 15 * 4 + 4, 15 * 15 * 4)
    assert costs[""].macs == costs["backbone"].macs + costs["decode_head"].macs


def test_the_table_indents_names_and_stops_at_its_depth() -> None:
    costs = [
        ModuleCost("", 2_500_000, 3_000_000_000),
        ModuleCost("head", 1_250_000, 500_000_000),
        ModuleCost("head.conv", 1, 1),
        ModuleCost("loss", 0, 0),
    ]
    assert format_costs(costs, depth=1).splitlines() == [
        "module  parameters    MACs",
        "all         2.50 M  3.00 G",
        "  head      1.25 M  0.50 G",
    ]


def test_counting_leaves_no_hook_and_no_memory_behind() -> None:
    cfg = load_config(runs.UPERNET)
    model = build_on_meta(cfg)
    count_model(model, (64, 64))
    assert all(parameter.device.type == "meta" for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_real_weights_count_as_empty_ones_do() -> None:
    torch.manual_seed(0)
    on_cpu = count_model(Model(nn.Linear(15, 4)), (6, 10))
    with torch.device("meta"):
        assert count_model(Model(nn.Linear(15, 4)), (6, 10)) == on_cpu


def test_the_hosts_own_swin_counts_as_ours_does() -> None:
    total = count_config(load_config(runs.MMDET_SWIN))[0]
    ours = costs_of(runs.MASK_RCNN)[""]
    assert total.parameters == ours.parameters
    assert total.macs == pytest.approx(ours.macs, rel=1e-3)


@pytest.mark.parametrize("kind", ["PVT", "SwinTransformer"])
def test_resizing_a_position_embedding_costs_nothing_that_is_counted(kind: str) -> None:
    with torch.device("meta"):
        resizing, fitting = Model(nn.Identity()), Model(nn.Identity())
        options = {"use_abs_pos_embed": True} if kind == "SwinTransformer" else {}
        resizing.backbone = getattr(swin_dense, kind)("tiny", **options)
        fitting.backbone = getattr(swin_dense, kind)("tiny", pretrain_img_size=256)
    for image_hw in ((256, 256), (128, 160)):
        costs = [count_model(model, image_hw)[0] for model in (resizing, fitting)]
        assert costs[0].macs == costs[1].macs > 0


def test_what_cannot_be_counted_is_named() -> None:
    with pytest.raises(UserError, match="Linear has no backbone"):
        count_model(nn.Linear(1, 1), (8, 8))
    model = Model(nn.Bilinear(15, 15, 4))
    with pytest.raises(UserError, match="decode_head Bilinear does not run on feature maps alone"):
        count_model(model, (6, 10))
    model.decoder = nn.Linear(1, 1)
    with pytest.raises(UserError, match="Model has the parts decoder"):
        count_model(model, (6, 10))


def test_the_tool_prints_the_table_and_what_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert get_flops.main([runs.MASK_RCNN, "--depth", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:6]] == [
        ["module", "parameters", "MACs"],
        ["all", "47.79", "M", "266.55", "G"],
        ["backbone", "27.52", "M", "95.56", "G"],
        ["neck", "2.73", "M", "53.08", "G"],
        ["rpn_head", "0.59", "M", "50.62", "G"],
        ["roi_head", "16.95", "M", "67.29", "G"],
    ]
    assert lines[-1] == (
        "one image of 800x1280 (height x width); convolutions and matrix products are counted; "
        "each box head runs on 1,000 proposals, each mask head on 100"
    )


def test_the_tool_takes_a_shape_and_names_a_wrong_one(capsys: pytest.CaptureFixture[str]) -> None:
    mini = "upernet/upernet_swin_mini_sample.py"
    assert get_flops.main([mini, "--shape", "64", "128"]) == 0
    assert "one image of 64x128 (height x width)" in capsys.readouterr().out
    assert get_flops.main([mini, "--shape", "64"]) == 0
    assert "one image of 64x64 (height x width)" in capsys.readouterr().out
    assert get_flops.main([mini, "--shape", "64", "0"]) == 1
    assert "--shape 64 0: expected height and width" in capsys.readouterr().err
