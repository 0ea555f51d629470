"""The pyramid of a plain backbone: its levels, and what it refuses. Values: tests/backbones."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS

from swin_dense import UserError
from swin_dense.layers.channel_norm import LayerNorm2d
from swin_dense.models.simple_feature_pyramid import SimpleFeaturePyramid


def test_levels_have_the_strides_of_their_names_at_odd_sizes() -> None:
    neck = SimpleFeaturePyramid([8, 16], 4, num_outs=6)
    levels = neck([torch.randn(2, 8, 5, 7), torch.randn(2, 16, 5, 7)])
    sides = [tuple(level.shape[2:]) for level in levels]
    assert sides == [(20, 28), (10, 14), (5, 7), (3, 4), (2, 2), (1, 1)]
    assert all(level.shape[:2] == (2, 4) for level in levels)
    assert neck.levels == ["simfp_2", "simfp_3", "simfp_4", "simfp_5"]


def test_each_cell_is_normed_by_itself() -> None:
    maps = torch.randn(2, 6, 3, 5)
    normed = LayerNorm2d(6)(maps)
    cell = maps[1, :, 2, 4]
    expected = (cell - cell.mean()) / (cell.var(unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(normed[1, :, 2, 4], expected)


def test_hosts_build_it_and_its_norm_by_name() -> None:
    neck = MODELS.build(dict(type="swin_dense.SimpleFeaturePyramid", in_channels=16))
    assert type(neck) is SimpleFeaturePyramid
    from mmcv.cnn import ConvModule

    block = ConvModule(4, 8, 3, norm_cfg=dict(type="swin_dense.LayerNorm2d"))
    assert type(block.norm) is LayerNorm2d
    assert block(torch.randn(1, 4, 5, 5)).shape == (1, 8, 3, 3)


def test_wrong_options_and_maps_are_named() -> None:
    with pytest.raises(UserError, match=r"scale_factors=\(3,\).*4, 2, 1 and 0.5"):
        SimpleFeaturePyramid(16, scale_factors=(3,))
    with pytest.raises(UserError, match=r"num_outs=2 for 4 scales"):
        SimpleFeaturePyramid(16, num_outs=2)
    with pytest.raises(UserError, match=r"8 channels.*in_channels=16"):
        SimpleFeaturePyramid(16)(torch.zeros(1, 8, 4, 4))
