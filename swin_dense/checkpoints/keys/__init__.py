"""One module for each project's names and layouts of Swin weights, to the official ones and back.

Every module has ``to_official(state)`` and ``from_official(state)``. Both take and return a dict of
tensors without prefixes; they rename and reorder values and never compute new ones, so a round trip
is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from swin_dense.checkpoints.keys import hf, mm, timm, torchvision

State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How a project lays out a Swin, as two functions of state dicts."""

    to_official: Callable[[Mapping[str, Tensor]], State]
    from_official: Callable[[Mapping[str, Tensor]], State]


LAYOUTS: dict[str, Layout] = {
    "official": Layout(to_official=dict, from_official=dict),
    "mm": Layout(mm.to_official, mm.from_official),
    "timm": Layout(timm.to_official, timm.from_official),
    "torchvision": Layout(torchvision.to_official, torchvision.from_official),
    "hf": Layout(hf.to_official, hf.from_official),
}
