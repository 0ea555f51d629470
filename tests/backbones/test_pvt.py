"""PVT v1 and v2 against the official code's records, mmdet's classes, and plain attention."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import swin_dense
from swin_dense import UserError, load_pretrained
from swin_dense.backbones.pvt_pyramid import positions_on_grid
from swin_dense.checkpoints.keys.pvt import mm_to_official
from swin_dense.engine.config import load_config
from swin_dense.layers.spatial_reduction import SpatialReductionAttention
from tests.backbones.zoo import weighted_sum

RECORDS: dict[str, Callable[[], nn.Module]] = {
    "pvt_small_hot": lambda: swin_dense.PVT("small"),
    "pvt_v2_b0_hot": lambda: swin_dense.PVTv2("b0"),
    "pvt_v2_b2_li_hot": lambda: swin_dense.PVTv2("b2_li"),
}
SIZES = dict(embed_dims=8, num_layers=(2, 1, 2, 1), drop_path_rate=0.0)


@pytest.mark.parametrize("tag", RECORDS)
def test_maps_equal_the_official_records(tag: str, parity: ModuleType, shared: Path) -> None:
    record = json.loads((shared / "parity" / f"{tag}.json").read_text())
    model = parity.fill(RECORDS[tag]())
    assert sum(parameter.numel() for parameter in model.parameters()) == record["params"]
    for name, outputs in record["inputs"].items():
        side_h, side_w = map(int, name[1:].split("x"))
        images = parity.make_input((outputs["out0"]["shape"][0], 3, side_h, side_w))
        with torch.no_grad():
            assert parity.compare(tag, name, model(images)) == []


def test_the_epsilons_are_the_official_ones() -> None:
    for model in (swin_dense.PVT(**SIZES), swin_dense.PVTv2(arch="b2_li", **SIZES)):
        for name, module in model.named_modules():
            if isinstance(module, nn.LayerNorm):
                inner = "patch_embed" in name or ".attn." in name
                assert module.eps == (1e-5 if inner else 1e-6), name


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: swin_dense.PVT("t"), 12_714_752),
        (lambda: swin_dense.PVT("small"), 23_971_328),
        (lambda: swin_dense.PVT("Medium"), 43_693_568),
        (lambda: swin_dense.PVT("large"), 60_854_784),
        (lambda: swin_dense.PVTv2("b0"), 3_409_760),
        (lambda: swin_dense.PVTv2("b1"), 13_496_000),
        (lambda: swin_dense.PVTv2("B2"), 24_849_856),
        (lambda: swin_dense.PVTv2("b2_linear"), 22_040_512),
        (lambda: swin_dense.PVTv2("b3"), 44_725_696),
        (lambda: swin_dense.PVTv2("b4"), 62_043_072),
        (lambda: swin_dense.PVTv2("b5"), 81_443_008),
    ],
)
def test_each_arch_has_the_official_parameter_count(
    make: Callable[[], nn.Module], parameters: int
) -> None:
    with torch.device("meta"):
        model = make()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def mmdet_twin(version: int, **options: Any) -> nn.Module:
    """mmdet's class of these sizes with strong values in every parameter."""
    from mmdet.models.backbones import pvt

    kind = pvt.PyramidVisionTransformer if version == 1 else pvt.PyramidVisionTransformerV2
    twin = kind(**{**SIZES, **options})
    generator = torch.Generator().manual_seed(2)
    for parameter in twin.parameters():
        scale = 1.0 if parameter.dim() == 1 else 2.0 * parameter[0].numel() ** -0.5
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale * 0.5)
    return twin


OURS = {1: swin_dense.PVT, 2: swin_dense.PVTv2}


