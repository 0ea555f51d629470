"""ScalableViT: the official classifier's files."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from swin_dense.checkpoints.families.family import Family, Geometry, Layout, Probe
from swin_dense.checkpoints.resize import resize_patch_convolution

_BLOCK = re.compile(r"^stages\.(\d+)\.(\d+)\.norm1\.weight$")
_KEYS = re.compile(r"^stages\.(\d+)\.\d+\.attn\.reduction\.0\.weight$")


def geometry(backbone: Mapping[str, Tensor]) -> Geometry:
    """Read channels, blocks and both ratios of SSA off official names and shapes.

    A stage without a reduction has the spatial ratio 1 and no channel ratio that could be seen.
    """
    depths: dict[int, int] = {}
    spatial: dict[int, int] = {}
    channel: dict[int, float] = {}
    for key, value in backbone.items():
        if found := _BLOCK.match(key):
            stage = int(found[1])
            depths[stage] = max(depths.get(stage, 0), int(found[2]) + 1)
        elif found := _KEYS.match(key):
            stage = int(found[1])
            keys = backbone[key.replace("reduction.0", "reduction.1")]
            spatial[stage] = value.shape[-1]
            channel[stage] = keys.shape[0] / keys.shape[1]
    first = backbone.get("patch_embeds.0.proj.weight")
    stages = range(max(depths, default=-1) + 1)
    return Geometry(
        title="ScalableViT",
        sizes={
            "embed_dims": 0 if first is None else first.shape[0],
            "spatial_ratios": tuple(spatial.get(stage, 1) for stage in stages),
            "channel_ratios": tuple(round(channel.get(stage, 1.0), 3) for stage in stages),
        },
        depths=tuple(depths.get(stage, 0) for stage in stages),
    )


def _fit(name: str, value: Tensor, target: Tensor) -> Tensor:
    if name == "patch_embeds.0.proj.weight":
        return resize_patch_convolution(value, target)
    return value


FAMILY = Family(
    name="scalable_vit",
    title="ScalableViT",
    projects="the official code",
    layouts={
        "official": Layout(
            (Probe((r"patch_embeds\.\d+\.proj\.", r"pos_block\.\d+\.", r"stages\.\d+\.\d+\.")),)
        )
    },
    geometry=geometry,
    dense_only=re.compile(r"^norm\d+\.(weight|bias)$"),
    fit=_fit,
)
