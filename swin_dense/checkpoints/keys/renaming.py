"""Rename the keys of a state dict by a list of patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_QKV = ("query", "key", "value")
_PART = re.compile(r"^(.*\.attn\.)(query|key|value)\.(weight|bias)$")

Renames = tuple[tuple[re.Pattern[str], str], ...]


def patterns(pairs: Iterable[tuple[str, str]]) -> Renames:
    """Compile (pattern, replacement) pairs."""
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


def rename(state: Mapping[str, Tensor], renames: Renames) -> dict[str, Tensor]:
    """Return ``state`` with every pattern replaced in every key, one after the other."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in renames:
            key = pattern.sub(replacement, key)
        renamed[key] = value
    return renamed


def is_v2(keys: Iterable[str]) -> bool:
    """Whether the weights are of Swin V2, in whatever layout."""
    return any("logit_scale" in key for key in keys)


def shift_downsamples(state: Mapping[str, Tensor], stages: str, by: int) -> dict[str, Tensor]:
    """Move ``{stages}.{i}.downsample`` to stage ``i + by``; ``stages`` is such as "layers"."""
    pattern = re.compile(rf"^{stages}\.(\d+)\.downsample\.")
    return {
        pattern.sub(lambda found: f"{stages}.{int(found[1]) + by}.downsample.", key): value
        for key, value in state.items()
    }


def join_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join each ``attn.query``, ``attn.key`` and ``attn.value`` (C rows each) as ``attn.qkv`` (3C).

    Parts of which not all three are there are left out.
    """
    joined, parts = {}, {}
    for key, value in state.items():
        if found := _PART.match(key):
            parts[found[1], found[3], found[2]] = value
        else:
            joined[key] = value
    for stem, leaf in dict.fromkeys((stem, leaf) for stem, leaf, _ in parts):
        three = [parts[stem, leaf, name] for name in _QKV if (stem, leaf, name) in parts]
        if len(three) == len(_QKV):
            joined[f"{stem}qkv.{leaf}"] = torch.cat(three)
    return joined


def split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`join_qkv`."""
    split = {}
    for key, value in state.items():
        stem, found, leaf = key.rpartition("attn.qkv.")
        if not found:
            split[key] = value
            continue
        for name, part in zip(_QKV, value.chunk(3), strict=True):
            split[f"{stem}attn.{name}.{leaf}"] = part
    return split
