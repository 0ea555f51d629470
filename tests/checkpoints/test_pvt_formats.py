"""Weights of other projects' own PVT classes load into ours and give the same maps."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import swin_dense
from swin_dense import UserError, load_pretrained
from swin_dense.checkpoints.convert import convert
from swin_dense.checkpoints.families.pvt import FAMILY, LAYOUTS, resize_positions
from swin_dense.checkpoints.formats import recognise, recognise_any
from swin_dense.engine.config import load_config
from tests.checkpoints.peers import assert_close, timm_module, v1

WIDTHS, HEADS, LAYERS = (8, 16, 40, 64), (1, 2, 5, 8), (2, 1, 2, 1)
SIZES = dict(embed_dims=8, num_layers=LAYERS, drop_path_rate=0.0)
KINDS = {
    "v1": lambda **options: swin_dense.PVT(pretrain_img_size=64, **SIZES, **options).eval(),
    "v2": lambda **options: swin_dense.PVTv2("b1", **SIZES, **options).eval(),
    "v2 linear": lambda **options: swin_dense.PVTv2("b2_li", **SIZES, **options).eval(),
}
IMAGES = [(64, 64), (97, 130), (250, 71)]
CLASSIFIER = {"head.weight": (5, 64), "head.bias": (5,)}
CLASSIFIER_V1 = CLASSIFIER | {
    "cls_token": (1, 1, 64), "norm.weight": (64,), "norm.bias": (64,)
}  # fmt: skip


def official_state(
    kind: str, parity: ModuleType, extra: dict[str, tuple[int, ...]] | None = None
) -> dict[str, Tensor]:
    """The official code's parameters of these sizes, filled by name."""
    shapes = {name: tuple(value.shape) for name, value in KINDS[kind]().named_parameters()}
    return {
        name: torch.from_numpy(
            parity.fill_array(name, shape, is_norm_weight="norm" in name and "weight" in name)
        )
        for name, shape in {**shapes, **(extra or {})}.items()
    }


def filled(peer: nn.Module, layout: str, official: dict[str, Tensor], prefix: str = "") -> Any:
    """``peer`` with official values in every parameter of it, under its own names."""
    state = LAYOUTS[layout].from_official(official)
    own = peer.state_dict()
    for name in [name for name in state if name not in own]:
        state[prefix + name] = state.pop(name)
    peer.load_state_dict(state, strict=True)
    return peer.eval()


def assert_equal_maps(ours: nn.Module, peer: Any) -> None:
    for image_hw in IMAGES:
        images = torch.randn(1, 3, *image_hw)
        with torch.no_grad():
            assert_close(list(ours(images)), list(peer(images)))


def assert_holds(model: nn.Module, official: dict[str, Tensor]) -> None:
    for name, value in model.named_parameters():
        assert torch.equal(value, official[name]), name


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_mmdet(kind: str, parity: ModuleType) -> None:
    from mmdet.models.backbones import pvt

    peer = pvt.PyramidVisionTransformerV2(**SIZES)
    if kind == "v1":
        peer = pvt.PyramidVisionTransformer(pretrain_img_size=64, **SIZES)
    filled(peer, "mm", official_state(kind, parity))
    ours = KINDS[kind](inner_norm_eps=1e-6)
    report = load_pretrained(ours, peer.state_dict())
    assert (report.format, report.coverage) == ("mm", 1.0)
    assert (report.missing, report.unexpected, report.resized) == ([], [], [])
    assert_equal_maps(ours, peer)


@pytest.mark.parametrize("kind", ["v2", "v2 linear"])
def test_timm(kind: str, parity: ModuleType) -> None:
    peer = timm_module("pvt_v2").PyramidVisionTransformerV2(
        depths=LAYERS,
        embed_dims=WIDTHS,
        num_heads=HEADS,
        linear=kind == "v2 linear",
        num_classes=5,
    )
    official = official_state(kind, parity, CLASSIFIER)
    filled(peer, "timm", official)
    ours = KINDS[kind]()
    report = load_pretrained(ours, peer.state_dict())
    assert (report.format, report.coverage) == ("timm", 1.0)
    assert report.unexpected == ["head.bias", "head.weight"]
    assert_holds(ours, official)

    def maps_of_timm(images: Tensor) -> list[Tensor]:
        grid, maps = peer.patch_embed(images), []
        for stage in peer.stages:
            grid = stage(grid)
            maps.append(grid)
        return maps

    assert_equal_maps(ours, maps_of_timm)


TRANSFORMERS = dict(
    hidden_sizes=list(WIDTHS), depths=list(LAYERS), num_attention_heads=list(HEADS), num_labels=5
)


