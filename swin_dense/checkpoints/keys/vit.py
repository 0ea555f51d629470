"""Plain vision transformers: the names of mmseg and mmpretrain, transformers and Google's JAX code.

The hub has the names of the official DeiT code, which are timm's. Letters: C channels; h heads; d =
C / h; P patch side.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from swin_dense.checkpoints.keys.renaming import join_qkv, patterns, rename, split_qkv

State = dict[str, Tensor]

_DEIT_III = patterns([(r"\.gamma_([12])$", r".ls\1.gamma")])
_FROM_MM = patterns(
    [
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"^layers\.", "blocks."),
        (r"^(blocks\.\d+)\.ln(\d)\.", r"\1.norm\2."),
        (r"^ln1\.", "norm."),
        (r"\.attn\.attn\.in_proj_", ".attn.qkv."),
        (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
        (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
        (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
        (r"\.attn\.gamma1\.weight$", ".ls1.gamma"),
        (r"\.ffn\.gamma2\.weight$", ".ls2.gamma"),
    ]
)
_TO_MM = patterns(
    [
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
        (r"^norm\.", "ln1."),
        (r"\.norm(\d)\.", r".ln\1."),
        (r"^blocks\.", "layers."),
        (r"\.attn\.qkv\.", ".attn.attn.in_proj_"),
        (r"\.attn\.proj\.", ".attn.attn.out_proj."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
        (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    ]
)
_FROM_HF = patterns(
    [
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^embeddings\.projection\.", "patch_embed.proj."),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.distillation_token$", "dist_token"),
        (r"^embeddings\.mask_token$", "mask_token"),
        (r"^(encoder\.layer|encoder\.layers|layers)\.", "blocks."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.attention\.(attention\.)?", ".attn."),
        (r"\.attn\.q_proj\.", ".attn.query."),
        (r"\.attn\.k_proj\.", ".attn.key."),
        (r"\.attn\.v_proj\.", ".attn.value."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
        (r"^layernorm\.", "norm."),
        (r"^(cls_)?classifier\.", "head."),
        (r"^distillation_classifier\.", "head_dist."),
    ]
)
_TO_HF = patterns(
    [
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^cls_token$", "embeddings.cls_token"),
        (r"^dist_token$", "embeddings.distillation_token"),
        (r"^norm\.", "layernorm."),
        (r"^blocks\.", "encoder.layer."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.attn\.", ".attention.attention."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ]
)
_FROM_JAX = patterns(
    [
        (r"^embedding/", "patch_embed.proj."),
        (r"^cls$", "cls_token"),
        (r"^Transformer/posembed_input/pos_embedding$", "pos_embed"),
        (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
        (r"^Transformer/encoder_norm/", "norm."),
        (r"LayerNorm_0/", "norm1."),
        (r"LayerNorm_[12]/", "norm2."),
        (r"(MultiHeadDotProductAttention_1|MHDPA_0)/", "attn."),
        (r"MlpBlock_[03]/Dense_0/", "mlp.fc1."),
        (r"MlpBlock_[03]/Dense_1/", "mlp.fc2."),
        (r"\.out/", ".proj."),
        (r"/", "."),
        (r"\.(kernel|scale)$", ".weight"),
    ]
)


def deit_to_official(state: Mapping[str, Tensor]) -> State:
    """Give DeiT III's factors timm's names."""
    return rename(state, _DEIT_III)


def mm_to_official(state: Mapping[str, Tensor]) -> State:
    """Rename to the official names; patches without a bias, as in mmseg 1, get one of zeros."""
    official = rename(state, _FROM_MM)
    patches = official.get("patch_embed.proj.weight")
    if patches is not None and "patch_embed.proj.bias" not in official:
        official["patch_embed.proj.bias"] = patches.new_zeros(patches.shape[0])
    return official


def official_to_mm(state: Mapping[str, Tensor]) -> State:
    """Undo :func:`mm_to_official`, with mmseg's names."""
    return rename(state, _TO_MM)


def hf_to_official(state: Mapping[str, Tensor]) -> State:
    """Rename, and join queries, keys and values (C each) as ``qkv`` (3C)."""
    return join_qkv(rename(state, _FROM_HF))


def official_to_hf(state: Mapping[str, Tensor]) -> State:
    """Undo :func:`hf_to_official`, with the names that files have."""
    return rename(split_qkv(state), _TO_HF)


def jax_to_official(state: Mapping[str, Tensor]) -> State:
    """Rename, and lay arrays out as torch has them.

    A kernel of the patches is (P, P, in, C), one of queries, keys or values (C, h, d), one of the
    attention's output (h, d, C), any other (in, out).
    """
    official = {}
    for name, value in rename(state, _FROM_JAX).items():
        if name.endswith(".weight"):
            if value.dim() == 4:
                value = value.permute(3, 2, 0, 1)
            elif value.dim() == 3:
                value = value.flatten(0, 1) if name.endswith("proj.weight") else value.flatten(1)
            value = value.t() if value.dim() == 2 else value
        elif name.endswith(".bias"):
            value = value.flatten()
        official[name] = value.contiguous()
    return join_qkv(official)
