"""Plugins behind the maps of mmdet's FPN."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS

from swin_dense.errors import UserError

FPN = dict(type="mmdet.FPN", in_channels=[8, 16], out_channels=16, num_outs=2)
MAPS = [(1, 8, 7, 9), (1, 16, 4, 5)]


def test_each_map_of_the_neck_passes_through_its_own_plugins_in_order() -> None:
    import mmdet.models  # noqa: F401

    plugins = [dict(type="swin_dense.SE"), dict(type="swin_dense.CBAM")]
    cfg = dict(type="swin_dense.NeckWithPlugins", neck=FPN, plugins=plugins, num_levels=2)
    model, maps = MODELS.build(cfg).eval(), [torch.randn(shape) for shape in MAPS]
    plain = model.neck(maps)
    for level, (found, before) in enumerate(zip(model(maps), plain, strict=True)):
        se, cbam = model.plugins[level]
        assert torch.equal(found, cbam(se(before)))
        assert not torch.equal(found, before)


def test_a_wrong_number_of_levels_is_refused_with_the_right_one() -> None:
    import mmdet.models  # noqa: F401

    cfg = dict(type="swin_dense.NeckWithPlugins", neck=FPN, plugins=[], num_levels=3)
    with pytest.raises(UserError, match="num_levels=2"):
        MODELS.build(cfg)([torch.randn(shape) for shape in MAPS])
