"""What the optimizer and the schedulers of every recipe do, by name and by number.

The optimizer and the schedulers are mmengine's own, built from the configs.
"""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from swin_dense.engine.config import load_config
from swin_dense.engine.counting import build_on_meta
from tests.published import RETINANET, SWIN_ROWS, Row

ADAMW_ROWS = [row for row in SWIN_ROWS if row != RETINANET]
BLOCKS = {"tiny": 12, "small": 24, "base": 24, "large": 24}
COCO_EPOCH = 600  # iterations of a short epoch: longer than the warm-up, so nothing else differs


def decay_by_name(cfg: Config, model: nn.Module) -> dict[str, float]:
    """Return the weight decay of every parameter, as the built optimizer will use it."""
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays: dict[str, float] = {}
    for group in optimizer.param_groups:
        assert group["lr"] == cfg.optim_wrapper.optimizer.lr
        for parameter in group["params"]:
            assert names[id(parameter)] not in decays
            decays[names[id(parameter)]] = group["weight_decay"]
    assert set(decays) == set(names.values())
    return decays


@pytest.mark.parametrize("row", ADAMW_ROWS, ids=lambda row: row.config)
def test_layer_norms_and_bias_tables_alone_are_free_of_decay(row: Row) -> None:
    cfg = load_config(row.config)
    model = build_on_meta(cfg)
    decays = decay_by_name(cfg, model)
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]
    free = {f"{name}.{kind}" for name in norms for kind in ("weight", "bias")}
    free |= {name for name in decays if name.endswith(".relative_position_bias_table")}
    assert {name for name, decay in decays.items() if decay == 0.0} == free
    assert all(name.startswith("backbone.") for name in free)
    base = cfg.optim_wrapper.optimizer.weight_decay
    assert {decays[name] for name in set(decays) - free} == {base}
    # two norms and a table a block; embedding, three mergings and four maps have a norm each
    assert len(free) == 5 * BLOCKS[cfg.model.backbone.arch] + 2 * (1 + 3 + 4)


@pytest.mark.parametrize(
    "config",
    [
        "mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_3x_coco.py",
        "cascade_mask_rcnn/cascade_mask_rcnn_swin_t_p4_w7_fpn_3x_coco.py",
        "upernet/upernet_swin_t_p4_w7_8xb2_160k_ade20k_512x512.py",
    ],
)
def test_biases_and_the_heads_batch_norms_decay(config: str) -> None:
    cfg = load_config(config, ["model.backbone.use_abs_pos_embed=True"])
    decays = decay_by_name(cfg, build_on_meta(cfg))
    base = cfg.optim_wrapper.optimizer.weight_decay
    block = "backbone.layers.2.blocks.5."
    expected = {
        "backbone.absolute_pos_embed": 0.0,
        "backbone.patch_embed.proj.weight": base,
        "backbone.patch_embed.proj.bias": base,
        "backbone.patch_embed.norm.weight": 0.0,
        "backbone.patch_embed.norm.bias": 0.0,
        f"{block}norm1.weight": 0.0,
        f"{block}norm2.bias": 0.0,
        f"{block}attn.relative_position_bias_table": 0.0,
        f"{block}attn.qkv.weight": base,
        f"{block}attn.qkv.bias": base,
        f"{block}attn.proj.bias": base,
        f"{block}mlp.fc1.bias": base,
        f"{block}mlp.fc2.weight": base,
        "backbone.layers.1.downsample.norm.weight": 0.0,
        "backbone.layers.1.downsample.reduction.weight": base,
        "backbone.norm0.weight": 0.0,
        "backbone.norm3.bias": 0.0,
    }
    if config.startswith("upernet"):
        heads = {
            "decode_head.conv_seg.bias": base,
            "decode_head.fpn_convs.0.bn.weight": base,
            "auxiliary_head.convs.0.bn.bias": base,
        }
    else:
        heads = {"neck.lateral_convs.0.conv.bias": base, "rpn_head.rpn_cls.bias": base}
        if config.startswith("cascade"):
            heads["roi_head.bbox_head.2.shared_convs.3.bn.weight"] = base
    for name, decay in (expected | heads).items():
        assert decays[name] == decay, name


