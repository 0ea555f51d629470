"""What the loader has to know of a family of backbones: whose layouts there are, and how they map.

A family is the set of models whose weights have the same official names, such as Swin V1 and V2, or
PVT v1 and v2. A backbone's class says its own as ``checkpoint_family``; the loader finds the rest
here and knows nothing of any family itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

State = dict[str, Tensor]
_NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True)
class Probe:
    """What the keys of a layout look like, after one common prefix.

    Attributes:
        has: patterns, each of which must match the beginning of some key.
        lacks: patterns, none of which may match the beginning of any key.
    """

    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()

    def prefixes(self, keys: Iterable[str]) -> set[str]:
        """Return every prefix after which the keys fit; it is empty or ends in a dot."""
        keys = list(keys)
        first = re.compile(r"^(|.*?\.)" + self.has[0])
        candidates = {found[1] for key in keys if (found := first.match(key))}
        return {prefix for prefix in candidates if self._fits(keys, prefix)}

    def _fits(self, keys: list[str], prefix: str) -> bool:
        names = [key[len(prefix) :] for key in keys if key.startswith(prefix)]

        def occurs(pattern: str) -> bool:
            return any(re.match(pattern, name) for name in names)

        return all(map(occurs, self.has[1:])) and not any(map(occurs, self.lacks))


@dataclass(frozen=True)
class Layout:
    """How a project lays out a family's weights.

    Attributes:
        probes: how its keys are recognised; one is enough.
        to_official, from_official: take and return tensors by name, without prefix. They rename,
            cut, join and reorder values and never compute new ones.
        wrapper: pattern of the last part of a prefix, such as ``vit\\.``, beside which ...
        beside: ... this project puts parts that belong to the backbone as well.
    """

    probes: tuple[Probe, ...]
    to_official: Callable[[Mapping[str, Tensor]], State] = dict
    from_official: Callable[[Mapping[str, Tensor]], State] = dict
    wrapper: re.Pattern[str] = _NOTHING
    beside: re.Pattern[str] = _NOTHING


@dataclass(frozen=True)
class Geometry:
    """What tells one model of a family from another.

    Attributes:
        title: the model, such as "Swin V1".
        sizes: by the name of the option that sets them; they must agree.
        depths: blocks of each stage; where one side has fewer stages, these must agree.
    """

    title: str
    sizes: Mapping[str, object] = field(default_factory=dict)
    depths: tuple[int, ...] = ()

    def agrees(self, other: Geometry) -> bool:
        """Whether weights of the one fit a model of the other."""
        stages = min(len(self.depths), len(other.depths))
        return (self.title, self.sizes, self.depths[:stages]) == (
            other.title,
            other.sizes,
            other.depths[:stages],
        )

    def __str__(self) -> str:
        facts = {**self.sizes, **({"depths": self.depths} if self.depths else {})}
        return f"{self.title} with " + ", ".join(f"{name}={fact}" for name, fact in facts.items())


def _unchanged(state: State) -> State:
    return state


def _as_it_is(name: str, value: Tensor, target: Tensor) -> Tensor:
    return value


def _no_notes(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    return []


def _layout_name(layout: str, prefix: str, keys: Iterable[str]) -> str:
    return layout


@dataclass(frozen=True)
class Family:
    """A family of backbones, as the loader sees it.

    Attributes:
        name: what a backbone's class has as ``checkpoint_family``.
        title: for messages, such as "Swin".
        projects: whose files are known, for messages.
        layouts: by name, in the order in which they are tried; "official" is the model's own.
        geometry: reads sizes off tensors by official name.
        derived: names of buffers that a file may carry and the model computes by itself.
        classifier: names that a file may have and a dense model does not.
        dense_only: names that a dense model may have and a file does not, such as output norms.
        tidy: reshapes tensors by official name to the shapes that the model has.
        fit: called with an official name, the file's tensor and the model's, returns the first in
            the shape of the second where that is defined, as by resizing, else unchanged.
        notes: called with the file's derived buffers and the model's, returns what fits and is
            wrong all the same.
        describe: called with a layout, a prefix and all keys, returns the format's exact name.
    """

    name: str
    title: str
    projects: str
    layouts: Mapping[str, Layout]
    geometry: Callable[[Mapping[str, Tensor]], Geometry]
    derived: re.Pattern[str] = _NOTHING
    classifier: re.Pattern[str] = re.compile(r"^(norm|head|fc|classifier)\.")
    dense_only: re.Pattern[str] = _NOTHING
    tidy: Callable[[State], State] = _unchanged
    fit: Callable[[str, Tensor, Tensor], Tensor] = _as_it_is
    notes: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], list[str]] = _no_notes
    describe: Callable[[str, str, Iterable[str]], str] = _layout_name
