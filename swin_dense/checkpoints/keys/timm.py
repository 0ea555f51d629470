"""timm: official names, but since 0.9 a merging belongs to the stage after it.

``features_only`` models of timm have ``layers_0`` for ``layers.0``. Files older than 0.9 are
official.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from swin_dense.checkpoints.keys.renaming import patterns, rename, shift_downsamples

_TO_OFFICIAL = patterns([(r"^layers_(\d+)\.", r"layers.\1."), (r"^head\.fc\.", "head.")])
_FROM_OFFICIAL = patterns([(r"^head\.(weight|bias)$", r"head.fc.\1")])


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to the official names."""
    return shift_downsamples(rename(state, _TO_OFFICIAL), "layers", -1)


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`to_official`, in the layout of timm 0.9 and later."""
    return shift_downsamples(rename(state, _FROM_OFFICIAL), "layers", 1)