@pytest.mark.parametrize("kind", ["v2", "v2 linear"])
def test_transformers_v2_backbone(kind: str, parity: ModuleType) -> None:
    transformers = pytest.importorskip("transformers", reason="run `make setup`")
    config = transformers.PvtV2Config(
        **TRANSFORMERS, linear_attention=kind == "v2 linear", out_indices=[0, 1, 2, 3]
    )
    peer = filled(transformers.PvtV2Backbone(config), "hf", official_state(kind, parity))
    ours = KINDS[kind](inner_norm_eps=1e-6)
    report = load_pretrained(ours, peer.state_dict())
    assert (report.format, report.coverage, report.unexpected) == ("hf", 1.0, [])
    assert_equal_maps(ours, lambda images: peer(images).feature_maps)


@pytest.mark.parametrize("kind", ["v1", "v2", "v2 linear"])
def test_transformers_classifiers_from_their_files(
    kind: str, parity: ModuleType, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="run `make setup`")
    official = official_state(kind, parity, CLASSIFIER_V1 if kind == "v1" else {})
    if kind == "v1":
        config = transformers.PvtConfig(**TRANSFORMERS, image_size=64)
        peer, prefix = transformers.PvtForImageClassification(config), "pvt."
    else:
        config = transformers.PvtV2Config(
            **TRANSFORMERS, image_size=64, linear_attention=kind == "v2 linear"
        )
        peer, prefix = transformers.PvtV2ForImageClassification(config), "pvt_v2."
        official |= {f"head.{leaf}": value for leaf, value in peer.classifier.named_parameters()}
    renamed = {name.replace("head.", "classifier."): value for name, value in official.items()}
    filled(peer, "hf", renamed, prefix).save_pretrained(tmp_path)
    ours = KINDS[kind](inner_norm_eps=1e-6)
    report = load_pretrained(ours, tmp_path / "model.safetensors")
    assert (report.format, report.coverage) == ("hf", 1.0)
    assert "in the file only" not in str(report)
    assert_holds(ours, official)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        states = peer(images, output_hidden_states=True).hidden_states
        maps = ours(images)
    if kind == "v1":  # one state a block, (B, L, C); in stage 4 the class token attends as well
        ends = [states[1], states[2], states[4]]
        states = [
            end.transpose(1, 2).reshape(feature.shape)
            for end, feature in zip(ends, maps, strict=False)
        ]
        maps = maps[:3]
    assert_close(list(maps), list(states[-len(maps) :]))


@pytest.mark.parametrize("container", ["model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
@pytest.mark.parametrize("kind", KINDS)
def test_official_files(kind: str, prefix: str, container: str, parity: ModuleType) -> None:
    official = official_state(kind, parity, CLASSIFIER_V1 if kind == "v1" else CLASSIFIER)
    ours = KINDS[kind]()
    source = {container: {prefix + name: value for name, value in official.items()}}
    report = load_pretrained(ours, source)
    assert (report.format, report.coverage, report.resized) == ("official", 1.0, [])
    assert report.missing_suspicious == []
    assert_holds(ours, official)


ROUND_TRIPS = [
    (kind, layout) for kind in KINDS for layout in LAYOUTS if (kind, layout) != ("v1", "timm")
]  # timm has PVT v2 alone


@pytest.mark.parametrize(("kind", "layout"), ROUND_TRIPS)
def test_a_round_trip_through_a_layout_is_exact(kind: str, layout: str, parity: ModuleType) -> None:
    official = official_state(kind, parity)
    if (kind, layout) == ("v1", "mm"):
        official["pos_embed4"][:, 0] = 0  # the class token's, which mmdet does not have
    foreign = LAYOUTS[layout].from_official(official)
    assert (layout == "official") == (set(foreign) == set(official))
    found = recognise(foreign, FAMILY)
    assert found is not None
    assert (found.layout, found.prefix) == (layout, "")
    assert set(found.backbone) == set(official)
    assert all(torch.equal(found.backbone[name], value) for name, value in official.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pvt_is_not_taken_for_another_family(layout: str, parity: ModuleType) -> None:
    foreign = LAYOUTS[layout].from_official(official_state("v2", parity))
    found = recognise_any(foreign)
    assert found is not None
    assert found.family is FAMILY
    with pytest.raises(UserError, match=rf"holds no Swin .*; it is a PVT \({layout} layout\)"):
        load_pretrained(v1(), foreign)


def test_a_swin_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"holds no PVT .*; it is a Swin \(official layout\)"):
        load_pretrained(KINDS["v2"](), v1().state_dict())


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("v1", {}, ["PVT v1", "PVT v2"]),
        ("v2", dict(mlp_ratios=(4, 4, 4, 4)), ["mlp_ratio=4.0", "mlp_ratio=8.0"]),
        ("v2 linear", {}, ["linear=True", "linear=False"]),
        ("v2", dict(num_layers=(2, 1, 3, 1)), ["depths=(2, 1, 2, 1)", "depths=(2, 1, 3, 1)"]),
    ],
)
def test_another_variant_is_refused_with_both_sizes(
    kind: str, options: dict[str, Any], words: list[str], parity: ModuleType
) -> None:
    makers = {"v1": swin_dense.PVT, "v2": swin_dense.PVTv2, "v2 linear": swin_dense.PVTv2}
    arch = {"v1": "tiny", "v2": "b1", "v2 linear": "b2_li"}[kind]
    model = makers[kind](arch, **{**SIZES, **options})
    source = official_state("v2", parity)
    with pytest.raises(UserError) as caught:
        load_pretrained(model, source)
    for word in words:
        assert word in str(caught.value)


