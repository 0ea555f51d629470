"""Recognise whose Swin weights a checkpoint holds, by its keys, and give them official names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from swin_dense.checkpoints.keys import LAYOUTS
from swin_dense.checkpoints.keys.renaming import is_v2
from swin_dense.errors import UserError

CONTAINERS = ("state_dict", "model", "model_state_dict", "model_state", "net")
"""Names under which training programs put the weights."""

DERIVED = re.compile(r"(relative_position_index|relative_coords_table|attn_mask)$")
"""Buffers that a checkpoint may carry and the model computes by itself."""

_PROBES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (layout, re.compile(r"^(|.*?\.)" + probe))
    for layout, probe in (
        ("hf", r"encoder\.layers\.\d+\.blocks\.\d+\.attention\."),
        ("mm", r"stages\.\d+\.blocks\.\d+\.attn\.w_msa\."),
        ("torchvision", r"features\.\d+\.\d+\.attn\.qkv\."),
        ("timm", r"layers_\d+\.blocks\.\d+\.attn\.qkv\."),
        ("official", r"layers\.\d+\.blocks\.\d+\.attn\.qkv\."),
    )
)
_SHADOW = re.compile(r"(^|[._])(encoder_k|momentum_encoder|teacher|ema)([._]|$)")
"""A part of a prefix that marks a slow copy of the weights, as in MoBY."""

_DETECTRON2 = re.compile(r"^(backbone\.bottom_up|sem_seg_head|proposal_generator)\.")
_SELF_SUPERVISED = re.compile(r"^(module\.)?encoder\.$")
_OUTSIDE_HF = re.compile(r"^(classifier|hidden_states_norms)\.")


@dataclass(frozen=True)
class Found:
    """A Swin inside a state dict.

    Attributes:
        layout: a key of :data:`swin_dense.checkpoints.keys.LAYOUTS`.
        format: the same, more exactly, for reports.
        prefix: what stands before the backbone's names.
        backbone: its tensors under official names, derived buffers left out.
        rest: the other tensors, of necks and heads, under their own names.
    """

    layout: str
    format: str
    prefix: str
    backbone: dict[str, Tensor]
    rest: dict[str, Tensor]


@dataclass(frozen=True)
class Geometry:
    """What tells one Swin from another: version, channels of the first stage, blocks a stage."""

    version: int
    embed_dims: int
    depths: tuple[int, ...]

    def __str__(self) -> str:
        return f"Swin V{self.version} with embed_dims={self.embed_dims}, depths={self.depths}"


def unwrap(checkpoint: Any, source: str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, its container taken off; numpy arrays become tensors.

    Raises:
        UserError: there are none in it.
    """
    state = checkpoint
    for container in CONTAINERS:
        if isinstance(state, Mapping) and isinstance(state.get(container), Mapping):
            state = state[container]
            break
    tensors = {}
    if isinstance(state, Mapping):
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[str(key)] = value
            elif type(value).__module__ == "numpy" and value.dtype.kind in "fiub" and value.ndim:
                tensors[str(key)] = torch.from_numpy(value)
    if not tensors:
        what = type(checkpoint).__name__
        if isinstance(checkpoint, Mapping):
            what += " with the keys " + (", ".join(map(str, list(checkpoint)[:5])) or "(none)")
        raise UserError(
            f"{source} holds no tensors: expected a state dict, alone or under one of "
            f"{', '.join(map(repr, CONTAINERS))}, found a {what}."
        )
    return tensors


def locate(keys: Iterable[str]) -> tuple[str, str] | None:
    """Return (layout, prefix) of the Swin among these keys, None where there is none.

    Of several, as in self-supervised training, it is the one with no mark of a slow copy and the
    shortest prefix.
    """
    keys = list(keys)
    for layout, probe in _PROBES:
        prefixes = {found[1] for key in keys if (found := probe.match(key))}
        if not prefixes:
            continue
        prefix = min(prefixes, key=lambda name: (bool(_SHADOW.search(name)), len(name), name))
        if layout == "official" and _merges_before_stages(keys, prefix):
            layout = "timm"
        return layout, prefix
    return None


def recognise(state: Mapping[str, Tensor]) -> Found | None:
    """Return the Swin in a state dict, whoever made it; None where there is none."""
    located = locate(state)
    if located is None:
        return None
    layout, prefix = located
    parent = re.sub(r"swin(v2)?\.$", "", prefix)  # transformers puts head and output norms there
    inside, rest = {}, {}
    for key, value in state.items():
        name = key[len(prefix) :] if key.startswith(prefix) else None
        if name is None and layout == "hf" and key.startswith(parent):
            beside = key[len(parent) :]
            name = beside if _OUTSIDE_HF.match(beside) else None
        if name is None:
            rest[key] = value
        elif not DERIVED.search(name):
            inside[name] = value
    backbone = LAYOUTS[layout].to_official(inside)
    if (table := backbone.get("absolute_pos_embed")) is not None and table.dim() == 3:
        backbone["absolute_pos_embed"] = square_grid(table)
    return Found(layout, _describe(layout, prefix, state), prefix, backbone, rest)


def geometry(backbone: Mapping[str, Tensor]) -> Geometry:
    """Read off a backbone's official names and shapes what model they belong to."""
    depths: dict[int, int] = {}
    widths = []
    for key, value in backbone.items():
        if found := re.match(r"^layers\.(\d+)\.blocks\.(\d+)\.attn\.qkv\.weight$", key):
            stage, block = int(found[1]), int(found[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
            widths.append((stage, value.shape[1] >> stage))
    return Geometry(
        version=2 if is_v2(backbone) else 1,
        embed_dims=min(widths)[1] if widths else 0,
        depths=tuple(depths.get(stage, 0) for stage in range(max(depths, default=-1) + 1)),
    )


def square_grid(table: Tensor) -> Tensor:
    """Reshape a (1, L, C) position embedding of a square image to (1, C, H, W); others stay."""
    side = round(table.shape[1] ** 0.5)
    if side * side != table.shape[1]:
        return table
    return table.reshape(1, side, side, -1).permute(0, 3, 1, 2).contiguous()


def _merges_before_stages(keys: list[str], prefix: str) -> bool:
    """Whether the first stage has no merging but a later one has: timm's layout since 0.9."""
    merging = re.compile(re.escape(prefix) + r"layers\.(\d+)\.downsample\.")
    stages = {int(found[1]) for key in keys if (found := merging.match(key))}
    return bool(stages) and 0 not in stages


def _describe(layout: str, prefix: str, state: Mapping[str, Tensor]) -> str:
    if layout == "official":
        if any(_DETECTRON2.match(key) for key in state):
            return "detectron2"
        return "official (self-supervised)" if _SELF_SUPERVISED.match(prefix) else "official"
    if layout == "hf" and any(".attention.q_proj." in key for key in state):
        return "hf (in memory)"
    if layout == "timm" and any("layers_0." in key for key in state):
        return "timm (features only)"
    return layout
