"""ViT, DeiT and ViTDet against the official record, published counts, and plain attention."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import swin_dense
from swin_dense.layers.grid_attention import GridAttention
from swin_dense.models.simple_feature_pyramid import SimpleFeaturePyramid
from swin_dense.ops import fused
from swin_dense.ops.decomposed import (
    attend_appended,
    attend_by_heads,
    attend_with_bias,
    relative_vectors,
)
from tests.backbones.zoo import build, weighted_sum


class Whole(nn.Module):
    """Backbone and pyramid under the names of the official code, where one holds the other."""

    def __init__(self) -> None:
        super().__init__()
        self.net = swin_dense.VisionTransformer(
            embed_dims=64,
            num_layers=4,
            num_heads=4,
            img_size=320,
            window_size=7,
            window_block_indexes=(0, 2),
            use_rel_pos=True,
        )
        pyramid = SimpleFeaturePyramid(64, 32)
        for name in pyramid.levels:
            self.add_module(name, getattr(pyramid, name))
        self.__dict__["pyramid"] = pyramid

    def forward(self, images: Tensor) -> list[Tensor]:
        (last,) = self.net(images)
        return [last, *self.__dict__["pyramid"](last)]


def test_maps_equal_the_official_record(parity: ModuleType, shared: Path) -> None:
    record = json.loads((shared / "parity" / "vitdet_mini_hot.json").read_text())
    model = parity.fill(Whole())
    assert sum(parameter.numel() for parameter in model.parameters()) == record["params"]
    for name in record["inputs"]:
        side_h, side_w = map(int, name[1:].split("x"))
        with torch.no_grad():
            maps = model(parity.make_input((1, 3, side_h, side_w)))
        assert parity.compare("vitdet_mini_hot", name, maps) == []


VITDET = {
    "tiny": (5_616_512, 5_523_840, 2_664_880),
    "small": (21_757_184, 21_664_512, 3_298_144),
    "base": (85_889_024, 85_796_352, 5_560_000),
    "large": (303_432_704, 303_298_560, 7_805_184),
    "huge": (631_116_800, 630_914_560, 10_640_192),
}


@pytest.mark.parametrize("arch", VITDET)
def test_parameters_of_vitdet_are_the_official_ones(arch: str) -> None:
    with torch.device("meta"):
        models = [
            swin_dense.VisionTransformer(arch, img_size=1024, window_size=14, use_rel_pos=True),
            swin_dense.VisionTransformer(arch, img_size=1024, window_size=14),
            SimpleFeaturePyramid(swin_dense.VisionTransformer.architectures[arch]["embed_dims"]),
        ]
    counts = [sum(value.numel() for value in model.parameters()) for model in models]
    assert tuple(counts) == VITDET[arch]


@pytest.mark.parametrize(
    ("arch", "distilled", "total"),
    [
        ("tiny", False, 5_717_416),
        ("small", False, 22_050_664),
        ("base", False, 86_567_656),
        ("large", False, 304_326_632),
        ("tiny", True, 5_910_800),
        ("small", True, 22_436_432),
        ("base", True, 87_338_192),
    ],
)
def test_parameters_of_deit_are_the_official_ones(arch: str, distilled: bool, total: int) -> None:
    with torch.device("meta"):
        model = swin_dense.VisionTransformer(arch, final_norm=True, with_dist_token=distilled)
    heads = (1 + distilled) * 1000 * (model.embed_dims + 1)
    assert sum(value.numel() for value in model.parameters()) + heads == total


@pytest.mark.parametrize(
    ("arch", "whole"),
    [("base", (2, 5, 8, 11)), ("large", (5, 11, 17, 23)), ("huge", (7, 15, 23, 31))],
)
def test_four_evenly_spread_blocks_see_the_whole_image(arch: str, whole: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model: Any = swin_dense.VisionTransformer(arch, window_size=14)
    windows = [block.attn.window_size for block in model.blocks]
    assert tuple(index for index, window in enumerate(windows) if not window) == whole


def attention_by_loops(
    query: Tensor, key: Tensor, value: Tensor, table_h: Tensor, table_w: Tensor, width: int
) -> Tensor:
    """Attention of one head over a grid, pair by pair."""
    count, dim = query.shape
    reach_h, reach_w = (len(table_h) - 1) // 2, (len(table_w) - 1) // 2
    logits = torch.empty(count, count, dtype=query.dtype)
    for i in range(count):
        for j in range(count):
            rows, columns = i // width - j // width, i % width - j % width
            offset = table_h[rows + reach_h] + table_w[columns + reach_w]
            logits[i, j] = query[i] @ key[j] * dim**-0.5 + query[i] @ offset
    return logits.softmax(dim=-1) @ value


def test_decomposed_positions_equal_a_loop_over_all_pairs() -> None:
    height, width, dim = 3, 4, 5
    query, key, value = torch.randn(3, 1, 1, height * width, dim, dtype=torch.double)
    table_h = torch.randn(2 * height - 1, dim, dtype=torch.double)
    table_w = torch.randn(2 * width - 1, dim, dtype=torch.double)
    expected = attention_by_loops(query[0, 0], key[0, 0], value[0, 0], table_h, table_w, width)
    for attend in (attend_appended, attend_by_heads, attend_with_bias):
        got = attend(
            query,
            key,
            value,
            relative_vectors(table_h, height),
            relative_vectors(table_w, width),
            scale=dim**-0.5,
        )
        torch.testing.assert_close(got[0, 0], expected)


def test_a_table_for_another_side_is_interpolated_between_its_ends() -> None:
    table = torch.tensor([[0.0], [1.0], [2.0]])  # offsets -1, 0, 1
    vectors = relative_vectors(table, 3)[..., 0]
    assert torch.allclose(vectors[1], torch.tensor([1.6, 1.0, 0.4]))  # query 1: offsets 1, 0, -1
    assert vectors[0, 2] == 0.0
    assert vectors[2, 0] == 2.0


def by_one_head(*arguments: Tensor, scale: float) -> Tensor:
    """Attend in the smallest groups, which is what large grids get."""
    return attend_by_heads(*arguments, scale=scale, bias_numbers=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grid_hw", [(6, 6), (5, 7), (1, 4)])
@pytest.mark.parametrize("fast", [attend_appended, attend_by_heads, by_one_head])
def test_the_fast_paths_have_the_values_and_gradients_of_their_twin(
    fast: Any, grid_hw: tuple[int, int], dtype: torch.dtype
) -> None:
    cells, dim = grid_hw[0] * grid_hw[1], 8
    leaves = [torch.randn(2, 4, cells, dim).requires_grad_() for _ in range(3)]
    tables = [torch.randn(2 * side - 1, dim).requires_grad_() for side in grid_hw]
    results = []
    for attend in (fast, attend_with_bias):
        for leaf in (*leaves, *tables):
            leaf.grad = None
        vectors = [
            relative_vectors(table, side) for table, side in zip(tables, grid_hw, strict=True)
        ]
        mixed = attend(*(leaf.to(dtype) for leaf in leaves), *vectors, scale=dim**-0.5)
        weighted_sum([mixed.float()]).backward()
        results.append([mixed.float(), *(leaf.grad for leaf in (*leaves, *tables))])
    tolerance = 1e-5 if dtype == torch.float32 else 0.04
    for got, expected in zip(*results, strict=True):
        assert (got - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item())


def test_the_switch_leads_to_the_plain_twin_with_the_same_values() -> None:
    attention = GridAttention(32, num_heads=4, window_size=3, position_hw=(3, 3))
    for table in (attention.rel_pos_h, attention.rel_pos_w):
        assert table is not None
        nn.init.normal_(table)
    tokens = torch.randn(2, 35, 32)
    fast = attention(tokens, (5, 7))
    with fused.plain():
        torch.testing.assert_close(attention(tokens, (5, 7)), fast)


def test_windows_hide_the_rest_of_the_image() -> None:
    model = build("ViTDet", window_block_indexes=(0, 1, 2, 3), residual_block_indexes=()).eval()
    images = torch.randn(1, 3, 96, 96)
    changed = images.clone()
    changed[..., 48:, :] += 1.0  # the windows of the lower half
    with torch.no_grad():
        (before,), (after,) = model(images), model(changed)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.equal(before[:, :, 3:], after[:, :, 3:])


def test_the_tokens_come_out_beside_the_maps() -> None:
    model = build("VisionTransformer").eval()
    with torch.no_grad():
        maps, tokens = model.maps_and_tokens(torch.randn(2, 3, 64, 80))
        assert tokens.shape == (2, 2, 16)
        assert not torch.equal(tokens[:, 0], tokens[:, 1])
        assert [tuple(feature.shape) for feature in maps] == [(2, 16, 4, 5)] * 4
        none = build("ViTDet").eval().maps_and_tokens(torch.randn(1, 3, 64, 80))[1]
    assert none.shape == (1, 0, 16)
