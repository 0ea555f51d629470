"""Focal Transformers, first version: the official classifier's files."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from swin_dense.checkpoints.families.family import Family, Geometry, Layout, Probe
from swin_dense.checkpoints.resize import resize_bias_table, resize_patch_convolution

_BLOCK = r"layers\.\d+\.blocks\.\d+\."
_QKV = re.compile(r"^layers\.(\d+)\.blocks\.(\d+)\.attn\.qkv\.weight$")


def geometry(backbone: Mapping[str, Tensor]) -> Geometry:
    """Read channels of the first stage, the kind of embedding and blocks off names and shapes."""
    depths: dict[int, int] = {}
    for key in backbone:
        if found := _QKV.match(key):
            stage = int(found[1])
            depths[stage] = max(depths.get(stage, 0), int(found[2]) + 1)
    stem = backbone.get("patch_embed.proj.weight")
    return Geometry(
        title="Focal Transformer",
        sizes={
            "embed_dims": 0 if stem is None else stem.shape[0],
            "use_conv_embed": stem is not None and stem.shape[-1] > 4,
        },
        depths=tuple(depths.get(stage, 0) for stage in range(max(depths, default=-1) + 1)),
    )


def _fit(name: str, value: Tensor, target: Tensor) -> Tensor:
    """Resize Swin's table for another window. The other two belong to one window, expansion and
    neighbourhood: they have no grid that another one could be interpolated from.
    """
    if name.endswith("relative_position_bias_table") and value.shape[1] == target.shape[1]:
        return resize_bias_table(value, target.shape[0])
    if name == "patch_embed.proj.weight":
        return resize_patch_convolution(value, target)
    return value


FAMILY = Family(
    name="focal",
    title="Focal Transformer",
    projects="the official code",
    layouts={
        "official": Layout(
            (Probe((rf"{_BLOCK}(pool_layers|attn\.relative_position_bias_table_to)",)),)
        )
    },
    geometry=geometry,
    derived=re.compile(
        r"(relative_position_index(_\d+)?|valid_ind_(rolled|unfold_\d+)|attn_mask)$"
    ),
    dense_only=re.compile(
        r"^norm\d+\.(weight|bias)$|"
        r"^layers\.3\.blocks\.\d+\.attn\.relative_position_bias_table_to_neighbors$"
    ),
    fit=_fit,
)