def test_retinanet_decays_everything_as_mmdet_does() -> None:
    cfg = load_config(RETINANET.config)
    assert set(decay_by_name(cfg, build_on_meta(cfg)).values()) == {1e-4}


def learning_rates(cfg: Config, iterations: list[int]) -> list[float]:
    """Return the learning rate that each of the iterations would train with."""
    base = cfg.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(scheduler), default_args=dict(optimizer=optimizer))
        for scheduler in cfg.param_scheduler
    ]
    optimizer.step()  # schedulers warn when they go first
    rates = {}
    for iteration in range(iterations[-1] + 1):
        rates[iteration] = optimizer.param_groups[0]["lr"]
        for scheduler in schedulers:
            if not scheduler.by_epoch or (iteration + 1) % COCO_EPOCH == 0:
                scheduler.step()
    return [rates[iteration] for iteration in iterations]


def warm_up(iteration: int, over: int, start: float) -> float:
    """Return the official factor: 1 - (1 - iteration / over) * (1 - start)."""
    return 1 - (1 - min(iteration / over, 1.0)) * (1 - start)


@pytest.mark.parametrize("length", ["1x", "3x"])
def test_the_coco_learning_rate_is_the_official_one(length: str) -> None:
    cfg = load_config(f"mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_{length}_coco.py")
    first, second, last = (8, 11, 12) if length == "1x" else (27, 33, 36)
    edges = [epoch * COCO_EPOCH for epoch in (first, second, last)]
    iterations = [0, 1, 100, 250, 499, 500, 501, 599, 600]
    iterations += [edges[0] - 1, edges[0], edges[1] - 1, edges[1], edges[2] - 1]
    expected = [
        1e-4 * warm_up(i, 500, 0.001) * 0.1 ** sum(i >= edge for edge in edges[:2])
        for i in iterations
    ]
    assert learning_rates(cfg, iterations) == pytest.approx(expected, rel=1e-9)


def test_the_ade20k_learning_rate_is_the_official_one() -> None:
    cfg = load_config("upernet/upernet_swin_t_p4_w7_8xb2_160k_ade20k_512x512.py")
    iterations = [0, 1, 10, 750, 1_499, 1_500, 1_501, 20_000, 80_000, 120_000, 159_000, 159_999]
    expected = [6e-5 * warm_up(i, 1_500, 1e-6) * (1 - i / 160_000) for i in iterations]
    assert learning_rates(cfg, iterations) == pytest.approx(expected, rel=1e-6)


def test_mmsegs_recipes_decay_after_the_warm_up_and_stay_close() -> None:
    ours = load_config("upernet/upernet_swin_b_p4_w12_in1k_8xb2_160k_ade20k_512x512.py")
    theirs = load_config(
        "mmseg::swin/swin-base-patch4-window12-in1k-384x384-pre_upernet_8xb2-160k_ade20k-512x512.py"
    )
    assert ours.param_scheduler == theirs.param_scheduler
    iterations = [0, 100, 1_499, 1_500, 3_000, 10_000]
    official = [6e-5 * warm_up(i, 1_500, 1e-6) * (1 - i / 160_000) for i in iterations]
    # 1_500 / 160_000 of the highest rate apart where the warm-up ends, and one step of it
    apart = 6e-5 * (1_500 / 160_000 + 1 / 1_500)
    rates = learning_rates(ours, iterations)
    assert rates[3] == pytest.approx(6e-5, rel=1e-9)
    assert rates == pytest.approx(official, abs=apart)


@pytest.mark.parametrize("row", SWIN_ROWS, ids=lambda row: row.config)
def test_recipes_of_one_length_share_one_schedule(row: Row) -> None:
    first = {
        "1x": "mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py",
        "3x": "mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_3x_coco.py",
        "160k": "upernet/upernet_swin_t_p4_w7_8xb2_160k_ade20k_512x512.py",
    }[row.length]
    if row.source == "mmdet":
        first = "mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py"
    if row.source == "mmseg":
        first = re.sub(r"_t_p4_w7_", "_b_p4_w12_in1k_", first)
    assert load_config(row.config).param_scheduler == load_config(first).param_scheduler
