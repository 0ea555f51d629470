"""The Swin classes of other projects, filled by the official names of their parameters."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import swin_dense
from swin_dense.backbones.timm_import import import_timm
from swin_dense.checkpoints.families.swin import LAYOUTS

DEPTHS = (2, 2, 2, 2)
HEADS = (1, 2, 4, 8)
SIZES = dict(embed_dims=16, depths=DEPTHS, num_heads=HEADS, drop_path_rate=0.0)
WINDOW = 4
IMAGE = 128
"""Grids of 32, 16, 8 and 4: multiples of the window, so that all padding rules agree."""


def v1(**options: Any) -> swin_dense.SwinTransformer:
    return swin_dense.SwinTransformer(**{**SIZES, "window_size": WINDOW, **options}).eval()


def v2(**options: Any) -> swin_dense.SwinTransformerV2:
    return swin_dense.SwinTransformerV2(**{**SIZES, "window_size": WINDOW, **options}).eval()


def official_state(model: nn.Module, parity: ModuleType, *, head: bool = True) -> dict[str, Tensor]:
    """The official code's parameters: a model's but norm0 to norm3, and a classifier's."""
    shapes = {
        name: tuple(value.shape)
        for name, value in model.named_parameters()
        if not name.startswith(("norm0", "norm1", "norm2", "norm3"))
    }
    if head:
        shapes |= {"norm.weight": (128,), "norm.bias": (128,)}
        shapes |= {"head.weight": (5, 128), "head.bias": (5,)}
    return {
        name: torch.from_numpy(
            parity.fill_array(name, shape, is_norm_weight="norm" in name and "weight" in name)
        )
        for name, shape in shapes.items()
    }


def filled(peer: nn.Module, layout: str, official: dict[str, Tensor]) -> nn.Module:
    """``peer`` with official values under its own names, every parameter of it."""
    state = LAYOUTS[layout].from_official(official)
    missing, unexpected = peer.load_state_dict(state, strict=False)
    assert not unexpected
    derived = ("relative_position_index", "relative_coords_table", "attn_mask")
    assert [name for name in missing if not name.endswith(derived)] == []
    return peer.eval()


def stage_maps(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Our maps before the output norms: classifiers have none, so these can be compared."""
    seen: list[Tensor] = []
    hooks = [
        getattr(model, f"norm{index}").register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].permute(0, 3, 1, 2))
        )
        for index in range(4)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return seen


def assert_close(got: list[Tensor], expected: list[Tensor]) -> None:
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(
            ours, theirs, atol=1e-5 * max(1.0, theirs.abs().max().item()), rtol=0
        )


def timm_class(name: str) -> Any:
    """A Swin class of timm, ``SwinTransformer`` or ``SwinTransformerV2``."""
    module = "swin_transformer_v2" if name.endswith("V2") else "swin_transformer"
    return getattr(timm_module(module), name)


def timm_module(name: str) -> Any:
    """A module of ``timm.models``."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("no timm here: run `make setup`, or pip install --no-deps timm")
    return import_timm(f"timm.models.{name}")
