"""ScalableViT against the official code's record, its names and its classifiers' files."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import swin_dense
from swin_dense import UserError, load_pretrained

MINI = dict(embed_dims=16, depths=(2, 2, 3, 2), num_heads=(1, 2, 4, 8), drop_path_rate=0.0)


def mini(**options: object) -> swin_dense.ScalableViT:
    return swin_dense.ScalableViT(**{**MINI, **options})


def classifier_file(**options: object) -> dict[str, dict[str, Tensor]]:
    """What the official code saves of a classifier: the final norm and a head of three layers."""
    state = dict(mini(out_norm="last", **options).state_dict())
    state["head.0.weight"], state["head.3.weight"] = torch.zeros(4096, 128), torch.zeros(10, 4096)
    state["head.1.weight"], state["head.1.bias"] = torch.ones(4096), torch.zeros(4096)
    return {"model": state}


def test_maps_equal_the_official_record(parity: ModuleType, shared: Path) -> None:
    tag = "scalable_vit_small_hot"
    record = json.loads((shared / "parity" / f"{tag}.json").read_text())
    model = parity.fill(swin_dense.ScalableViT("small"))
    last = parity.fill(swin_dense.ScalableViT("small", out_norm="last"))
    total = sum(parameter.numel() for parameter in last.parameters())
    assert total == record["backbone_params"]
    for name in record["inputs"]:
        side_h, side_w = map(int, name[1:].split("x"))
        images = parity.make_input((1, 3, side_h, side_w))
        with torch.no_grad():
            assert parity.compare(tag, name, [*model(images), last(images)[3]]) == []


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (dict(arch="S"), 25_794_032),
        (dict(arch="small", channel_ratios=(1.25,) * 4), 25_794_032),
        (dict(arch="base"), 74_626_608),
        (dict(arch="l"), 100_985_248),
    ],
)
def test_each_arch_has_the_classifiers_parameter_count(
    options: dict[str, object], parameters: int
) -> None:
    with torch.device("meta"):
        model = swin_dense.ScalableViT(out_norm="last", **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_channel_ratio_scales_the_last_stage_though_it_has_no_parameters_there() -> None:
    plain, scaled = (mini(channel_ratios=(1, 1, 1, last)).eval() for last in (1, 4))
    scaled.load_state_dict(plain.state_dict())
    assert scaled.stages[3][1].attn.scale == plain.stages[3][1].attn.scale / 2
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps, others = plain(images), scaled(images)
    assert all(torch.equal(a, b) for a, b in zip(maps[:3], others[:3], strict=True))
    assert not torch.equal(maps[3], others[3])


def test_official_parameter_names_and_shapes_are_frozen() -> None:
    model = mini(
        depths=(2, 2), num_heads=(1, 2), spatial_ratios=(8, 1), channel_ratios=(1.25, 1.0),
        out_norm="last",
    )  # fmt: skip
    block = [
        f"{layer}.{kind}"
        for layer in ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    ]
    windows = [
        f"attn.{layer}.{kind}" for layer in ("qkv", "lim_func") for kind in ("weight", "bias")
    ]
    reduced = [
        f"attn.{layer}.{kind}"
        for layer in ("q", "k", "v", "reduction.0", "reduction.1", "norm_act.0")
        for kind in ("weight", "bias")
    ]
    plain = [f"attn.{layer}.{kind}" for layer in ("q", "kv") for kind in ("weight", "bias")]
    assert set(model.state_dict()) == {
        *(
            f"{layer}.{kind}"
            for index in (0, 1)
            for layer in (
                f"patch_embeds.{index}.proj",
                f"patch_embeds.{index}.norm",
                f"pos_block.{index}.proj.0",
            )
            for kind in ("weight", "bias")
        ),
        *(f"stages.0.0.{leaf}" for leaf in block + windows),
        *(f"stages.0.1.{leaf}" for leaf in block + reduced),
        *(f"stages.1.0.{leaf}" for leaf in block + windows),
        *(f"stages.1.1.{leaf}" for leaf in block + plain),
        *("norm.weight", "norm.bias"),
    }
    attention = model.stages[0][1].attn
    assert attention.reduction[0].weight.shape == (16, 1, 8, 8)
    assert attention.reduction[1].weight.shape == (20, 16, 1, 1)
    assert attention.k.weight.shape == (20, 20)
    assert attention.v.weight.shape == (16, 20)
    assert model.patch_embeds[0].proj.weight.shape == (16, 3, 7, 7)
    assert model.patch_embeds[1].proj.weight.shape == (32, 16, 3, 3)
    assert attention.norm_act[0].eps == 1e-5
    assert {model.norm.eps, model.stages[0][0].norm1.eps, model.patch_embeds[1].norm.eps} == {1e-6}


def test_a_classifier_fills_the_whole_backbone_and_its_last_norm_where_that_is_asked_for() -> None:
    checkpoint = classifier_file()
    report = load_pretrained(mini(), checkpoint)
    assert (report.format, report.coverage, report.missing) == ("official", 1.0, [])
    assert {name.split(".")[0] for name in report.unexpected} == {"head", "norm"}
    report = load_pretrained(mini(out_norm="last"), checkpoint)
    assert (report.coverage, report.missing) == (1.0, [])
    assert {name.split(".")[0] for name in report.unexpected} == {"head"}
    report = load_pretrained(mini(out_norm="each"), checkpoint)
    assert report.missing_suspicious == []
    assert len(report.missing_expected) == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(channel_ratios=(2, 1.25, 1.25, 1)), ["(1.25, 1.25, 1.25, 1.0)", "(2.0, 1.25"]),
        (dict(spatial_ratios=(4, 4, 2, 1)), ["(8, 4, 2, 1)", "(4, 4, 2, 1)"]),
        (dict(depths=(2, 2, 2, 2)), ["depths=(2, 2, 3, 2)", "depths=(2, 2, 2, 2)"]),
    ],
)
def test_a_classifier_of_other_sizes_is_refused_with_both_sizes(
    options: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        load_pretrained(mini(**options), classifier_file())
    for word in words:
        assert word in str(caught.value)


def test_blocks_take_turns_and_the_position_encoding_follows_the_first() -> None:
    model = mini().eval()
    order: list[str] = []
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind in ("InteractiveWindowAttention", "ScalableSelfAttention", "PEG"):
            module.register_forward_hook(lambda *_, name=name, kind=kind: order.append(kind))
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    window, peg, scalable = "InteractiveWindowAttention", "PEG", "ScalableSelfAttention"
    assert order == 2 * [window, peg, scalable] + [window, peg, scalable, window] + [
        window, peg, scalable,
    ]  # fmt: skip


def test_images_below_29_pixels_are_named() -> None:
    with pytest.raises(UserError, match=r"reduction by 8 got a map of 7 x 16 tokens"):
        mini()(torch.zeros(1, 3, 28, 64))
    assert mini().eval()(torch.zeros(1, 3, 29, 29))[3].shape == (1, 128, 1, 1)
