"""Carry the rows of class-wise layers from one class list to another, by name.

Letters: K classes; A anchors a cell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

_BACKGROUND_LAST = re.compile(r"(^|\.)fc_cls(\.\d+)?\.(weight|bias)$")
"""Rows: K classes, then background, as mmdet's box heads have them."""

_BY_CLASS = re.compile(
    r"(^|\.)(fc_cls|fc_reg|conv_logits|conv_seg|\w*_cls|conv_cls)(\.\d+)?\.(weight|bias)$"
)
_RPN = re.compile(r"(^|\.)rpn_(cls|reg)(\.\d+)?\.")
"""Region proposals know no classes."""

_ROWS_A_CLASS = re.compile(r"(^|\.)fc_reg(\.\d+)?\.")
"""Rows: K blocks of 4. Other layers with several rows a class have A blocks of K."""


def class_names(checkpoint: Any) -> tuple[str, ...] | None:
    """Return the class names that mmengine or mmcv wrote into a checkpoint."""
    meta = checkpoint.get("meta") if isinstance(checkpoint, Mapping) else None
    if not isinstance(meta, Mapping):
        return None
    dataset = meta.get("dataset_meta")
    for holder, key in ((dataset, "classes"), (dataset, "CLASSES"), (meta, "CLASSES")):
        names = holder.get(key) if isinstance(holder, Mapping) else None
        if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names):
            return tuple(names)
    return None


def is_class_wise(name: str) -> bool:
    """Whether a parameter's first axis runs over classes."""
    return bool(_BY_CLASS.search(name)) and not _RPN.search(name)


def map_rows(
    name: str, value: Tensor, target: Tensor, theirs: Sequence[str], ours: Sequence[str]
) -> Tensor | None:
    """Return ``target`` with the rows of the classes that both sides have taken from ``value``.

    Args:
        name: the parameter's name; it says how rows belong to classes.
        value: the checkpoint's, (rows for ``theirs``, ...).
        target: the model's own, (rows for ``ours``, ...); classes of its own keep these rows.
        theirs, ours: class names in the order of the rows.

    Returns:
        A new tensor like ``target``; None where the shapes do not belong to the class lists. A
        layer that has the same few rows whatever the classes (class-agnostic boxes and masks) comes
        back as ``value``.
    """
    if value.shape[1:] != target.shape[1:]:
        return None
    extra = 1 if _BACKGROUND_LAST.search(name) else 0
    blocks, ragged = divmod(value.shape[0] - extra, len(theirs))
    if ragged or target.shape[0] - extra != blocks * len(ours):
        return value if value.shape == target.shape and _is_agnostic(name, value, theirs) else None
    position = {class_name: row for row, class_name in enumerate(theirs)}
    mapped = target.detach().clone()
    for row, class_name in enumerate(ours):
        if class_name not in position:
            continue
        for block in range(blocks):
            if _ROWS_A_CLASS.search(name):
                to, source = row * blocks + block, position[class_name] * blocks + block
            else:
                to, source = block * len(ours) + row, block * len(theirs) + position[class_name]
            mapped[to] = value[source].to(mapped)
    if extra:
        mapped[-1] = value[-1].to(mapped)
    return mapped


def _is_agnostic(name: str, value: Tensor, theirs: Sequence[str]) -> bool:
    return value.shape[0] < len(theirs) and not _BACKGROUND_LAST.search(name)
