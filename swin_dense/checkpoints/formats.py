"""Recognise whose weights a checkpoint holds, by its keys, and give them official names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from swin_dense.checkpoints.families import families
from swin_dense.checkpoints.families.family import Family
from swin_dense.errors import UserError

CONTAINERS = ("state_dict", "model", "model_state_dict", "model_state", "net")
"""Names under which training programs put the weights."""

_SHADOW = re.compile(r"(^|[._])(encoder_k|momentum_encoder|teacher|ema)([._]|$)")
"""A part of a prefix that marks a slow copy of the weights, as in MoBY."""


@dataclass(frozen=True)
class Found:
    """A backbone inside a state dict.

    Attributes:
        family: what it is one of.
        layout: a key of ``family.layouts``.
        format: the same, more exactly, for reports.
        prefix: what stands before the backbone's names.
        backbone: its tensors under official names, derived buffers left out.
        rest: the other tensors, of necks and heads, under their own names.
        derived: the backbone's derived buffers under official names, as far as the file has them.
    """

    family: Family
    layout: str
    format: str
    prefix: str
    backbone: dict[str, Tensor]
    rest: dict[str, Tensor]
    derived: dict[str, Tensor]


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


def locate(keys: Iterable[str], family: Family) -> tuple[str, str] | None:
    """Return (layout, prefix) of the family's backbone among these keys, None where there is none.

    Of several, as in self-supervised training, it is the one with no mark of a slow copy and the
    shortest prefix.
    """
    keys = list(keys)
    for layout, rules in family.layouts.items():
        for probe in rules.probes:
            if prefixes := probe.prefixes(keys):
                return layout, nearest(prefixes)
    return None


def nearest(prefixes: Iterable[str]) -> str:
    """Return the prefix with no mark of a slow copy, of these the shortest."""
    return min(prefixes, key=lambda name: (bool(_SHADOW.search(name)), len(name), name))


def recognise(state: Mapping[str, Tensor], family: Family) -> Found | None:
    """Return the backbone of a family in a state dict, whoever made it; None where there is
    none.
    """
    located = locate(state, family)
    if located is None:
        return None
    layout, prefix = located
    rules = family.layouts[layout]
    parent = rules.wrapper.sub("", prefix)
    inside, rest, derived = {}, {}, {}
    for key, value in state.items():
        name = key[len(prefix) :] if key.startswith(prefix) else None
        if name is None and key.startswith(parent):
            name = key[len(parent) :] if rules.beside.match(key[len(parent) :]) else None
        if name is None:
            rest[key] = value
        elif family.derived.search(name):
            derived[name] = value
        else:
            inside[name] = value
    return Found(
        family=family,
        layout=layout,
        format=family.describe(layout, prefix, state),
        prefix=prefix,
        backbone=family.tidy(rules.to_official(inside)),
        rest=rest,
        derived=rules.to_official(derived),
    )


def recognise_any(state: Mapping[str, Tensor]) -> Found | None:
    """Return the backbone in a state dict, of whatever family; None where there is none."""
    for family in families():
        if (found := recognise(state, family)) is not None:
            return found
    return None
