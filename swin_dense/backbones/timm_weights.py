"""How the loader sees a model of timm: its names with and without what surrounds them here.

timm's feature models name the parts of a classifier otherwise than the classifier does: the first
level of its sequences is flattened (``stages.0`` becomes ``stages_0``), or the whole stands under
``model.`` or ``body.``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial

from torch import Tensor

from swin_dense.checkpoints.families.family import Family, Geometry, Layout, Probe, State

HOLDER = "timm_model."
"""What the names in a state dict of ours begin with, as in mmseg's and mmpretrain's wrappers."""

_WRAPPERS = ("", "model.", "body.")
_PROBED = 8


def timm_family(model_name: str, names: Iterable[str]) -> Family:
    """Return the family of one model.

    Args:
        model_name: for messages.
        names: of its state dict, beginning with :data:`HOLDER`.
    """
    own = frozenset(names)
    weights = [name for name in sorted(own) if name.endswith(".weight")]
    probed = weights[:: max(1, len(weights) // _PROBED)]
    ours = tuple(re.escape(name) + "$" for name in probed)
    theirs = tuple(_classifiers_pattern(name) for name in probed)
    return Family(
        name="timm",
        title=f"{model_name} of timm",
        projects=f"timm's {model_name}",
        layouts={
            "official": Layout((Probe(ours),)),
            "timm": Layout((Probe(theirs),), to_official=partial(_to_official, own)),
        },
        geometry=partial(_geometry, model_name, _groups(weights)),
        derived=re.compile(r"(^|\.)(relative_position_index|attn_mask)$"),
        classifier=re.compile(rf"^{re.escape(HOLDER)}(norm|(conv_|norm_)?head|fc|classifier)\."),
    )


def _classifiers_pattern(name: str) -> str:
    """Return a pattern of the classifier's name for a name of ours."""
    bare = name.removeprefix(HOLDER)
    for wrapper in _WRAPPERS[1:]:
        bare = bare.removeprefix(wrapper)
    first, dot, rest = bare.partition(".")
    return re.sub("_", "[._]", re.escape(first)) + re.escape(dot + rest) + "$"


def _to_official(own: frozenset[str], state: Mapping[str, Tensor]) -> State:
    """Give a classifier's tensors our names; what we do not have keeps its own, with the holder."""

    def official(name: str) -> str:
        spellings = (name, name.replace(".", "_", 1))
        candidates = (f"{HOLDER}{wrapper}{key}" for wrapper in _WRAPPERS for key in spellings)
        return next((key for key in candidates if key in own), HOLDER + name)

    return {official(name): value for name, value in state.items()}


def _groups(names: Iterable[str]) -> Counter[str]:
    """Count the weights below each part of a feature model; those of a wrapped one do not count,
    because timm cuts off what its last map does not need.
    """
    counts: Counter[str] = Counter()
    for name in names:
        first = name.removeprefix(HOLDER).partition(".")[0]
        if name.endswith(".weight") and f"{first}." not in _WRAPPERS:
            counts[first] += 1
    return counts


def _geometry(model_name: str, own: Counter[str], tensors: Mapping[str, Tensor]) -> Geometry:
    """Tell deeper and shallower models of the same names apart, such as ResNets 50 and 101."""
    found = _groups(tensors)
    return Geometry(
        title=f"model with {model_name}'s names",
        sizes={f"weights in {group}": found[group] for group in own if group in found},
    )