def test_positions_of_another_image_size_are_resized_and_the_class_token_stays(
    parity: ModuleType,
) -> None:
    official = official_state("v1", parity)
    larger = swin_dense.PVT(pretrain_img_size=96, **SIZES)
    report = load_pretrained(larger, official)
    assert report.resized == [f"pos_embed{stage}" for stage in (1, 2, 3, 4)]
    assert torch.equal(larger.pos_embed4[:, 0], official["pos_embed4"][:, 0])
    grid = official["pos_embed2"].transpose(1, 2).reshape(1, 16, 8, 8)
    expected = nn.functional.interpolate(grid, size=(12, 12), mode="bilinear")
    torch.testing.assert_close(
        larger.pos_embed2.detach(), expected.flatten(2).transpose(1, 2), rtol=0, atol=1e-6
    )


def test_a_table_that_is_no_square_is_left_alone() -> None:
    table = torch.randn(1, 7, 2)
    assert resize_positions(table, 9) is table
    assert resize_positions(torch.ones(1, 5, 2), 16).shape == (1, 5, 2)


def test_one_or_six_channels_fit_the_first_embedding_alone(parity: ModuleType) -> None:
    official = official_state("v2", parity)
    for channels in (1, 6):
        report = load_pretrained(KINDS["v2"](in_channels=channels), official)
        assert (report.resized, report.coverage) == (["patch_embed1.proj.weight"], 1.0)


def test_a_whole_state_dict_of_mmdet_loads_strictly(parity: ModuleType) -> None:
    official = official_state("v1", parity)
    foreign = LAYOUTS["mm"].from_official(official)
    whole = nn.ModuleDict({"backbone": KINDS["v1"](), "head": nn.Linear(2, 2)})
    state = {f"backbone.{name}": value for name, value in foreign.items()}
    whole.load_state_dict({**state, "head.weight": torch.ones(2, 2), "head.bias": torch.ones(2)})
    assert whole["head"].weight.sum() == 4
    official["pos_embed4"][:, 0] = 0
    assert_holds(whole["backbone"], official)


def test_converting_a_pvt_says_that_only_swin_is_converted(parity: ModuleType) -> None:
    with pytest.raises(UserError, match="it is a PVT, and only Swin is converted"):
        convert(official_state("v2", parity), "timm")


def test_a_whole_detector_of_mmdet_is_filled_to_the_last_number(parity: ModuleType) -> None:
    import mmdet.models  # noqa: F401  registers its classes
    from mmdet.registry import MODELS

    init_default_scope("mmdet")
    cfg = load_config("retinanet/retinanet_pvtv2_b0_fpn_1x_coco.py").model
    cfg.neck.update(in_channels=list(WIDTHS), out_channels=16)
    cfg.bbox_head.update(in_channels=16, feat_channels=16, num_classes=3)
    cfg.backbone = dict(type="swin_dense.PVTv2", arch="b1", inner_norm_eps=1e-6, **SIZES)
    ours = MODELS.build(cfg)
    cfg.backbone = dict(type="mmdet.PyramidVisionTransformerV2", init_cfg=None, **SIZES)
    theirs = MODELS.build(cfg)
    filled(theirs.backbone, "mm", official_state("v2", parity))
    report = load_pretrained(ours, {"state_dict": theirs.state_dict()})
    assert (report.scope, report.format, report.coverage) == ("model", "mm", 1.0)
    assert (report.missing, report.unexpected, report.reinitialised) == ([], [], [])
    images = torch.randn(1, 3, 97, 130)
    with torch.no_grad():
        for got, want in zip(ours.eval()(images), theirs.eval()(images), strict=True):
            assert_close(list(got), list(want))


def test_beside_a_teacher_of_another_family_the_backbone_is_filled(parity: ModuleType) -> None:
    official = official_state("v2", parity)
    both = nn.ModuleDict({"teacher": v1(), "backbone": KINDS["v2"]()})
    before = {name: value.clone() for name, value in both["teacher"].named_parameters()}
    assert load_pretrained(both, official).coverage == 1.0
    assert_holds(both["backbone"], official)
    assert_holds(both["teacher"], before)
