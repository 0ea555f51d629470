"""torchvision: embedding, stages and mergings in one list ``features``.

Letters: C channels of a block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from swin_dense.checkpoints.keys.renaming import is_v2, patterns, rename

_STAGE = re.compile(r"^features\.(\d+)\.(.*)$")
_BLOCK = re.compile(r"^layers\.(\d+)\.blocks\.(.*)$")
_MERGING = re.compile(r"^layers\.(\d+)\.downsample\.(.*)$")
_TO_OFFICIAL = patterns(
    [
        (r"^features\.0\.0\.", "patch_embed.proj."),
        (r"^features\.0\.2\.", "patch_embed.norm."),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.3\.", ".mlp.fc2."),
    ]
)
_FROM_OFFICIAL = patterns(
    [
        (r"^patch_embed\.proj\.", "features.0.0."),
        (r"^patch_embed\.norm\.", "features.0.2."),
        (r"\.mlp\.fc1\.", ".mlp.0."),
        (r"\.mlp\.fc2\.", ".mlp.3."),
    ]
)


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to the official names; V2's joint bias (3C) becomes ``q_bias`` and ``v_bias``."""
    renamed = {}
    v2 = is_v2(state)
    for key, value in rename(state, _TO_OFFICIAL).items():
        if found := _STAGE.match(key):
            position, rest = int(found[1]), found[2]
            stage, is_merging = divmod(position - 1, 2)
            key = f"layers.{stage}." + (f"downsample.{rest}" if is_merging else f"blocks.{rest}")
        if v2 and key.endswith("attn.qkv.bias"):
            stem = key.removesuffix("qkv.bias")
            queries, _, values = value.chunk(3)
            renamed[stem + "q_bias"], renamed[stem + "v_bias"] = queries, values
        else:
            renamed[key] = value
    return renamed


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`to_official`; the keys' third of V2's joint bias is zero."""
    renamed = {}
    for key, value in state.items():
        if key.endswith("attn.v_bias"):
            continue
        if found := _BLOCK.match(key):
            key = f"features.{2 * int(found[1]) + 1}.{found[2]}"
        elif found := _MERGING.match(key):
            key = f"features.{2 * int(found[1]) + 2}.{found[2]}"
        if key.endswith("attn.q_bias"):
            official = _official_name(key)
            joint = [value, torch.zeros_like(value), state[official.replace("q_bias", "v_bias")]]
            key, value = key.replace("q_bias", "qkv.bias"), torch.cat(joint)
        renamed[key] = value
    return rename(renamed, _FROM_OFFICIAL)


def _official_name(key: str) -> str:
    found = _STAGE.match(key)
    assert found is not None
    return f"layers.{(int(found[1]) - 1) // 2}.blocks.{found[2]}"
