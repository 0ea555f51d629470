"""ViT, DeiT, MAE and ViTDet: files of the official codes, timm, mmseg, mmpretrain, transformers,
detectron2 and Google's JAX code.

Letters: C channels; g side of a square grid; T rows of tokens before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.checkpoints.families.family import Family, Geometry, Layout, Probe
from swin_dense.checkpoints.keys import vit as keys
from swin_dense.checkpoints.resize import resize_patch_convolution
from swin_dense.layers.patch import resize_position_grid
from swin_dense.ops.decomposed import resize_offsets

_OTHERS = (
    r"norm_pre\.",  # CLIP
    r"reg_token",
    r".*\.rope",
    r".*\.relative_position_bias_table",  # BEiT
    r".*\.(q_norm|k_norm)\.",
    r".*\.w12\.",
)
"""Models with these beside the names of a ViT compute something else."""

LAYOUTS = {
    "hf": Layout(
        (
            Probe(
                (
                    r"embeddings\.(patch_embeddings\.)?projection\.",
                    r"embeddings\.position_embeddings$",
                    r"(encoder\.layers?|layers)\.\d+\.(attention\.(attention\.)?(query|q_proj|qkv)\.)",
                ),
                (r"embeddings\.register_tokens", r".*\.relative_position_bias"),
            ),
        ),
        keys.hf_to_official,
        keys.official_to_hf,
        wrapper=re.compile(r"(vit|deit)\.$"),
        beside=re.compile(r"^(classifier|cls_classifier|distillation_classifier|decoder)\."),
    ),
    "mm": Layout(
        (
            Probe(
                (
                    r"layers\.\d+\.ln1\.",
                    r"layers\.\d+\.attn\.(attn\.in_proj_|qkv\.)",
                    r"patch_embed\.projection\.",
                    r"pos_embed$",
                )
            ),
        ),
        keys.mm_to_official,
        keys.official_to_mm,
    ),
    "jax": Layout(
        (Probe((r"Transformer/encoderblock_\d+/", r"embedding/kernel")),), keys.jax_to_official
    ),
    "official": Layout(
        (
            Probe(
                (r"blocks\.\d+\.attn\.qkv\.", r"patch_embed\.proj\.", r"pos_embed$"),
                (*_OTHERS, r"block\d"),
            ),
        ),
        keys.deit_to_official,
    ),
}


def geometry(backbone: Mapping[str, Tensor]) -> Geometry:
    """Read channels and blocks off official names and shapes."""
    blocks = [int(found[1]) for name in backbone if (found := re.match(r"blocks\.(\d+)\.", name))]
    patches = backbone.get("patch_embed.proj.weight")
    width = patches.shape[0] if patches is not None else 0
    return Geometry("ViT", {"embed_dims": width, "num_layers": max(blocks, default=-1) + 1})


def resize_positions(table: Tensor, rows: int) -> Tensor:
    """Fit a (1, T + g * g, C) position embedding to ``rows`` rows.

    The grid is resized bicubically. Of the rows before it those that both sides have stay; a
    distillation token that is new starts from the class token's row, a class token's from zero.
    """
    extra, side = _extra_rows(table.shape[1])
    wanted, new_side = _extra_rows(rows)
    grid = table[:, extra:].transpose(1, 2).reshape(1, -1, side, side)
    resized = resize_position_grid(grid, (new_side, new_side)).flatten(2).transpose(1, 2)
    first = table[:, :extra] if extra else torch.zeros_like(table[:, :1])
    if wanted > first.shape[1]:
        first = first[:, :1].expand(-1, wanted, -1)
    return torch.cat([first[:, :wanted], resized], dim=1)


def _extra_rows(rows: int) -> tuple[int, int]:
    """Return (T, g) of a table's length: 197 is 1 + 14 * 14."""
    side = math.isqrt(rows)
    return rows - side * side, side


def resize_patches(weight: Tensor, target: Tensor) -> Tensor:
    """Fit a (C, in, P, P) patch convolution to another number of input channels or patch side.

    A patch of another side gets the kernels bicubically resized and scaled by the ratio of the
    areas, so that the same picture at the other size gives about the same.
    """
    side, new_side = weight.shape[-1], target.shape[-1]
    if weight.shape[0] == target.shape[0] and side != new_side:
        resized = F.interpolate(weight.float(), size=(new_side, new_side), mode="bicubic")
        weight = (resized * (side / new_side) ** 2).to(weight.dtype)
    return resize_patch_convolution(weight, target)


def _fit(name: str, value: Tensor, target: Tensor) -> Tensor:
    if re.search(r"(^|\.)pos_embed$", name) and value.shape[2] == target.shape[2]:
        return resize_positions(value, target.shape[1])
    if name.endswith("patch_embed.proj.weight"):
        return resize_patches(value, target)
    if re.search(r"\.rel_pos_[hw]$", name) and value.shape[1] == target.shape[1]:
        return resize_offsets(value, target.shape[0]).to(value.dtype)
    return value


FAMILY = Family(
    name="vit",
    title="ViT",
    projects="DeiT, MAE, timm, mmseg, mmpretrain, transformers, detectron2 or Google's JAX code",
    layouts=LAYOUTS,
    geometry=geometry,
    classifier=re.compile(
        r"^(norm|fc_norm|head|head_dist|pre_logits|decoder\w*|cls_token|dist_token|mask_token"
        r"|pooler)(\.|$)"
    ),
    dense_only=re.compile(
        r"(\.attn\.rel_pos_[hw]$|\.residual\.|^dist_token$|^norm\.|^head_dist\.)"
    ),
    fit=_fit,
)
