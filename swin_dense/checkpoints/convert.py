"""Write a Swin checkpoint in the layout of another project, exactly: values are moved, never
computed.

Letters: C channels; L = H * W patches of the position embedding.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swin_dense.checkpoints.arrays import write_safetensors
from swin_dense.checkpoints.families.swin import FAMILY, LAYOUTS
from swin_dense.checkpoints.formats import Found, recognise, recognise_any, unwrap
from swin_dense.checkpoints.keys.renaming import is_v2
from swin_dense.errors import UserError
from swin_dense.ops.windows import relative_position_index

_TABLE = re.compile(r"^(layers\.\d+\.blocks\.\d+\.attn\.)relative_position_bias_table$")
_OUT_NORM = re.compile(r"^norm\d+\.")
_OUTSIDE_HF = ("classifier.", "hidden_states_norms.")


@dataclass(frozen=True)
class Target:
    """How one project's files look.

    Attributes:
        layout: a key of :data:`swin_dense.checkpoints.families.swin.LAYOUTS`.
        container: under which name the weights stand in the file, None for at its top.
        whole: whether such files may hold whole detectors and segmentors.
        has_out_norms: whether the project has ``norm0`` to ``norm3``.
        has_index: whether its files carry the index buffers of Swin V1.
    """

    layout: str
    container: str | None
    whole: bool
    has_out_norms: bool
    has_index: bool


TARGETS = {
    "official": Target("official", "model", True, True, True),
    "mmdet": Target("mm", "state_dict", True, True, True),
    "mmseg": Target("mm", "state_dict", True, True, True),
    "timm": Target("timm", None, False, False, False),
    "hf": Target("hf", None, False, True, False),
    "torchvision": Target("torchvision", None, False, False, True),
}


def convert(checkpoint: Any, target: str, *, source: str = "the checkpoint") -> dict[str, Any]:
    """Return a checkpoint's content as the project ``target`` would have saved it.

    Whole detectors and segmentors keep their necks and heads where the target has such files
    (official, mmdet, mmseg); elsewhere only the backbone, its classifier and last norm go over.

    Args:
        checkpoint: what :func:`swin_dense.checkpoints.read.read_checkpoint` returned.
        target: one of "official", "mmdet", "mmseg", "timm", "hf", "torchvision".
        source: its name for errors.

    Raises:
        UserError: it holds no Swin, or something that the target's layout has no place for.
    """
    if target not in TARGETS:
        raise UserError(f"got target {target!r}; expected one of {', '.join(TARGETS)}.")
    rule = TARGETS[target]
    tensors = unwrap(checkpoint, source)
    found = recognise(tensors, FAMILY)
    if found is None:
        other = recognise_any(tensors)
        what = f"; it is a {other.family.title}, and only Swin is converted" if other else ""
        raise UserError(f"{source} holds no Swin that is known here{what}; nothing was written.")
    backbone = {
        name: value
        for name, value in found.backbone.items()
        if rule.has_out_norms or not _OUT_NORM.match(name)
    }
    if target == "torchvision" and "absolute_pos_embed" in backbone:
        raise UserError(f"{source} has a position embedding, which torchvision's Swin does not.")
    foreign = LAYOUTS[rule.layout].from_official(_flat_positions(backbone))
    _check_exact(found, foreign, backbone)
    if rule.has_index and not is_v2(backbone):
        foreign |= LAYOUTS[rule.layout].from_official(_index_buffers(backbone, rule.layout))
    state = _with_prefix(found, foreign, target, rule)
    if rule.container is None:
        return state
    meta = checkpoint.get("meta") if isinstance(checkpoint, Mapping) else None
    return {**({"meta": meta} if isinstance(meta, Mapping) else {}), rule.container: state}


def save(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint; ``.safetensors`` holds the tensors alone. The file appears whole or not
    at all.

    Raises:
        UserError: the folder does not exist, or the name's ending is none of a checkpoint.
    """
    if path.suffix not in (".pth", ".pt", ".bin", ".safetensors"):
        raise UserError(f"got {path}; expected a name ending in .pth, .pt, .bin or .safetensors.")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}; make it first, or name another file.")
    write: Callable[[Path], Any]
    if path.suffix == ".safetensors":
        tensors = unwrap(content, str(path))
        write = lambda part: write_safetensors(tensors, part)  # noqa: E731
    else:
        write = lambda part: torch.save(dict(content), part)  # noqa: E731
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flat_positions(backbone: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the position embedding (1, C, H, W) the shape (1, L, C), as every project saves it."""
    flat = dict(backbone)
    grid = flat.get("absolute_pos_embed")
    if grid is not None and grid.dim() == 4 and grid.shape[2] == grid.shape[3]:
        flat["absolute_pos_embed"] = grid.flatten(2).transpose(1, 2).contiguous()
    return flat


def _index_buffers(backbone: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Return the index buffer of each bias table of Swin V1, flat for torchvision."""
    buffers = {}
    for name, table in backbone.items():
        if found := _TABLE.match(name):
            index = relative_position_index((round(table.shape[0] ** 0.5) + 1) // 2)
            index = index.flatten() if layout == "torchvision" else index
            buffers[f"{found[1]}relative_position_index"] = index
    return buffers


def _check_exact(
    found: Found, foreign: Mapping[str, Tensor], backbone: Mapping[str, Tensor]
) -> None:
    """Read the result back: it must give every official tensor again, to the last bit."""
    again = recognise(foreign, FAMILY)
    assert again is not None, f"a converted {found.format} is not recognised"
    assert set(again.backbone) == set(backbone), set(again.backbone) ^ set(backbone)
    for name, value in backbone.items():
        assert torch.equal(again.backbone[name], value), name


def _with_prefix(
    found: Found, foreign: Mapping[str, Tensor], target: str, rule: Target
) -> dict[str, Tensor]:
    """Put names where the target's programs look for them, and whole models' other parts beside."""
    if target == "hf":
        inner = "swinv2." if is_v2(found.backbone) else "swin."
        return {
            name if name.startswith(_OUTSIDE_HF) else inner + name: value
            for name, value in foreign.items()
        }
    whole = rule.whole and found.prefix.endswith("backbone.")
    if not whole and rule.layout != "mm":
        return dict(foreign)
    state = {f"backbone.{name}": value for name, value in foreign.items()}
    if whole:
        outer = found.prefix[: -len("backbone.")]
        state |= {name.removeprefix(outer): value for name, value in found.rest.items()}
    return state
