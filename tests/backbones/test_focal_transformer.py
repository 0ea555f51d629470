"""Focal Transformer against the official code's record, its names and its classifiers' files."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import swin_dense
from swin_dense import UserError, load_pretrained

MINI = dict(embed_dims=12, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4), drop_path_rate=0.0)


def mini(**options: object) -> swin_dense.FocalTransformer:
    return swin_dense.FocalTransformer(**{**MINI, **options})


def classifier_file(**options: object) -> dict[str, dict[str, Tensor]]:
    """What the official code saves of a classifier: parameters, its buffers, and the head."""
    state = dict(mini(out_norm="last", **options).state_dict())
    for block in {key.rpartition(".attn.qkv")[0] for key in state if ".attn.qkv" in key}:
        state[f"{block}.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
        state[f"{block}.attn.relative_position_index_0"] = torch.zeros(49, 9, dtype=torch.int64)
        if f"{block}.attn.relative_position_bias_table_to_neighbors" in state:
            state[f"{block}.attn.valid_ind_rolled"] = torch.arange(132)
    state["head.weight"], state["head.bias"] = torch.zeros(1000, 96), torch.zeros(1000)
    return {"model": state}


def test_maps_equal_the_official_record(parity: ModuleType, shared: Path) -> None:
    tag = "focal_t_hot"
    record = json.loads((shared / "parity" / f"{tag}.json").read_text())
    model = parity.fill(swin_dense.FocalTransformer("tiny", out_norm="none"))
    last = parity.fill(swin_dense.FocalTransformer("tiny", out_norm="last"))
    for name, outputs in record["inputs"].items():
        side_h, side_w = map(int, name[1:].split("x"))
        images = parity.make_input((1, 3, side_h, side_w))
        with torch.no_grad():
            assert parity.compare(tag, name, [*model(images), last(images)[3]]) == []
        assert outputs["out3"]["shape"][2:] == [-(-side_h // 32), -(-side_w // 32)]


def test_the_recorded_way_gives_the_recorded_maps_too(parity: ModuleType) -> None:
    model = parity.fill(swin_dense.FocalTransformer("tiny", out_norm="none"))
    maps = model(parity.make_input((1, 3, 224, 320)))
    assert maps[0].requires_grad
    assert parity.compare("focal_t_hot", "i224x320", maps) == []


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (dict(arch="T"), 28_111_380),
        (dict(arch="small"), 50_372_940),
        (dict(arch="b"), 88_790_400),
        (dict(arch="tiny", use_conv_embed=True), 30_056_244),
    ],
)
def test_each_arch_has_the_classifiers_parameter_count(
    options: dict[str, object], parameters: int
) -> None:
    with torch.device("meta"):
        model = swin_dense.FocalTransformer(out_norm="last", **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_official_parameter_names_and_shapes_are_frozen() -> None:
    model = mini(depths=(1, 1), num_heads=(1, 2), expand_sizes=(3, 0), focal_windows=(7, 0))
    common = [
        "norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight",
        "attn.proj.bias", "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias",
        "mlp.fc2.weight", "mlp.fc2.bias", "attn.relative_position_bias_table",
    ]  # fmt: skip
    focal = [
        "attn.relative_position_bias_table_to_neighbors",
        "attn.relative_position_bias_table_to_windows.0",
        "pool_layers.0.weight",
        "pool_layers.0.bias",
    ]
    convolution = ["proj.weight", "proj.bias", "norm.weight", "norm.bias"]
    assert set(model.state_dict()) == {
        *(f"patch_embed.{leaf}" for leaf in convolution),
        *(f"layers.0.blocks.0.{leaf}" for leaf in common + focal),
        *(f"layers.0.downsample.{leaf}" for leaf in convolution),
        *(f"layers.1.blocks.0.{leaf}" for leaf in common),
        *("norm0.weight", "norm0.bias", "norm1.weight", "norm1.bias"),
    }
    attention = model.layers[0].blocks[0].attn
    assert attention.relative_position_bias_table.shape == (169, 1)
    assert attention.relative_position_bias_table_to_neighbors.shape == (1, 1, 49, 132)
    assert attention.relative_position_bias_table_to_windows[0].shape == (1, 169)
    assert model.layers[0].blocks[0].pool_layers[0].weight.shape == (1, 49)
    assert model.layers[0].downsample.proj.weight.shape == (24, 12, 2, 2)


def test_a_classifier_fills_everything_but_the_output_norms() -> None:
    checkpoint = classifier_file()
    model = mini()
    report = load_pretrained(model, checkpoint)
    assert (report.format, report.scope) == ("official", "backbone")
    assert report.missing_suspicious == []
    assert report.missing_expected == [
        f"norm{index}.{kind}" for index in range(4) for kind in ("weight", "bias")
    ]
    assert report.unexpected == ["head.bias", "head.weight", "norm.bias", "norm.weight"]
    for key, value in model.named_parameters():
        if key in checkpoint["model"]:
            assert torch.equal(value, checkpoint["model"][key]), key


def test_a_last_stage_that_is_expanded_says_that_its_table_is_fresh() -> None:
    report = load_pretrained(mini(expand_sizes=(3, 3, 3, 3)), classifier_file())
    table = "layers.3.blocks.0.attn.relative_position_bias_table_to_neighbors"
    assert table in report.missing_expected
    assert report.missing_suspicious == []


def test_another_window_resizes_swins_table_and_names_what_starts_fresh() -> None:
    checkpoint = classifier_file()
    model = mini(window_size=9)
    report = load_pretrained(model, checkpoint, min_coverage=0.5)
    blocks = [f"layers.{index}.blocks.0" for index in (0, 1, 3)] + [
        f"layers.2.blocks.{index}" for index in (0, 1)
    ]
    assert set(report.resized) == {f"{block}.attn.relative_position_bias_table" for block in blocks}
    assert {
        name.rpartition("blocks.0.")[2] for name in report.reinitialised if ".2." not in name
    } == {
        "attn.relative_position_bias_table_to_neighbors",
        "attn.relative_position_bias_table_to_windows.0",
        "pool_layers.0.weight",
    }
    pool = model.layers[0].blocks[0].pool_layers[0].weight
    torch.testing.assert_close(pool.detach(), torch.full((1, 81), 1 / 81))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(depths=(1, 1, 4, 1)), ["depths=(1, 1, 2, 1)", "depths=(1, 1, 4, 1)"]),
        (dict(use_conv_embed=True), ["use_conv_embed=False", "use_conv_embed=True"]),
        (dict(embed_dims=24), ["embed_dims=12", "embed_dims=24"]),
    ],
)
def test_a_classifier_of_other_sizes_is_refused_with_both_sizes(
    options: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        load_pretrained(mini(**options), classifier_file())
    for word in words:
        assert word in str(caught.value)


def test_pooling_counts_padded_tokens_as_zeros() -> None:
    block = mini().layers[0].blocks[0]
    padded = torch.zeros(1, 7, 14, 12)
    padded[:, :, :9] = 7.0  # 2 of the 7 columns of the second window are real
    pooled = block.pool(padded)
    torch.testing.assert_close(pooled[0, 0, :, 0].detach(), torch.tensor([7.0, 2.0]))


def test_images_are_padded_to_whole_patches_and_maps_to_whole_cells() -> None:
    for overlapping in (False, True):
        model = mini(use_conv_embed=overlapping, out_norm="none").eval()
        images = torch.randn(1, 3, 61, 90)
        padded = torch.nn.functional.pad(images, (0, 2, 0, 3))
        with torch.no_grad():
            for got, want in zip(model(images), model(padded), strict=True):
                assert torch.equal(got, want)
            assert model(images)[3].shape[2:] == (2, 3)
