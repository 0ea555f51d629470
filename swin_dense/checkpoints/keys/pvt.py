"""PVT v1 and v2 in mmdet's, timm's and transformers' names, to the official ones and back.

Letters: C channels of a stage.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from swin_dense.checkpoints.families.family import State
from swin_dense.checkpoints.keys.renaming import Renames, patterns, rename

# Stages count from 0 in every project but the official one: rules have {+1} and {-1} for that.

_STEP = re.compile(r"\{([+-]1):(\d+)\}")


def _renames(*pairs: tuple[str, str]) -> Renames:
    return patterns(pairs)


def _step(state: State) -> State:
    """Replace ``{+1:n}`` and ``{-1:n}`` in names by the number."""
    return {
        _STEP.sub(lambda found: str(int(found[2]) + int(found[1])), name): value
        for name, value in state.items()
    }


_FROM_TIMM = _renames(
    (r"^patch_embed\.", "patch_embed1."),
    (r"^stages\.(\d+)\.downsample\.", r"patch_embed{+1:\1}."),
    (r"^stages\.(\d+)\.blocks\.", r"block{+1:\1}."),
    (r"^stages\.(\d+)\.norm\.", r"norm{+1:\1}."),
    (r"\.mlp\.dwconv\.", ".mlp.dwconv.dwconv."),
)
_TO_TIMM = _renames(
    (r"^patch_embed1\.", "patch_embed."),
    (r"^patch_embed(\d)\.", r"stages.{-1:\1}.downsample."),
    (r"^block(\d)\.", r"stages.{-1:\1}.blocks."),
    (r"^norm(\d)\.", r"stages.{-1:\1}.norm."),
    (r"\.mlp\.dwconv\.dwconv\.", ".mlp.dwconv."),
)
_FROM_HF_V1 = _renames(
    (r"^encoder\.patch_embeddings\.(\d+)\.projection\.", r"patch_embed{+1:\1}.proj."),
    (r"^encoder\.patch_embeddings\.(\d+)\.layer_norm\.", r"patch_embed{+1:\1}.norm."),
    (r"^encoder\.patch_embeddings\.(\d+)\.position_embeddings$", r"pos_embed{+1:\1}"),
    (r"^encoder\.patch_embeddings\.3\.cls_token$", "cls_token"),
    (r"^encoder\.block\.(\d+)\.", r"block{+1:\1}."),
    (r"^encoder\.layer_norm\.", "norm."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.self\.sequence_reduction\.", ".attn.sr."),
    (r"\.attention\.self\.layer_norm\.", ".attn.norm."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.layer_norm_(\d)\.", r".norm\1."),
    (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
)
_TO_HF_V1 = _renames(
    (r"^patch_embed(\d)\.proj\.", r"encoder.patch_embeddings.{-1:\1}.projection."),
    (r"^patch_embed(\d)\.norm\.", r"encoder.patch_embeddings.{-1:\1}.layer_norm."),
    (r"^pos_embed(\d)$", r"encoder.patch_embeddings.{-1:\1}.position_embeddings"),
    (r"^cls_token$", "encoder.patch_embeddings.3.cls_token"),
    (r"^norm\.", "encoder.layer_norm."),
    (r"^block(\d)\.", r"encoder.block.{-1:\1}."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.sr\.", ".attention.self.sequence_reduction."),
    (r"\.attn\.norm\.", ".attention.self.layer_norm."),
    (r"\.attn\.", ".attention.self."),
    (r"\.norm(\d)\.", r".layer_norm_\1."),
    (r"\.mlp\.fc(\d)\.", r".mlp.dense\1."),
)
_FROM_HF_V2 = _renames(
    (r"^encoder\.layers\.(\d+)\.patch_embedding\.layer_norm\.", r"patch_embed{+1:\1}.norm."),
    (r"^encoder\.layers\.(\d+)\.patch_embedding\.", r"patch_embed{+1:\1}."),
    (r"^encoder\.layers\.(\d+)\.blocks\.", r"block{+1:\1}."),
    (r"^encoder\.layers\.(\d+)\.layer_norm\.", r"norm{+1:\1}."),
    (r"\.attention\.spatial_reduction\.", ".attn.sr."),
    (r"\.attention\.layer_norm\.", ".attn.norm."),
    (r"\.attention\.", ".attn."),
    (r"\.layer_norm_(\d)\.", r".norm\1."),
    (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
)
_TO_HF_V2 = _renames(
    (r"^patch_embed(\d)\.norm\.", r"encoder.layers.{-1:\1}.patch_embedding.layer_norm."),
    (r"^patch_embed(\d)\.", r"encoder.layers.{-1:\1}.patch_embedding."),
    (r"^norm(\d)\.", r"encoder.layers.{-1:\1}.layer_norm."),
    (r"^block(\d)\.", r"encoder.layers.{-1:\1}.blocks."),
    (r"\.attn\.sr\.", ".attention.spatial_reduction."),
    (r"\.attn\.norm\.", ".attention.layer_norm."),
    (r"\.attn\.", ".attention."),
    (r"\.norm(\d)\.", r".layer_norm_\1."),
    (r"\.mlp\.fc(\d)\.", r".mlp.dense\1."),
)
_FROM_MM = _renames(
    (r"^layers\.(\d+)\.0\.projection\.", r"patch_embed{+1:\1}.proj."),
    (r"^layers\.(\d+)\.0\.norm\.", r"patch_embed{+1:\1}.norm."),
    (r"^layers\.(\d+)\.1\.0\.pos_embed$", r"pos_embed{+1:\1}"),
    (r"^layers\.(\d+)\.1\.", r"block{+1:\1}."),
    (r"^layers\.(\d+)\.2\.", r"norm{+1:\1}."),
    (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
    (r"\.attn\.attn\.in_proj_", ".attn.in_proj."),
    (r"\.ffn\.layers\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.dwconv.dwconv."),
    (r"\.ffn\.layers\.[34]\.", ".mlp.fc2."),
)
_TO_MM = _renames(
    (r"^patch_embed(\d)\.proj\.", r"layers.{-1:\1}.0.projection."),
    (r"^patch_embed(\d)\.norm\.", r"layers.{-1:\1}.0.norm."),
    (r"^pos_embed(\d)$", r"layers.{-1:\1}.1.0.pos_embed"),
    (r"^block(\d)\.", r"layers.{-1:\1}.1."),
    (r"^norm(\d)\.", r"layers.{-1:\1}.2."),
    (r"\.attn\.proj\.", ".attn.attn.out_proj."),
    (r"\.attn\.in_proj\.", ".attn.attn.in_proj_"),
    (r"\.mlp\.fc1\.", ".ffn.layers.0."),
    (r"\.mlp\.dwconv\.dwconv\.", ".ffn.layers.1."),
)
_BLOCK = re.compile(r"^block(\d+)\.(\d+)\.")
_POSITIONS = re.compile(r"^pos_embed(\d+)$")
_FC = re.compile(r"\.mlp\.fc[12]\.weight$")


def timm_to_official(state: Mapping[str, Tensor]) -> State:
    """Rename to the official names."""
    return _step(rename(state, _FROM_TIMM))


def official_to_timm(state: Mapping[str, Tensor]) -> State:
    """Undo :func:`timm_to_official`."""
    return _step(rename(state, _TO_TIMM))


def hf_to_official(state: Mapping[str, Tensor]) -> State:
    """Rename, and join keys and values (C each) as pairs (2C)."""
    v2 = any(".patch_embedding." in name for name in state)
    renamed = _step(rename(state, _FROM_HF_V2 if v2 else _FROM_HF_V1))
    return _join(renamed, {"attn.q": ("attn.query",), "attn.kv": ("attn.key", "attn.value")})


def official_to_hf(state: Mapping[str, Tensor]) -> State:
    """Undo :func:`hf_to_official`."""
    split = _split(state, "attn.kv", ("attn.key", "attn.value"))
    split = {name.replace(".attn.q.", ".attn.query."): value for name, value in split.items()}
    return _step(rename(split, _TO_HF_V2 if is_v2(state) else _TO_HF_V1))


def mm_to_official(state: Mapping[str, Tensor]) -> State:
    """Rename, cut the joint projection (3C) in queries and pairs, make 1x1 convolutions linear."""
    renamed = _step(rename(state, _FROM_MM))
    official = {}
    for name, value in renamed.items():
        if (found := _BLOCK.match(name)) and f"pos_embed{found[1]}" in renamed:
            name = f"block{found[1]}.{int(found[2]) - 1}.{name[found.end() :]}"
        if _FC.search(name) and value.dim() == 4:
            value = value.flatten(1)
        stem, joint, leaf = name.partition("attn.in_proj.")
        if joint:
            width = value.shape[0] // 3
            official[f"{stem}attn.q.{leaf}"] = value[:width]
            official[f"{stem}attn.kv.{leaf}"] = value[width:]
        else:
            official[name] = value
    return official


def official_to_mm(state: Mapping[str, Tensor]) -> State:
    """Undo :func:`mm_to_official`; the last position embedding loses the class token's row."""
    v2 = is_v2(state)
    moved = {}
    for name, value in _join(state, {"attn.in_proj": ("attn.q", "attn.kv")}).items():
        if _POSITIONS.match(name):
            value = value[:, -(math.isqrt(value.shape[1]) ** 2) :]
        if (found := _BLOCK.match(name)) and f"pos_embed{found[1]}" in state:
            name = f"block{found[1]}.{int(found[2]) + 1}.{name[found.end() :]}"
        if _FC.search(name):
            value = value[:, :, None, None]
        name = re.sub(r"\.mlp\.fc2\.", f".ffn.layers.{4 if v2 else 3}.", name)
        moved[name] = value
    return _step(rename(moved, _TO_MM))


def _join(state: Mapping[str, Tensor], parts: Mapping[str, tuple[str, ...]]) -> State:
    """Concatenate ``{stem}{part}.weight`` and ``.bias`` of several parts as those of one."""
    joined, rest = {}, dict(state)
    for whole, names in parts.items():
        for name in state:
            stem, first, leaf = name.partition(f"{names[0]}.")
            pieces = [f"{stem}{part}.{leaf}" for part in names]
            if first and all(piece in rest for piece in pieces):
                joined[f"{stem}{whole}.{leaf}"] = torch.cat([rest.pop(piece) for piece in pieces])
    return rest | joined


def _split(state: Mapping[str, Tensor], whole: str, parts: tuple[str, str]) -> State:
    split = {}
    for name, value in state.items():
        stem, found, leaf = name.partition(f"{whole}.")
        if not found:
            split[name] = value
            continue
        for part, piece in zip(parts, value.chunk(2), strict=True):
            split[f"{stem}{part}.{leaf}"] = piece
    return split


def is_v2(state: Mapping[str, Tensor]) -> bool:
    """Whether official names are those of PVT v2."""
    return any("dwconv" in name for name in state)
