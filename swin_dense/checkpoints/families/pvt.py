"""PVT v1 and v2: the official code's files, mmdet's, timm's (v2) and transformers'.

Letters: C channels of a stage; L positions of a square grid.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.checkpoints.families.family import Family, Geometry, Layout, Probe, State
from swin_dense.checkpoints.keys import pvt as keys
from swin_dense.checkpoints.resize import resize_patch_convolution

_BLOCK = re.compile(r"^block(\d+)\.(\d+)\.")
_POSITIONS = re.compile(r"^pos_embed(\d+)$")


def geometry(backbone: Mapping[str, Tensor]) -> Geometry:
    """Read version, kind, widths and blocks off official names and shapes."""
    depths: dict[int, int] = {}
    for name in backbone:
        if found := _BLOCK.match(name):
            stage, block = int(found[1]), int(found[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
    first = backbone.get("block1.0.mlp.fc1.weight")
    hidden, width = first.shape if first is not None else (0, 0)
    sizes: dict[str, object] = {"embed_dims": width, "mlp_ratio": round(hidden / max(width, 1), 2)}
    v2 = keys.is_v2(backbone)
    if v2:
        reduction = backbone.get("block1.0.attn.sr.weight")
        sizes["linear"] = reduction is not None and reduction.shape[-1] == 1
    stages = range(1, max(depths, default=0) + 1)
    return Geometry(
        f"PVT v{2 if v2 else 1}", sizes, tuple(depths.get(stage, 0) for stage in stages)
    )


def _tidy(state: State) -> State:
    """Give the last position embedding the class token's row, which nothing reads: mmdet has none.

    (1, L, C) becomes (1, 1 + L, C).
    """
    stages = [int(found[1]) for name in state if (found := _POSITIONS.match(name))]
    if not stages:
        return state
    last = f"pos_embed{max(stages)}"
    table = state[last]
    if math.isqrt(table.shape[1]) ** 2 != table.shape[1]:
        return state
    return {**state, last: torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)}


def _fit(name: str, value: Tensor, target: Tensor) -> Tensor:
    if re.search(r"(^|\.)pos_embed\d+$", name) and value.shape[2] == target.shape[2]:
        return resize_positions(value, target.shape[1])
    if name.endswith("patch_embed1.proj.weight"):
        return resize_patch_convolution(value, target)
    return value


def resize_positions(table: Tensor, rows: int) -> Tensor:
    """Resize a (1, L, C) embedding of a square grid to ``rows`` rows, bilinear as the official code
    does between image sizes; a row of the class token before it stays.
    """
    old, new = math.isqrt(table.shape[1]), math.isqrt(rows)
    extra = table.shape[1] - old * old
    if extra not in (0, 1) or rows - new * new != extra:
        return table
    grid = table[:, extra:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(new, new), mode="bilinear")
    # (1, C, H, W) -> (1, L, C)
    flat = resized.flatten(2).transpose(1, 2).to(table.dtype)
    return torch.cat([table[:, :extra], flat], dim=1)


LAYOUTS = {
    "hf": Layout(
        (
            Probe((r"encoder\.layers\.\d+\.patch_embedding\.proj\.", r".*\.attention\.query\.")),
            Probe((r"encoder\.patch_embeddings\.\d+\.projection\.", r".*\.attention\.self\.query")),
        ),
        keys.hf_to_official,
        keys.official_to_hf,
    ),
    "mm": Layout(
        (Probe((r"layers\.\d+\.0\.projection\.", r"layers\.\d+\.1\.\d+\.attn\.attn\.in_proj_")),),
        keys.mm_to_official,
        keys.official_to_mm,
    ),
    "timm": Layout(
        (Probe((r"stages\.\d+\.blocks\.\d+\.attn\.kv\.", r"patch_embed\.proj\.")),),
        keys.timm_to_official,
        keys.official_to_timm,
    ),
    "official": Layout((Probe((r"block1\.\d+\.attn\.kv\.", r"patch_embed1\.proj\.")),)),
}

FAMILY = Family(
    name="pvt",
    title="PVT",
    projects="the official code, mmdet, timm (v2) or transformers",
    layouts=LAYOUTS,
    geometry=geometry,
    classifier=re.compile(r"^(norm|head|fc|classifier|cls_token$)(\.|$)"),
    tidy=_tidy,
    fit=_fit,
)
