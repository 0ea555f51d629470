"""Swin V1 and V2: six projects' files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from swin_dense.checkpoints.families.family import Family, Geometry, Layout, Probe, State
from swin_dense.checkpoints.keys import hf, mm, timm, torchvision
from swin_dense.checkpoints.keys.renaming import is_v2
from swin_dense.checkpoints.resize import resize_bias_table, resize_patch_convolution
from swin_dense.checkpoints.windows import window_notes
from swin_dense.layers.patch import resize_position_grid

_BLOCK = r"layers\.\d+\.blocks\.\d+\."
_PVT = r"encoder\.layers\.\d+\.patch_embedding\."
"""PVT v2 in transformers has the names of its Swin and these beside them."""
_FOCAL = rf"{_BLOCK}(pool_layers|attn\.relative_position_bias_table_to)"
"""Focal Transformers have Swin's names and these beside them."""

LAYOUTS = {
    "hf": Layout(
        (Probe((r"encoder\.layers\.\d+\.blocks\.\d+\.attention\.",), (_PVT,)),),
        hf.to_official,
        hf.from_official,
        wrapper=re.compile(r"swin(v2)?\.$"),
        beside=re.compile(r"^(classifier|hidden_states_norms)\."),
    ),
    "mm": Layout(
        (Probe((r"stages\.\d+\.blocks\.\d+\.attn\.w_msa\.",)),), mm.to_official, mm.from_official
    ),
    "torchvision": Layout(
        (Probe((r"features\.\d+\.\d+\.attn\.qkv\.",)),),
        torchvision.to_official,
        torchvision.from_official,
    ),
    "timm": Layout(
        (
            Probe((r"layers_\d+\.blocks\.\d+\.attn\.qkv\.",)),
            Probe(  # a merging before the second stage and none after the first
                (rf"{_BLOCK}attn\.qkv\.", r"layers\.\d+\.downsample\."),
                (r"layers\.0\.downsample\.", _FOCAL),
            ),
        ),
        timm.to_official,
        timm.from_official,
    ),
    "official": Layout((Probe((rf"{_BLOCK}attn\.qkv\.",), (_FOCAL,)),)),
}

_DETECTRON2 = re.compile(r"^(backbone\.bottom_up|sem_seg_head|proposal_generator)\.")
_SELF_SUPERVISED = re.compile(r"^(module\.)?encoder\.$")


def geometry(backbone: Mapping[str, Tensor]) -> Geometry:
    """Read version, channels of the first stage and blocks off official names and shapes."""
    depths: dict[int, int] = {}
    widths = []
    for key, value in backbone.items():
        if found := re.match(r"^layers\.(\d+)\.blocks\.(\d+)\.attn\.qkv\.weight$", key):
            stage, block = int(found[1]), int(found[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
            widths.append((stage, value.shape[1] >> stage))
    return Geometry(
        title=f"Swin V{2 if is_v2(backbone) else 1}",
        sizes={"embed_dims": min(widths)[1] if widths else 0},
        depths=tuple(depths.get(stage, 0) for stage in range(max(depths, default=-1) + 1)),
    )


def _tidy(state: State) -> State:
    """Reshape a (1, L, C) position embedding of a square image to (1, C, H, W)."""
    table = state.get("absolute_pos_embed")
    if table is None or table.dim() != 3:
        return state
    side = round(table.shape[1] ** 0.5)
    if side * side != table.shape[1]:
        return state
    grid = table.reshape(1, side, side, -1).permute(0, 3, 1, 2).contiguous()
    return {**state, "absolute_pos_embed": grid}


def _fit(name: str, value: Tensor, target: Tensor) -> Tensor:
    if name.endswith("relative_position_bias_table") and value.shape[1] == target.shape[1]:
        return resize_bias_table(value, target.shape[0])
    if name.endswith("absolute_pos_embed") and value.shape[:2] == target.shape[:2]:
        return resize_position_grid(value, (target.shape[2], target.shape[3]))
    if name.endswith("patch_embed.proj.weight"):
        return resize_patch_convolution(value, target)
    return value


def _describe(layout: str, prefix: str, keys: Iterable[str]) -> str:
    keys = list(keys)
    if layout == "official":
        if any(_DETECTRON2.match(key) for key in keys):
            return "detectron2"
        return "official (self-supervised)" if _SELF_SUPERVISED.match(prefix) else "official"
    if layout == "hf" and any(".attention.q_proj." in key for key in keys):
        return "hf (in memory)"
    if layout == "timm" and any("layers_0." in key for key in keys):
        return "timm (features only)"
    return layout


FAMILY = Family(
    name="swin",
    title="Swin",
    projects="the official code, mmdet, mmseg, mmpretrain, timm, torchvision, transformers or "
    "detectron2",
    layouts=LAYOUTS,
    geometry=geometry,
    derived=re.compile(r"(relative_position_index|relative_coords_table|attn_mask)$"),
    dense_only=re.compile(r"^norm\d+\.(weight|bias)$"),
    tidy=_tidy,
    fit=_fit,
    notes=window_notes,
    describe=_describe,
)
