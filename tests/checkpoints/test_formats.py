"""Weights of other projects' own classes load into ours and give the same maps."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import swin_dense
from swin_dense import UserError, load_pretrained
from swin_dense.checkpoints.families.swin import FAMILY, LAYOUTS
from swin_dense.checkpoints.formats import recognise, recognise_any
from tests.checkpoints.peers import (
    DEPTHS,
    HEADS,
    IMAGE,
    WINDOW,
    assert_close,
    filled,
    official_state,
    stage_maps,
    timm_class,
    v1,
    v2,
)

VERSIONS = {"V1": v1, "V2": v2}
HF_SIZES = dict(
    embed_dim=16,
    depths=list(DEPTHS),
    num_heads=list(HEADS),
    window_size=WINDOW,
    image_size=IMAGE,
    drop_path_rate=0.0,
    num_labels=5,
)


def assert_loads_everything(model: Any, source: Any, format_name: str) -> None:
    """Everything but the output norms must come from the checkpoint, equal to the last bit."""
    report = load_pretrained(model, source)
    assert report.format == format_name
    assert report.missing_suspicious == []
    assert all(name.startswith("norm") for name in report.missing)
    assert (report.resized, report.reinitialised) == ([], [])
    assert set(report.unexpected) <= {"norm.weight", "norm.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize("version", VERSIONS)
def test_timm(version: str, parity: ModuleType) -> None:
    make = VERSIONS[version]
    kind = timm_class("SwinTransformer" + ("V2" if version == "V2" else ""))
    peer = kind(
        img_size=IMAGE,
        embed_dim=16,
        depths=DEPTHS,
        num_heads=HEADS,
        window_size=WINDOW,
        num_classes=5,
    )
    filled(peer, "timm", official_state(make(), parity))
    ours = make(clamp_small_maps=True)
    assert_loads_everything(ours, peer.state_dict(), "timm")
    images = torch.randn(1, 3, IMAGE, IMAGE)
    with torch.no_grad():
        expected = [m.permute(0, 3, 1, 2) for m in stages_of_timm(peer, images)]
    assert_close(stage_maps(ours, images), expected)


def stages_of_timm(peer: Any, images: Tensor) -> list[Tensor]:
    maps, tokens = [], peer.patch_embed(images)
    for stage in peer.layers:
        tokens = stage(tokens)
        maps.append(tokens)
    return maps


@pytest.mark.parametrize("version", VERSIONS)
def test_timm_features_only_names(version: str, parity: ModuleType) -> None:
    make = VERSIONS[version]
    state = LAYOUTS["timm"].from_official(official_state(make(), parity, head=False))
    flat = {key.replace("layers.", "layers_"): value for key, value in state.items()}
    ours = make()
    assert_loads_everything(ours, flat, "timm (features only)")
    for name, value in official_state(make(), parity, head=False).items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("in_memory", [True, False])
def test_transformers_swin_backbone(in_memory: bool, parity: ModuleType, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="run `make setup`")
    stages = ["stage1", "stage2", "stage3", "stage4"]
    peer = transformers.SwinBackbone(transformers.SwinConfig(**HF_SIZES, out_features=stages))
    official = {**official_state(v1(), parity, head=False)}
    for index in range(4):
        for leaf in ("weight", "bias"):
            values = parity.fill_array(
                f"norm{index}.{leaf}", (16 << index,), is_norm_weight=leaf == "weight"
            )
            official[f"norm{index}.{leaf}"] = torch.from_numpy(values)
    folder = saved_by_transformers(peer, official, tmp_path)
    peer = transformers.SwinBackbone.from_pretrained(folder).eval()
    ours = v1()
    source = peer.state_dict() if in_memory else folder / "model.safetensors"
    report = load_pretrained(ours, source)
    assert report.format == ("hf (in memory)" if in_memory else "hf")
    assert report.coverage == 1.0
    for size in (IMAGE, 100):
        images = torch.randn(1, 3, size, size + 24)
        with torch.no_grad():
            assert_close(list(ours(images)), list(peer(images).feature_maps))


def saved_by_transformers(peer: Any, official: dict[str, Tensor], folder: Path) -> Path:
    """Write a folder as transformers does, then give its file our values under the same names."""
    from safetensors.torch import load_file, save_file

    peer.save_pretrained(folder)
    names = load_file(folder / "model.safetensors")
    prefix = next((key[: key.index("embeddings.")] for key in names if "embeddings." in key), "")
    state = {
        key if key.startswith(("classifier.", "hidden_states_norms.")) else prefix + key: value
        for key, value in LAYOUTS["hf"].from_official(official).items()
    }
    assert set(state) <= set(names)
    # version 5 writes the last norm of the model inside a backbone, which the backbone never uses
    unused = {"swin.layernorm.weight", "swin.layernorm.bias"} - set(state)
    assert set(names) - set(state) <= unused
    state |= {key: names[key] for key in set(names) & unused}
    save_file(
        {k: v.contiguous() for k, v in state.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


@pytest.mark.parametrize("version", VERSIONS)
def test_transformers_classifiers(version: str, parity: ModuleType, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="run `make setup`")
    name = "Swinv2" if version == "V2" else "Swin"
    config = getattr(transformers, f"{name}Config")(**HF_SIZES)
    peer = getattr(transformers, f"{name}ForImageClassification")(config)
    make = VERSIONS[version]
    folder = saved_by_transformers(peer, official_state(make(), parity), tmp_path)
    ours = make()
    assert_loads_everything(ours, folder / "model.safetensors", "hf")
    peer = type(peer).from_pretrained(folder).eval()
    in_memory = make()
    load_pretrained(in_memory, peer.state_dict())
    for key, value in official_state(make(), parity, head=False).items():
        assert torch.equal(ours.state_dict()[key], value), key
        assert torch.equal(in_memory.state_dict()[key], value), key
    images = torch.randn(1, 3, IMAGE, IMAGE)
    clamping = make(clamp_small_maps=True)
    load_pretrained(clamping, folder / "model.safetensors")
    with torch.no_grad():
        states = peer(images, output_hidden_states=True)
    last = stage_maps(clamping, images)[-1]
    assert_close([last], [states.reshaped_hidden_states[-1]])


@pytest.mark.parametrize("image_hw", [(128, 128), (97, 130)])
def test_mmdet_swin(image_hw: tuple[int, int], parity: ModuleType) -> None:
    from mmdet.models.backbones.swin import SwinTransformer

    peer = SwinTransformer(**SIZES_OF_MM, window_size=WINDOW)
    official = official_state(v1(), parity, head=False)
    official |= {
        key: value for key, value in parity.fill(v1()).state_dict().items() if "norm" in key
    }
    official = {key: official[key] for key in v1().state_dict()}
    filled(peer, "mm", official)
    ours = v1()
    report = load_pretrained(ours, peer.state_dict())
    assert (report.format, report.coverage) == ("mm", 1.0)
    images = torch.randn(1, 3, *image_hw)
    with torch.no_grad():
        assert_close(list(ours(images)), list(peer(images)))


SIZES_OF_MM = dict(embed_dims=16, depths=DEPTHS, num_heads=HEADS, drop_path_rate=0.0)


def torchvision_names(version: str) -> set[str]:
    """The keys of torchvision.models.swin_t or swin_v2_t of these sizes, written down by hand."""
    names = {"features.0.0.weight", "features.0.0.bias", "features.0.2.weight", "features.0.2.bias"}
    pair = ("weight", "bias")
    for stage in range(4):
        for block in range(2):
            stem = f"features.{2 * stage + 1}.{block}."
            names |= {f"{stem}{layer}.{leaf}" for layer in ("norm1", "norm2") for leaf in pair}
            names |= {f"{stem}attn.{layer}.{leaf}" for layer in ("qkv", "proj") for leaf in pair}
            names |= {f"{stem}mlp.{layer}.{leaf}" for layer in (0, 3) for leaf in pair}
            if version == "V1":
                names |= {f"{stem}attn.relative_position_bias_table"}
            else:
                mlp = ("0.weight", "0.bias", "2.weight")
                names |= {f"{stem}attn.cpb_mlp.{leaf}" for leaf in mlp}
                names |= {f"{stem}attn.logit_scale"}
        if stage < 3:
            stem = f"features.{2 * stage + 2}."
            names |= {f"{stem}reduction.weight", f"{stem}norm.weight", f"{stem}norm.bias"}
    return names | {"norm.weight", "norm.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize("version", VERSIONS)
def test_torchvision_layout(version: str, parity: ModuleType) -> None:
    make = VERSIONS[version]
    official = official_state(make(), parity)
    state = LAYOUTS["torchvision"].from_official(official)
    assert set(state) == torchvision_names(version)
    state["features.1.0.attn.relative_position_index"] = torch.arange(WINDOW**4)
    ours = make()
    assert_loads_everything(ours, state, "torchvision")
    for key, value in official_state(make(), parity, head=False).items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_the_joint_bias_of_torchvision_v2_has_no_part_for_keys(parity: ModuleType) -> None:
    state = LAYOUTS["torchvision"].from_official(official_state(v2(), parity))
    queries, keys, values = state["features.3.1.attn.qkv.bias"].chunk(3)
    assert keys.abs().max() == 0
    back = LAYOUTS["torchvision"].to_official(state)
    assert torch.equal(back["layers.1.blocks.1.attn.q_bias"], queries)
    assert torch.equal(back["layers.1.blocks.1.attn.v_bias"], values)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_round_trip_through_a_layout_is_exact(
    layout: str, version: str, parity: ModuleType
) -> None:
    official = official_state(VERSIONS[version](), parity)
    foreign = LAYOUTS[layout].from_official(official)
    found = recognise(foreign, FAMILY)
    assert found is not None
    assert found.layout == layout
    assert set(found.backbone) == set(official)
    assert all(torch.equal(found.backbone[key], value) for key, value in official.items())


WRAPPINGS: dict[str, tuple[str, str, str]] = {
    "Microsoft classification": ("model", "", "official"),
    "Microsoft MoBY": ("model", "encoder.", "official (self-supervised)"),
    "Microsoft SimMIM": ("model", "module.encoder.", "official (self-supervised)"),
    "Microsoft detection": ("state_dict", "backbone.", "official"),
    "distributed": ("state_dict", "module.backbone.", "official"),
    "detectron2": ("model", "backbone.bottom_up.", "detectron2"),
}


@pytest.mark.parametrize("case", WRAPPINGS)
def test_containers_and_prefixes_come_off(case: str, parity: ModuleType) -> None:
    container, prefix, name = WRAPPINGS[case]
    official = official_state(v1(), parity, head=False)
    state = {prefix + key: value for key, value in official.items()}
    state[prefix + "layers.0.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    state[prefix + "layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(16, 16)
    if "self-supervised" in name:
        for key, value in official.items():  # the slow copy, which must not win
            state[f"encoder_k.{key}"] = value + 1
        state["mask_token"] = torch.zeros(1, 1, 16)
    ours = v1()
    report = load_pretrained(ours, {container: state, "optimizer": {"lr": 1}})
    assert report.format == name
    for key, value in official.items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_mask2former_is_known_by_its_head(parity: ModuleType) -> None:
    official = official_state(v1(), parity, head=False)
    state = {f"backbone.{key}": value for key, value in official.items()}
    state["sem_seg_head.predictor.query_feat.weight"] = torch.zeros(3, 3)
    assert load_pretrained(v1(), {"model": state}).format == "detectron2"


def test_nothing_is_recognised_in_a_resnet() -> None:
    names = ("conv1.weight", "layer1.0.conv1.weight", "fc.weight")
    assert recognise_any(dict.fromkeys(names, torch.zeros(1))) is None


def test_a_focal_transformer_is_not_taken_for_the_swin_whose_names_it_has(
    parity: ModuleType,
) -> None:
    state = official_state(v1(), parity)
    state["layers.0.blocks.0.pool_layers.0.weight"] = torch.zeros(1, 4)
    with pytest.raises(UserError, match="holds no Swin"):
        load_pretrained(v1(), state)


@pytest.mark.parametrize("layout", ["official", "mm", "torchvision"])
def test_v2_biases_of_another_window_are_said_to_need_pretrained_window_sizes(
    layout: str, parity: ModuleType
) -> None:
    theirs = v2(window_size=8, pretrained_window_sizes=(6, 6, 6, 3))
    official = official_state(theirs, parity)
    official |= {k: v for k, v in theirs.named_buffers() if k.endswith("relative_coords_table")}
    state = LAYOUTS[layout].from_official(official)
    report = load_pretrained(v2(window_size=12), state)
    assert "pretrained_window_sizes=(6, 6, 6, 3)" in str(report)
    assert "scales them by (12, 12, 12, 12)" in str(report)
    right = v2(window_size=12, pretrained_window_sizes=(6, 6, 6, 3))
    assert load_pretrained(right, state).notes == []
    assert load_pretrained(v2(), official_state(v2(), parity)).notes == []


def test_tables_of_other_heads_are_left_fresh_and_said(parity: ModuleType) -> None:
    ours = v1(num_heads=(2, 2, 4, 8))
    before = ours.layers[0].blocks[0].attn.relative_position_bias_table.clone()
    report = load_pretrained(ours, official_state(v1(), parity))
    assert len(report.reinitialised) == 2
    assert "left fresh" in str(report)
    assert torch.equal(ours.layers[0].blocks[0].attn.relative_position_bias_table, before)


def test_mmpretrain_merges_before_a_stage_in_v2_and_norms_what_it_merged(
    parity: ModuleType,
) -> None:
    state = LAYOUTS["mm"].from_official(official_state(v2(), parity, head=False))
    merging = {name: tuple(v.shape) for name, v in state.items() if "downsample" in name}
    assert merging == {
        f"stages.{stage}.downsample.{leaf}": shape
        for stage in (1, 2, 3)
        for leaf, shape in (
            ("norm.weight", (16 << stage,)),
            ("norm.bias", (16 << stage,)),
            ("reduction.weight", (16 << stage, 32 << stage)),
        )
    }
    assert "stages.0.blocks.0.attn.w_msa.cpb_mlp.0.weight" in state
    assert "stages.0.blocks.0.attn.w_msa.q_bias" in state
    assert "stages.0.blocks.0.ffn.layers.0.0.weight" in state


def test_loading_a_whole_state_dict_still_translates(parity: ModuleType) -> None:
    state = LAYOUTS["mm"].from_official(official_state(v2(), parity, head=False))
    norms = {key: value for key, value in v2().state_dict().items() if key.startswith("norm")}
    fresh = swin_dense.SwinTransformerV2(
        embed_dims=16, depths=DEPTHS, num_heads=HEADS, window_size=4
    )
    fresh.load_state_dict({**state, **norms}, strict=True)
    for key, value in official_state(v2(), parity, head=False).items():
        assert torch.equal(fresh.state_dict()[key], value), key
