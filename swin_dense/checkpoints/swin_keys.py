"""Swin state dicts of other projects, renamed to the official names and layouts.

Letters: C channels of the stage before merging.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

MM_PROBE = re.compile(r"(^|\.)stages\.\d+\.blocks\.\d+\.attn\.w_msa\.")
OFFICIAL_PROBE = re.compile(r"(^|\.)layers\.\d+\.blocks\.\d+\.attn\.qkv\.")

DERIVED = re.compile(r"\.(relative_position_index|relative_coords_table|attn_mask)$")
"""Buffers that a checkpoint may carry and the model computes by itself."""

_MM_RENAMES = (
    (re.compile(r"^patch_embed\.projection\."), "patch_embed.proj."),
    (re.compile(r"^stages\."), "layers."),
    (re.compile(r"\.attn\.w_msa\."), ".attn."),
    (re.compile(r"\.ffn\.layers\.0\.0\."), ".mlp.fc1."),
    (re.compile(r"\.ffn\.layers\.1\."), ".mlp.fc2."),
)
_MM_MERGING = re.compile(r"^layers\.\d+\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)$")


def recognise(keys: list[str]) -> str | None:
    """Return "mm" or "official" for the keys of a Swin backbone, None for anything else."""
    if any(MM_PROBE.search(key) for key in keys):
        return "mm"
    if any(OFFICIAL_PROBE.search(key) for key in keys):
        return "official"
    return None


def to_official(state: Mapping[str, Tensor]) -> tuple[str | None, dict[str, Tensor]]:
    """Return the format's name and the state dict under official names, derived buffers left out.

    A state dict of no known Swin format comes back as it is, with None.
    """
    found = recognise(list(state))
    kept = {key: value for key, value in state.items() if not DERIVED.search(key)}
    if found == "mm":
        kept = dict(_mm_entry(key, value) for key, value in kept.items())
    if (table := kept.get("absolute_pos_embed")) is not None and table.dim() == 3:
        kept["absolute_pos_embed"] = _square_grid(table)
    return found, kept


def merging_columns_mm_to_official(values: Tensor) -> Tensor:
    """Reorder the last axis (4C) from the mm hosts' ``c * 4 + row * 2 + col`` to ``(2 * col + row) * C + c``."""
    channels = values.shape[-1] // 4
    blocks = values.reshape(*values.shape[:-1], channels, 2, 2)  # (..., C, row, col)
    return blocks.movedim(-3, -1).transpose(-3, -2).reshape(values.shape)  # (..., col, row, C)


def merging_columns_official_to_mm(values: Tensor) -> Tensor:
    """Undo :func:`merging_columns_mm_to_official`."""
    channels = values.shape[-1] // 4
    blocks = values.reshape(*values.shape[:-1], 2, 2, channels)  # (..., col, row, C)
    return blocks.transpose(-3, -2).movedim(-1, -3).reshape(values.shape)  # (..., C, row, col)


def resize_bias_table(table: Tensor, rows: int) -> Tensor:
    """Resize a ((2M-1)^2, heads) relative position table to ``rows`` rows, bicubic as the official code."""
    old, new = round(table.shape[0] ** 0.5), round(rows**0.5)
    grid = table.float().t().reshape(1, -1, old, old)
    resized = torch.nn.functional.interpolate(grid, size=(new, new), mode="bicubic")
    return resized.reshape(-1, rows).t().to(table.dtype).contiguous()


def _mm_entry(key: str, value: Tensor) -> tuple[str, Tensor]:
    for pattern, replacement in _MM_RENAMES:
        key = pattern.sub(replacement, key)
    if _MM_MERGING.match(key):
        value = merging_columns_mm_to_official(value)
    return key, value


def _square_grid(table: Tensor) -> Tensor:
    """Reshape a (1, L, C) position embedding of a square image to (1, C, H, W); others stay as they are."""
    side = round(table.shape[1] ** 0.5)
    if side * side != table.shape[1]:
        return table
    return table.reshape(1, side, side, -1).permute(0, 3, 1, 2).contiguous()
