"""Every backbone of the package in a small size, for the tests that all of them must pass.

To join: an entry in ``ZOO``, then ``python -m tests.backbones.zoo NAME`` writes the parameter names
to ``names/NAME.txt``. Compare that file with the official code's names before you commit it; from
then on the names are frozen.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import swin_dense

NAMES = Path(__file__).with_name("names")


def rounded_up(side_px: int, stride: int) -> int:
    """Cells along a side where the backbone pads."""
    return -(-side_px // stride)


def rounded_down(side_px: int, stride: int) -> int:
    """Cells along a side where the backbone crops."""
    return side_px // stride


MISTAKES_OF_ALL: list[tuple[Mapping[str, Any], Sequence[str]]] = [
    (dict(frozen_stages=99), ["frozen_stages=99", "-1 (none)"]),
    (dict(norm_cfg=dict(type="BN")), ["'BN'", "'LN'"]),
    (dict(act_cfg=dict(type="Gelu")), ["'Gelu'", "GELU"]),
    (dict(pretrained="a.pth", init_cfg=dict(type="Pretrained", checkpoint="b")), ["both"]),
]


@dataclass(frozen=True)
class Entry:
    """What the contract test has to know of a backbone.

    Attributes:
        options: of a small model; with several blocks where blocks differ.
        frozen: for some values of ``frozen_stages`` the beginnings of the names that freeze.
        bad: options that are a mistake, and words that the error must have.
        sizes: height and width in pixels of images to try, ragged and smallest among them.
        cells: cells of a map along a side, from pixels and stride.
        subset: ``out_indices`` for the test of a choice of maps; None where there is no choice.
        pyramid: the neck that makes a pyramid of the maps for a detector or a segmenter; None where
            they are one.
        unused: beginnings of names that rightly get no gradient.
        awake: prepares fresh weights under which every part of the model counts.
        kind: the class, where one has several entries; else it is the entry's name.
        mistakes: as ``bad``, those that our own backbones share.
        needs: a package without which the backbone cannot be built.
    """

    options: Mapping[str, Any]
    frozen: Mapping[int, tuple[str, ...]]
    bad: Sequence[tuple[Mapping[str, Any], Sequence[str]]]
    sizes: Sequence[tuple[int, int]] = ((64, 96), (97, 130), (33, 71), (4, 4))
    cells: Callable[[int, int], int] = rounded_up
    subset: tuple[int, ...] | None = (1, 3)
    pyramid: Mapping[str, Any] | None = None
    unused: tuple[str, ...] = ()
    awake: Callable[[nn.Module], object] = field(default=lambda model: None)
    kind: str | None = None
    mistakes: Sequence[tuple[Mapping[str, Any], Sequence[str]]] = tuple(MISTAKES_OF_ALL)
    needs: str | None = None


def _awake_post_norms(model: nn.Module) -> None:
    """As they start, every block of Swin V2 is the identity."""
    for name, parameter in model.named_parameters():
        if ".norm1." in name or ".norm2." in name:
            nn.init.normal_(parameter, 0.5, 0.2)


def _awake_relative_positions(model: nn.Module) -> None:
    """As they start, relative positions and the last norms of bottlenecks are zero."""
    for name, parameter in model.named_parameters():
        if "rel_pos" in name or "residual.norm3" in name:
            nn.init.normal_(parameter, 0.3, 0.2)


_SWIN_FROZEN = {
    0: ("patch_embed.", "absolute_pos_embed"),
    2: ("patch_embed.", "absolute_pos_embed", "layers.0.", "layers.1.", "norm0.", "norm1."),
    4: ("patch_embed.", "absolute_pos_embed", "layers.", "norm"),
}
_SWIN_BAD: list[tuple[Mapping[str, Any], Sequence[str]]] = [
    (dict(arch="tyni"), ["tyni", "did you mean 'tiny'", "small"]),
    (dict(num_heads=(5, 2, 4, 8)), ["16 channels", "num_heads[0]=5"]),
    (dict(num_heads=(1, 2)), ["4 stages", "(1, 2)"]),
    (dict(strides=(4, 2, 2, 1)), ["(4, 2, 2, 1)", "(4, 2, 2, 2)"]),
    (dict(out_indices=(0, 4)), ["(0, 4)", "0 to 3"]),
]
_SWIN = dict(embed_dims=16, depths=(2, 2, 1, 1), num_heads=(1, 2, 4, 8), use_abs_pos_embed=True)

_PVT_SIZES = ((64, 96), (97, 130), (33, 71), (32, 32))
_PVT_BAD: list[tuple[Mapping[str, Any], Sequence[str]]] = [
    (dict(num_heads=(1, 2)), ["num_layers=(2, 1, 1, 2) for 4 stages", "num_heads=(1, 2)"]),
    (dict(sr_ratios=(8, 4, 2, 0)), ["sr_ratios=(8, 4, 2, 0)", "at least 1"]),
    (dict(out_indices=(2, 1)), ["(2, 1)", "ascending"]),
]
_PVT_V2_FROZEN = {
    0: ("patch_embed1.",),
    2: tuple(f"{part}{stage}." for part in ("patch_embed", "block", "norm") for stage in (1, 2)),
}
_PYRAMID_BAD: list[tuple[Mapping[str, Any], Sequence[str]]] = [
    (dict(num_heads=(5, 2, 4, 8)), ["16 channels", "num_heads[0]=5"]),
    (dict(num_heads=(1, 2)), ["4 stages", "(1, 2)"]),
    (dict(out_indices=(0, 4)), ["(0, 4)", "0 to 3"]),
    (dict(out_norm="eech"), ["'eech'", "did you mean 'each'", "none, last, each"]),
]

_VIT = dict(embed_dims=16, num_layers=4, num_heads=2, pretrain_img_size=64)
_VIT_FROZEN = {
    0: ("patch_embed.", "pos_embed", "cls_token", "dist_token"),
    2: ("patch_embed.", "pos_embed", "cls_token", "dist_token", "blocks.0.", "blocks.1."),
}
_VIT_PYRAMID = dict(
    type="swin_dense.SimpleFeaturePyramid", in_channels=16, out_channels=16, num_outs=4
)
_VIT_BAD: list[tuple[Mapping[str, Any], Sequence[str]]] = [
    (dict(arch="bsae"), ["bsae", "did you mean 'base'", "huge"]),
    (dict(num_heads=3), ["16 channels", "num_heads=3"]),
    (dict(out_indices=(0, 4)), ["(0, 4)", "0 to 3"]),
    (dict(residual_block_indexes=(7,)), ["residual_block_indexes=(7,)", "0 to 3"]),
    (dict(with_cls_token=False, with_dist_token=True), ["with_dist_token=True", "class token"]),
]

_TIMM_MISTAKES: list[tuple[Mapping[str, Any], Sequence[str]]] = [
    (dict(frozen_stages=99), ["frozen_stages=99", "-1 (none)", "to 4"]),
    (dict(pretrained=True, init_cfg=dict(type="Pretrained", checkpoint="b")), ["both"]),
    (dict(pretrained="a.pth"), ["pretrained='a.pth'", "checkpoint_path"]),
    (dict(features_only=False), ["features_only=False", "True"]),
    (dict(in_chans=4), ["in_chans=4", "in_channels"]),
    (dict(out_indices=(0, 9)), ["(0, 9)"]),
]

ZOO: dict[str, Entry] = {
    "FocalTransformer": Entry(
        options=dict(
            embed_dims=16,
            depths=(1, 2, 1, 1),
            num_heads=(1, 2, 4, 8),
            window_size=5,
            expand_sizes=(2, 2, 1, 0),
            focal_windows=(5, 3, 0, 1),
            layer_scale=0.5,
        ),
        frozen={
            0: ("patch_embed.",),
            2: ("patch_embed.", "layers.0.", "layers.1.", "norm0.", "norm1."),
            4: ("patch_embed.", "layers.", "norm"),
        },
        bad=[
            *_PYRAMID_BAD,
            (dict(arch="tyni"), ["tyni", "did you mean 'tiny'", "small"]),
            (dict(expand_sizes=(3, 3, 3, 0)), ["window_size=5", "(3, 3, 3, 0)", "half of it"]),
            (dict(focal_windows=(4, 5, 3, 1)), ["(4, 5, 3, 1)", "odd"]),
            (dict(focal_windows=(7, 5)), ["focal_windows=(7, 5)", "4 stages"]),
        ],
    ),
    "PVT": Entry(
        options=dict(embed_dims=8, num_layers=(2, 1, 1, 2), pretrain_img_size=64),
        frozen={
            0: ("patch_embed1.", "pos_embed1"),
            1: ("patch_embed1.", "pos_embed1", "block1."),
            4: ("patch_embed", "pos_embed", "block"),
        },
        bad=[*_PVT_BAD, (dict(arch="tyni"), ["tyni", "did you mean 'tiny'"])],
        sizes=_PVT_SIZES,
        cells=rounded_down,
    ),
    "PVTv2": Entry(
        options=dict(embed_dims=8, num_layers=(2, 1, 1, 2)),
        frozen=_PVT_V2_FROZEN,
        bad=[*_PVT_BAD, (dict(arch="b6"), ["'b6'", "b0, b1"])],
        sizes=(*_PVT_SIZES, (29, 29)),
    ),
    "PVTv2Linear": Entry(
        options=dict(arch="b2_li", embed_dims=8, num_layers=(2, 1, 1, 2)),
        frozen=_PVT_V2_FROZEN,
        bad=_PVT_BAD,
        kind="PVTv2",
    ),
    "ScalableViT": Entry(
        options=dict(
            embed_dims=16,
            depths=(2, 3, 2, 2),
            num_heads=(1, 2, 4, 8),
            channel_ratios=(1.25, 0.5, 2.0, 1.25),
            window_size=5,
            out_norm="each",
        ),
        frozen={
            0: ("patch_embeds.0.",),
            2: tuple(
                f"{part}{index}."
                for part in ("patch_embeds.", "pos_block.", "stages.", "norm")
                for index in (0, 1)
            ),
            4: ("patch_embeds.", "pos_block.", "stages.", "norm"),
        },
        bad=[
            *_PYRAMID_BAD,
            (dict(arch="smol"), ["smol", "did you mean 'small'", "large"]),
            (dict(spatial_ratios=(8, 4)), ["spatial_ratios=(8, 4)", "4 stages"]),
            (dict(spatial_ratios=(8, 4, 0, 1)), ["(8, 4, 0, 1)", "at least 1"]),
            (
                dict(channel_ratios=(1, 0.6, 1, 1)),
                ["channel_ratios[1]=0.6", "19", "num_heads[1]=2"],
            ),
        ],
        sizes=((64, 96), (97, 130), (33, 71), (29, 29)),
    ),
    "SwinTransformer": Entry(
        options=dict(**_SWIN, pretrain_img_size=64, window_size=5),
        frozen=_SWIN_FROZEN,
        bad=_SWIN_BAD,
    ),
    "SwinTransformerV2": Entry(
        options=dict(**_SWIN, pretrain_img_size=64, window_size=(5, 4, 3, 2)),
        frozen=_SWIN_FROZEN,
        bad=[
            *_SWIN_BAD,
            (dict(window_size=(8, 8)), ["window_size=(8, 8)", "4 stages"]),
            (dict(window_size=0), ["window_size=0", "at least 1"]),
            (dict(pretrained_window_sizes=(6, 6, 3)), ["pretrained_window_sizes=(6, 6, 3)"]),
        ],
        awake=_awake_post_norms,
    ),
    "TimmConvNeXt": Entry(
        options=dict(
            model_name="convnext_atto", depths=(2, 1, 1, 1), dims=(8, 16, 32, 64), ls_init_value=0.5
        ),
        frozen={
            0: ("timm_model.stem_",),
            2: ("timm_model.stem_", "timm_model.stages_0.", "timm_model.stages_1."),
            4: ("timm_model.",),
        },
        bad=[(dict(model_name="convnext_ato"), ["'convnext_ato'", "convnext_atto", "list_models"])],
        sizes=((64, 96), (97, 130), (33, 71), (32, 32)),
        cells=rounded_down,
        kind="TimmBackbone",
        mistakes=_TIMM_MISTAKES,
        needs="timm",
    ),
    "TimmResNet": Entry(
        options=dict(
            model_name="resnet18", channels=(8, 16, 32, 64), stem_width=4, zero_init_last=False
        ),
        frozen={
            0: ("timm_model.conv1.", "timm_model.bn1."),
            1: ("timm_model.conv1.", "timm_model.bn1.", "timm_model.layer1."),
            4: ("timm_model.",),
        },
        bad=[
            (
                dict(model_name="resnet18.a1_in1l"),
                ["'resnet18.a1_in1l'", "did you mean 'a1_in1k'", "tv_in1k"],
            ),
        ],
        subset=None,
        kind="TimmBackbone",
        mistakes=_TIMM_MISTAKES,
        needs="timm",
    ),
    "ViTDet": Entry(
        options=dict(
            **_VIT, img_size=96, window_size=3, use_rel_pos=True, residual_block_indexes=(1,)
        ),
        frozen=_VIT_FROZEN,
        bad=[
            (dict(with_cls_token=True), ["with_cls_token=True", "window_size=3"]),
            (dict(window_size=-1), ["window_size=-1", "at least 1"]),
            (dict(window_block_indexes=(4,)), ["window_block_indexes=(4,)", "0 to 3"]),
            (dict(window_size=0, window_block_indexes=(1,)), ["without a window"]),
        ],
        subset=None,
        pyramid=_VIT_PYRAMID,
        awake=_awake_relative_positions,
        kind="VisionTransformer",
    ),
    "VisionTransformer": Entry(
        options=dict(
            **_VIT,
            out_indices=(0, 1, 2, 3),
            with_dist_token=True,
            layer_scale=0.5,
            final_norm=True,
        ),
        frozen=_VIT_FROZEN,
        bad=_VIT_BAD,
        pyramid=_VIT_PYRAMID,
    ),
}


def class_name(name: str) -> str:
    """Return the class that an entry is of."""
    return ZOO[name].kind or name


def build(name: str, **options: Any) -> Any:
    """Return a small backbone of this name, awake, in training mode."""
    needs = ZOO[name].needs
    if needs is not None and importlib.util.find_spec(needs) is None:
        pytest.skip(f"no {needs} here: run `make setup`, or pip install --no-deps {needs}")
    chosen = {**ZOO[name].options, "drop_path_rate": 0.0, **options}
    model = getattr(swin_dense, class_name(name))(**chosen)
    ZOO[name].awake(model)
    return model.train()


def weighted_sum(maps: Sequence[Tensor]) -> Tensor:
    """A scalar that weighs every cell differently, so that its gradient sees each."""
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros(())
    for feature in maps:
        total = total + (feature * torch.randn(feature.shape, generator=generator)).sum()
    return total


if __name__ == "__main__":
    for chosen in sys.argv[1:]:
        text = "\n".join(build(chosen).state_dict()) + "\n"
        (NAMES / f"{chosen}.txt").write_text(text)
