"""Hugging Face transformers: queries, keys and values apart, and two generations of names.

Files have the names of transformers 4 even when version 5 saves them; version 5 has others in
memory, for Swin V1 alone. Here a file's names are written, both are read.

Letters: C channels of a block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from swin_dense.checkpoints.keys.renaming import is_v2, join_qkv, patterns, rename, split_qkv

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
_BIASES_TO_V2 = patterns(
    [(r"\.attn\.query\.bias$", ".attn.q_bias"), (r"\.attn\.value\.bias$", ".attn.v_bias")]
)
_BIASES_FROM_V2 = patterns(
    [(r"\.attn\.q_bias$", ".attn.query.bias"), (r"\.attn\.v_bias$", ".attn.value.bias")]
)
_STAGE_NORM = re.compile(r"^hidden_states_norms\.stage(\d+)\.")
_OUT_NORM = re.compile(r"^norm(\d+)\.")


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to the official names; queries, keys and values (C each) join as ``qkv`` (3C)."""
    renamed = {
        _STAGE_NORM.sub(lambda found: f"norm{int(found[1]) - 1}.", key): value
        for key, value in rename(state, _TO_OFFICIAL).items()
    }
    return join_qkv(rename(renamed, _BIASES_TO_V2) if is_v2(state) else renamed)


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`to_official`, with the names that files have."""
    renamed = {
        _OUT_NORM.sub(lambda found: f"hidden_states_norms.stage{int(found[1]) + 1}.", key): value
        for key, value in rename(split_qkv(state), _BIASES_FROM_V2).items()
    }
    return rename(renamed, _FROM_OFFICIAL)
