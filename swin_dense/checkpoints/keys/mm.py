"""mmdet, mmseg and mmpretrain: other names, and patch merging with permuted columns.

Letters: C channels of the stage before merging.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from swin_dense.checkpoints.keys.renaming import is_v2, patterns, rename, shift_downsamples

_TO_OFFICIAL = patterns(
    [
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"^stages\.", "layers."),
        (r"\.attn\.w_msa\.", ".attn."),
        (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
        (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    ]
)
_FROM_OFFICIAL = patterns(
    [
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
        (r"^layers\.", "stages."),
        (r"\.attn\.", ".attn.w_msa."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
        (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    ]
)
_MERGING = re.compile(r"\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)$")


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to the official names, and reorder the columns of patch merging."""
    renamed = rename(state, _TO_OFFICIAL)
    v2 = is_v2(renamed)
    if v2 and not any(key.startswith("layers.0.downsample.") for key in renamed):
        renamed = shift_downsamples(renamed, "layers", -1)  # mmpretrain merges before a stage
    return {
        key: merging_columns_mm_to_official(value) if _is_permuted(key, v2) else value
        for key, value in renamed.items()
    }


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`to_official`; Swin V2 gets mmpretrain's layout, which merges before a stage."""
    v2 = is_v2(state)
    renamed = rename(
        {
            key: merging_columns_official_to_mm(value) if _is_permuted(key, v2) else value
            for key, value in state.items()
        },
        _FROM_OFFICIAL,
    )
    return shift_downsamples(renamed, "stages", 1) if v2 else renamed


def _is_permuted(key: str, v2: bool) -> bool:
    """Whether the last axis of a tensor runs over the four merged tokens; V2 norms the result."""
    found = _MERGING.search(key)
    return found is not None and not (v2 and found[1].startswith("norm"))


def merging_columns_mm_to_official(values: Tensor) -> Tensor:
    """Reorder the last axis (4C) from ``c * 4 + row * 2 + col`` to ``(2 * col + row) * C + c``."""
    channels = values.shape[-1] // 4
    blocks = values.reshape(*values.shape[:-1], channels, 2, 2)  # (..., C, row, col)
    return blocks.movedim(-3, -1).transpose(-3, -2).reshape(values.shape)  # (..., col, row, C)


def merging_columns_official_to_mm(values: Tensor) -> Tensor:
    """Undo :func:`merging_columns_mm_to_official`."""
    channels = values.shape[-1] // 4
    blocks = values.reshape(*values.shape[:-1], 2, 2, channels)  # (..., col, row, C)
    return blocks.transpose(-3, -2).movedim(-1, -3).reshape(values.shape)  # (..., C, row, col)
