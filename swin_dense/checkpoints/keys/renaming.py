"""Rename the keys of a state dict by a list of patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

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
