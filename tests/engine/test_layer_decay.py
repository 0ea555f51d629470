"""Rates that decay by layer, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

import swin_dense
from swin_dense import UserError
from swin_dense.engine.config import load_config


class Detector(nn.Module):
    """A backbone and something else."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(4, 4, 1)


def groups_of(backbone: nn.Module, **paramwise: Any) -> dict[str, dict[str, Any]]:
    """Return the optimizer's group of each parameter by name."""
    model = Detector(backbone)
    wrapper = build_optim_wrapper(
        model,
        dict(
            type="OptimWrapper",
            constructor="swin_dense.LayerDecayOptimWrapperConstructor",
            optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1),
            paramwise_cfg=paramwise,
        ),
    )
    names = {id(value): name for name, value in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    return {names[id(group["params"][0])]: group for group in groups}


def small(**options: Any) -> swin_dense.VisionTransformer:
    return swin_dense.VisionTransformer(embed_dims=8, num_layers=3, num_heads=2, **options)


def test_a_rate_falls_by_the_factor_with_every_layer_below() -> None:
    groups = groups_of(
        small(final_norm=True),
        layer_decay_rate=0.5,
        norm_decay_mult=0.0,
        custom_keys={"pos_embed": dict(decay_mult=0.0), "blocks.1.mlp": dict(lr_mult=10.0)},
    )
    rates = {name: group["lr"] for name, group in groups.items()}
    assert rates["head.weight"] == rates["backbone.norm.weight"] == 1.0
    assert rates["backbone.blocks.2.attn.qkv.weight"] == 0.5
    assert rates["backbone.blocks.0.norm1.bias"] == 0.125
    assert rates["backbone.blocks.1.mlp.fc1.weight"] == 2.5
    for name in ("patch_embed.proj.weight", "pos_embed", "cls_token"):
        assert rates[f"backbone.{name}"] == 0.0625
    decays = {name: group["weight_decay"] for name, group in groups.items()}
    assert decays["backbone.blocks.0.norm1.bias"] == decays["backbone.pos_embed"] == 0.0
    assert decays["backbone.blocks.0.attn.qkv.bias"] == decays["head.bias"] == 0.1


def test_frozen_blocks_are_left_out() -> None:
    groups = groups_of(small(frozen_stages=1), layer_decay_rate=0.5)
    assert not any(name.startswith(("backbone.blocks.0.", "backbone.pos")) for name in groups)
    assert groups["backbone.blocks.1.attn.qkv.weight"]["lr"] == 0.25


def test_a_backbone_without_layers_and_a_senseless_factor_are_refused() -> None:
    swin = swin_dense.SwinTransformer(embed_dims=8, depths=(1, 1), num_heads=(1, 2))
    with pytest.raises(UserError, match=r"SwinTransformer does not.*VisionTransformer"):
        groups_of(swin, layer_decay_rate=0.5)
    for rate in (None, 0, 1.5, "0.7"):
        with pytest.raises(UserError, match=r"layer_decay_rate=.*at most 1"):
            groups_of(small(), layer_decay_rate=rate)


@pytest.mark.parametrize(
    ("size", "rate", "drop_path"), [("b", 0.7, 0.1), ("l", 0.8, 0.4), ("h", 0.9, 0.5)]
)
def test_vitdet_recipes_have_the_published_facts(size: str, rate: float, drop_path: float) -> None:
    length = "75e" if size == "h" else "100e"
    for family in ("mask_rcnn", "cascade_mask_rcnn"):
        cfg = load_config(f"{family}/{family}_vitdet_{size}_sfp_{length}_coco.py")
        rules = cfg.optim_wrapper.paramwise_cfg
        assert rules.layer_decay_rate == rate
        assert ("norm_decay_mult" in rules) == ("custom_keys" in rules) == (size != "h")
        assert cfg.model.backbone.drop_path_rate == drop_path
        assert cfg.auto_scale_lr.base_batch_size == 64 == 8 * cfg.train_dataloader.batch_size
        assert cfg.train_cfg.max_iters == (138_281 if size == "h" else 184_375)
        assert cfg.model.data_preprocessor.pad_size_divisor == 1024
