"""Hugging Face transformers: queries, keys and values apart, and two generations of names.

Files have the names of transformers 4 even when version 5 saves them; version 5 has others in
memory, for Swin V1 alone. Here a file's names are written, both are read.

Letters: C channels of a block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from swin_dense.checkpoints.keys.renaming import is_v2, patterns, rename

_TO_OFFICIAL = patterns(
    [
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^embeddings\.norm\.", "patch_embed.norm."),
        (r"^embeddings\.position_embeddings$", "absolute_pos_embed"),
        (r"^encoder\.layers\.", "layers."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.attention\.self\.", ".attn."),
        (r"\.attention\.relative_position_bias\.", ".attn."),
        (r"\.attention\.", ".attn."),
        (r"\.continuous_position_bias_mlp\.", ".cpb_mlp."),
        (r"\.attn\.q_proj\.", ".attn.query."),
        (r"\.attn\.k_proj\.", ".attn.key."),
        (r"\.attn\.v_proj\.", ".attn.value."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
        (r"^layernorm\.", "norm."),
        (r"^classifier\.", "head."),
    ]
)
_FROM_OFFICIAL = patterns(
    [
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^patch_embed\.norm\.", "embeddings.norm."),
        (r"^absolute_pos_embed$", "embeddings.position_embeddings"),
        (r"^layers\.", "encoder.layers."),
        (r"\.blocks\.(\d+)\.norm1\.", r".blocks.\1.layernorm_before."),
        (r"\.blocks\.(\d+)\.norm2\.", r".blocks.\1.layernorm_after."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.attn\.cpb_mlp\.", ".attention.self.continuous_position_bias_mlp."),
        (r"\.attn\.", ".attention.self."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
        (r"^norm\.", "layernorm."),
        (r"^head\.", "classifier."),
    ]
)
_PART = re.compile(r"^(.*\.attn\.)(query|key|value)\.(weight|bias)$")
_STAGE_NORM = re.compile(r"^hidden_states_norms\.stage(\d+)\.")
_OUT_NORM = re.compile(r"^norm(\d+)\.")


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to the official names; queries, keys and values (C each) join as ``qkv`` (3C)."""
    v2 = is_v2(state)
    joined, parts = {}, {}
    for key, value in rename(state, _TO_OFFICIAL).items():
        if found := _PART.match(key):
            parts[found[1], found[2], found[3]] = value
            continue
        joined[_STAGE_NORM.sub(lambda found: f"norm{int(found[1]) - 1}.", key)] = value
    for stem in dict.fromkeys(stem for stem, _, _ in parts):
        for leaf in ("weight", "bias"):
            three = [parts.get((stem, name, leaf)) for name in ("query", "key", "value")]
            if v2 and leaf == "bias":
                if three[0] is not None and three[2] is not None:
                    joined[stem + "q_bias"], joined[stem + "v_bias"] = three[0], three[2]
            elif all(part is not None for part in three):
                joined[f"{stem}qkv.{leaf}"] = torch.cat(
                    [part for part in three if part is not None]
                )
    return joined


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`to_official`, with the names that files have."""
    split = {}
    for key, value in state.items():
        stem, _, last = key.rpartition("attn.")
        if last in ("qkv.weight", "qkv.bias"):
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                split[f"{stem}attn.{name}.{last.removeprefix('qkv.')}"] = part
        elif last == "q_bias":
            split[f"{stem}attn.query.bias"] = value
        elif last == "v_bias":
            split[f"{stem}attn.value.bias"] = value
        else:
            split[
                _OUT_NORM.sub(lambda found: f"hidden_states_norms.stage{int(found[1]) + 1}.", key)
            ] = value
    return rename(split, _FROM_OFFICIAL)