@pytest.mark.parametrize("image_hw", [(64, 96), (97, 130), (33, 65)])
@pytest.mark.parametrize("version", [1, 2])
def test_values_and_every_gradient_equal_mmdets_class(
    version: int, image_hw: tuple[int, int]
) -> None:
    theirs = mmdet_twin(version).double().train()
    ours = OURS[version](**SIZES, inner_norm_eps=1e-6).double().train()
    report = load_pretrained(ours, theirs.state_dict())
    assert (report.format, report.coverage) == ("mm", 1.0)
    images = torch.randn(2, 3, *image_hw, dtype=torch.float64)
    maps, expected = ours(images), theirs(images)
    for got, want in zip(maps, expected, strict=True):
        torch.testing.assert_close(got, want)
    weighted_sum(maps).backward()
    weighted_sum(expected).backward()
    gradients = mm_to_official({name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        want, got = gradients.pop(name), parameter.grad
        if name == "pos_embed4":  # mmdet has no row for the class token
            assert got[:, 0].abs().max() == 0
            got = got[:, 1:]
        torch.testing.assert_close(got, want, msg=lambda text, key=name: f"{key}: {text}")
    assert gradients == {}


def test_same_seed_drops_the_same_branches_as_mmdet() -> None:
    theirs = mmdet_twin(2, drop_path_rate=0.5).train()
    ours = swin_dense.PVTv2(**{**SIZES, "drop_path_rate": 0.5}, inner_norm_eps=1e-6).train()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(4, 3, 64, 64)
    torch.manual_seed(3)
    maps = ours(images)
    torch.manual_seed(3)
    for got, want in zip(maps, theirs(images), strict=True):
        torch.testing.assert_close(got, want, atol=1e-5 * want.abs().max().item(), rtol=0)


def plain_attention(layer: SpatialReductionAttention, tokens: Tensor) -> Tensor:
    """The formula of the paper, token by token, as the fast path must compute it."""
    batch, height, width, channels = tokens.shape
    source = layer.reduce(tokens) if layer.reduces else tokens
    queries = layer.q(tokens).flatten(1, 2)
    keys, values = layer.kv(source).flatten(1, 2).chunk(2, dim=-1)
    size = channels // layer.num_heads
    heads = []
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        scores = queries[..., part] @ keys[..., part].transpose(1, 2) / size**0.5
        heads.append(scores.softmax(-1) @ values[..., part])
    return layer.proj(torch.cat(heads, dim=-1)).view(batch, height, width, channels)


@pytest.mark.parametrize("options", [dict(sr_ratio=1), dict(sr_ratio=3), dict(linear=True)])
@pytest.mark.parametrize("grid_hw", [(9, 12), (7, 11), (3, 3)])
def test_fast_attention_equals_the_plain_formula(
    grid_hw: tuple[int, int], options: dict[str, Any]
) -> None:
    layer = SpatialReductionAttention(12, num_heads=3, **options).double()
    tokens = torch.randn(2, *grid_hw, 12, dtype=torch.float64, requires_grad=True)
    gradients = []
    outputs = [layer(tokens), plain_attention(layer, tokens)]
    for output in outputs:
        inputs = [tokens, *layer.parameters()]
        gradients.append(torch.autograd.grad(weighted_sum([output]), inputs))
    torch.testing.assert_close(outputs[0], outputs[1])
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want)


def test_a_reduction_drops_what_is_left_over_at_the_right_and_the_bottom() -> None:
    layer = SpatialReductionAttention(4, num_heads=1, sr_ratio=2)
    tokens = torch.randn(1, 5, 7, 4)
    assert torch.equal(layer.reduce(tokens), layer.reduce(tokens[:, :4, :6]))
    assert layer.reduce(tokens).shape == (1, 2, 3, 4)


def test_the_linear_kind_reduces_every_grid_to_seven_by_seven() -> None:
    layer = SpatialReductionAttention(4, num_heads=1, linear=True)
    for grid_hw in ((1, 1), (5, 30), (40, 40)):
        assert layer.reduce(torch.randn(1, *grid_hw, 4)).shape == (1, 7, 7, 4)


def test_positions_are_as_trained_on_their_own_grid_and_bilinear_on_others() -> None:
    table = torch.tensor([9.0, 0.0, 1.0, 2.0, 3.0]).view(1, 5, 1)  # 9 is the class token's
    assert positions_on_grid(table, 2, (2, 2)).flatten().tolist() == [0.0, 1.0, 2.0, 3.0]
    wide = positions_on_grid(table, 2, (1, 4))  # halves of both rows: 1 and 2, at columns
    assert wide.shape == (1, 1, 4, 1)
    assert wide.flatten().tolist() == pytest.approx([1.0, 1.25, 1.75, 2.0])


@pytest.mark.parametrize(
    ("model", "least"),
    [
        (lambda: swin_dense.PVT(**SIZES), 32),
        (lambda: swin_dense.PVTv2(**SIZES), 29),
        (lambda: swin_dense.PVTv2("b2_li", **SIZES), 1),
    ],
)
def test_the_smallest_image_is_taken_and_a_smaller_one_is_named(
    model: Callable[[], Any], least: int
) -> None:
    backbone = model().eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, least, least + 3))
    assert maps[-1].shape[2:] == (1, 1)
    if least > 1:
        with pytest.raises(UserError, match=rf"{least - 1}x90 pixels; expected at least {least}"):
            backbone(torch.randn(1, 3, least - 1, 90))


@pytest.mark.parametrize("name", ["pvt-t", "pvt-s", "pvtv2-b0", "pvtv2-b2"])
def test_a_config_of_mmdet_needs_only_another_type(name: str, tmp_path: Path) -> None:
    from mmdet.registry import MODELS

    options = load_config(f"mmdet::pvt/retinanet_{name}_fpn_1x_coco.py").model.backbone.to_dict()
    options["type"] = "swin_dense.PVTv2" if "v2" in name else "swin_dense.PVT"
    assert "type" not in options["init_cfg"]
    torch.save(swin_dense.PVT("tiny").state_dict(), tmp_path / "tiny.pth")
    options["init_cfg"]["checkpoint"] = str(tmp_path / "tiny.pth")
    ours = MODELS.build(options)
    arch = {"t": "tiny", "s": "small"}.get(name[4:], name[6:])
    meant = type(ours)(arch)
    assert [v.shape for v in ours.state_dict().values()] == [
        v.shape for v in meant.state_dict().values()
    ]
    if name == "pvt-t":
        ours.init_weights()
        saved = torch.load(tmp_path / "tiny.pth", weights_only=True)
        assert torch.equal(ours.block1[0].attn.q.weight, saved["block1.0.attn.q.weight"])
