"""The stages of a timm model, as its ``feature_info`` tells them: which maps, and what to freeze.

A stage ends where timm takes the last map of a stride, from stride 4 on; what comes before the
first map of such a stride is the stem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

PYRAMID = (4, 8, 16, 32)
_SMALLEST_STRIDE = 4

Info = Sequence[Mapping[str, Any]]
"""timm's ``feature_info``: for each map ``module``, ``num_chs`` and ``reduction``."""


def pyramid_indices(info: Info) -> tuple[int, ...] | None:
    """Return timm's indices of the last maps of strides 4, 8, 16 and 32; None without all four."""
    last = {entry["reduction"]: index for index, entry in enumerate(info)}
    return tuple(last[stride] for stride in PYRAMID) if set(PYRAMID) <= set(last) else None


def stages(info: Info) -> list[tuple[str, str]]:
    """Return for each stage the modules of its stride's first and last map, in timm's names."""
    found: dict[int, tuple[str, str]] = {}
    for entry in info:
        stride, module = entry["reduction"], entry["module"]
        if stride >= _SMALLEST_STRIDE:
            found[stride] = (found.get(stride, (module, module))[0], module)
    return list(found.values())


def frozen_modules(
    model: nn.Module, info: Info, frozen_stages: int
) -> Iterator[nn.Module | nn.Parameter] | None:
    """Return the stem, and the first stages; None where the model does not hold them in this order.

    timm registers the parts of its feature models in the order in which they run.

    Args:
        frozen_stages: 0 for the stem alone.
    """
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    starts: list[int] = []
    ends: list[int] = []
    for first, last in stages(info):
        start, end = _places(names, first), _places(names, last)
        if not start or not end or (ends and start[0] < ends[-1]):
            return None
        starts.append(start[0])
        ends.append(end[-1] + 1)
    cut = ends[frozen_stages - 1] if frozen_stages else starts[0]
    return _parts(model, "", {name: index < cut for index, name in enumerate(names)})


def _places(names: Sequence[str], module: str) -> list[int]:
    """Return where ``module``, in timm's name for it, and what is in it stand among ``names``."""
    flat = module.replace(".", "_", 1)
    own = tuple(f"{name}." for name in (module, flat, f"model.{module}", f"body.{module}"))
    return [index for index, name in enumerate(names) if f"{name}.".startswith(own)]


def _parts(
    module: nn.Module, name: str, is_frozen: Mapping[str, bool]
) -> Iterator[nn.Module | nn.Parameter]:
    """Yield the largest modules whose every part is frozen, and lone parameters before them."""
    below = module.named_modules(prefix=name, remove_duplicate=False)
    if all(is_frozen[inner] for inner, _ in below):
        yield module
        return
    if is_frozen[name]:
        yield from module.parameters(recurse=False)
    for child_name, child in module.named_children():
        yield from _parts(child, f"{name}.{child_name}".removeprefix("."), is_frozen)
