"""The recipes of Focal Transformer and ScalableViT: what is published of them, what is ours."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

import swin_dense
from swin_dense.engine.config import load_config
from tests.evaluation.test_complexity import costs_of
from tests.published import Row
from tests.published_focal import FOCAL_ROWS
from tests.published_scalable_vit import SCALABLE_VIT_ROWS

ROWS = [*SCALABLE_VIT_ROWS, *FOCAL_ROWS]
ARCH = {"t": "tiny", "s": "small", "b": "base", "l": "large"}


def size_of(row: Row) -> str:
    """Return "t" of "..._focal_t_fpn_..." and the like."""
    parts = row.config.replace("scalablevit", "focal").split("_")
    return parts[parts.index("focal") + 1]


def swin_recipe(row: Row) -> Config:
    """Return Swin's recipe of the same detector or segmenter and length; 1x for RetinaNet."""
    name = row.config.replace(f"focal_{size_of(row)}_", "swin_t_p4_w7_")
    name = name.replace(f"scalablevit_{size_of(row)}_", "swin_t_p4_w7_")
    return load_config(name.replace("retinanet", "mask_rcnn"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.config)
def test_backbone_and_weights_are_those_that_the_name_says(row: Row) -> None:
    backbone = load_config(row.config).model.backbone
    arch = ARCH[size_of(row)]
    assert (backbone.arch, backbone.drop_path_rate) == (arch, row.drop_path)
    assert "window_size" not in backbone
    assert row.window == 7
    if "focal" in row.config:
        assert backbone.expand_sizes == (3, 3, 3, 3)
        assert backbone.init_cfg.checkpoint == (
            "https://projects4jw.blob.core.windows.net/model/focal-transformer/imagenet1k/"
            f"focal-{arch}-is224-ws7.pth"
        )
    else:
        assert backbone.init_cfg.checkpoint == f"checkpoints/scalable_vit_{arch}.pth"


@pytest.mark.parametrize("row", [r for r in ROWS if r.length != "80k"], ids=lambda r: r.config)
def test_optimizer_and_schedule_are_swins(row: Row) -> None:
    cfg, base = load_config(row.config), swin_recipe(row)
    assert cfg.optim_wrapper.optimizer == base.optim_wrapper.optimizer
    for part in ("param_scheduler", "train_cfg", "auto_scale_lr"):
        assert cfg[part] == base[part], part
    keys = dict(cfg.optim_wrapper.paramwise_cfg.custom_keys)
    if "scalablevit" in row.config:
        assert keys.pop("pos_block") == {"decay_mult": 0.0}
    assert keys == base.optim_wrapper.paramwise_cfg.custom_keys


@pytest.mark.parametrize("row", [r for r in ROWS if r.is_detection], ids=lambda r: r.config)
def test_detectors_train_on_one_scale_in_1x_and_on_many_in_3x(row: Row) -> None:
    loader = load_config(row.config).train_dataloader
    assert loader.batch_size == 2
    steps = loader.dataset.pipeline
    assert steps[1].get("with_mask", False) == ("mask_rcnn" in row.config)
    if row.length == "1x":
        assert steps[2] == {"type": "Resize", "scale": (1333, 800), "keep_ratio": True}
        return
    want = load_config("mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_3x_coco.py").train_dataloader
    assert steps[2:] == want.dataset.pipeline[2:]


@pytest.mark.parametrize("row", [r for r in ROWS if r.length == "80k"], ids=lambda r: r.config)
def test_semantic_fpn_trains_as_pvts_with_half_the_batch_twice_as_long(row: Row) -> None:
    cfg = load_config(row.config)
    pvt = load_config("sem_fpn/fpn_pvt_s_8xb4_40k_ade20k_512x512.py")
    ours, theirs = cfg.optim_wrapper.optimizer, pvt.optim_wrapper.optimizer
    assert ours == {**theirs, "lr": theirs.lr / 2}
    assert cfg.train_cfg.max_iters == 2 * pvt.train_cfg.max_iters == 80_000
    assert 2 * cfg.auto_scale_lr.base_batch_size == pvt.auto_scale_lr.base_batch_size
    assert cfg.train_dataloader.batch_size == 4
    (decay,) = cfg.param_scheduler
    assert (decay.type, decay.power, decay.eta_min) == ("PolyLR", 0.9, 0.0)
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys == {"pos_block": {"decay_mult": 0.0}}
    assert cfg.model.decode_head.to_dict() == pvt.model.decode_head.to_dict()


@pytest.mark.parametrize(
    "row", [r for r in FOCAL_ROWS if size_of(r) != "b"], ids=lambda r: r.config
)
def test_a_focal_model_differs_from_swins_by_the_backbone_alone(row: Row) -> None:
    # Focal-T and Swin-T have the same channels, so the heads have the same parameters
    swin = row.config.replace(f"focal_{size_of(row)}_", "swin_t_p4_w7_")
    if "retinanet" in row.config:
        swin = swin.replace("_3x_", "_1x_")
    ours, theirs = costs_of(row.config), costs_of(swin)
    outside = [costs[""].parameters - costs["backbone"].parameters for costs in (ours, theirs)]
    assert outside[0] == outside[1]
    # of the classifier without head: the final norm goes, output norms and the tables for the
    # ring in the last stage, 24 heads of 49 x 132 in both blocks, come
    classifier = {"t": 28_111_380, "s": 50_372_940}[size_of(row)]
    norms = sum((96, 192, 384, 768)) - (96 if "retinanet" in row.config else 0)
    expected = classifier - 2 * 768 + 2 * norms + 2 * 24 * 49 * 132
    assert ours["backbone"].parameters == expected


@pytest.mark.parametrize("row", [r for r in FOCAL_ROWS if r.is_detection], ids=lambda r: r.config)
def test_focal_detectors_round_to_the_published_millions(row: Row) -> None:
    assert round(costs_of(row.config)[""].parameters / 1e6) == row.params


def test_without_the_expanded_last_stage_four_of_six_focal_detectors_do_not() -> None:
    fails = 0
    for row in FOCAL_ROWS:
        if row.length != "1x":
            continue
        with torch.device("meta"):
            arch = ARCH[size_of(row)]
            tables = [
                sum(p.numel() for p in swin_dense.FocalTransformer(arch, **options).parameters())
                for options in (dict(expand_sizes=(3, 3, 3, 3)), {})
            ]
        plain = costs_of(row.config)[""].parameters - (tables[0] - tables[1])
        fails += round(plain / 1e6) != row.params
    assert fails == 4


@pytest.mark.parametrize("row", SCALABLE_VIT_ROWS, ids=lambda r: r.config)
def test_the_published_s_alone_is_larger_than_the_released_one(row: Row) -> None:
    short = row.params - costs_of(row.config)[""].parameters / 1e6
    if size_of(row) == "s":
        assert 0.33 < short < 0.42
    else:
        assert abs(short) < 0.06
