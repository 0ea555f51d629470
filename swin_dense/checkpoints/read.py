"""Read a checkpoint without running anything in it.

Files of torch go through ``torch.load(weights_only=True)``: a pickle that asks for more than
tensors, plain containers and the classes that :func:`allow_globals` has named is refused, with the
name it asked for. Options that training programs save beside the weights come back as plain
containers.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swin_dense.checkpoints.arrays import is_npz, is_safetensors, read_npz, read_safetensors
from swin_dense.checkpoints.fetch import fetch, refuse_what_is_no_checkpoint
from swin_dense.checkpoints.pickles import read_pickle
from swin_dense.errors import UserError

_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of torch before 1.6 begin: a pickle of its magic number."""

_OPTION_CLASSES = (
    "yacs.config.CfgNode",
    "detectron2.config.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "argparse.Namespace",
    "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.ConfigDict",
    "addict.addict.Dict",
    "timm.utils.model_ema.ModelEma",
)


class _Options(OrderedDict[str, Any]):
    """Stands in for classes of options: an instance is a plain dict, nothing more."""

    def __new__(cls, *unused: Any) -> Any:
        return OrderedDict()


class _History:
    """Stands in for mmengine's record of losses, which names its own methods by ``getattr``."""


def _method_of_history(owner: Any, name: str) -> None:
    if owner is not _History or name not in ("mean", "max", "min", "current"):
        raise pickle.UnpicklingError("GLOBAL builtins.getattr")


def allow_globals(classes: Iterable[Any]) -> None:
    """Let checkpoints contain these classes or functions; name only what cannot run foreign code.

    A pair ``(substitute, name)`` lets ``substitute`` answer where a file asks for ``name``.
    """
    torch.serialization.add_safe_globals(list(classes))


def read_checkpoint(
    source: str | Path,
    *,
    map_location: Any = "cpu",
    sha256: str | None = None,
    mirrors: Sequence[str] = (),
) -> Any:
    """Return what a checkpoint file holds, usually a dict.

    The kind of file is recognised by its content: torch's own, ``.safetensors``, ``.npz``, or a
    pickle of numpy arrays as detectron2 publishes.

    Args:
        source: a path, or a URL, which is downloaded once into torch's hub folder.
        map_location: as for ``torch.load``.
        sha256: the checksum the file must have, or its first 8 digits or more.
        mirrors: URLs of the same file, tried in turn when the first fails.

    Raises:
        UserError: the file is missing, empty, truncated, no checkpoint, of another checksum, or
            asks for a class that is not allowed; or the download fails.
    """
    path = fetch(source, sha256=sha256, mirrors=mirrors)
    refuse_what_is_no_checkpoint(path)
    try:
        return _read(path, map_location)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(_explain_refusal(path, str(error))) from error
    except (
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OSError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} ({path.stat().st_size} bytes) could not be read as a checkpoint, it looks "
            f"truncated or damaged ({reason}). Download or copy it again."
        ) from error


def _read(path: Path, map_location: Any) -> Any:
    with path.open("rb") as stream:
        head = stream.read(len(_TORCH_LEGACY))
    if is_npz(path):
        return read_npz(path)
    if is_safetensors(path):
        return read_safetensors(path)
    if head.startswith(b"\x80") and head != _TORCH_LEGACY:
        try:
            return read_pickle(path)
        except UserError as error:
            raise UserError(_refusal(path, str(error))) from error
    known = {_name_of(entry) for entry in torch.serialization.get_safe_globals()}
    stand_ins = [(value, name) for name, value in _stand_ins().items() if name not in known]
    with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
        return torch.load(path, map_location=map_location, weights_only=True)


def _stand_ins() -> dict[str, Any]:
    """Return what answers to the names that training programs' files ask for, beyond tensors."""
    core: Any = np._core if hasattr(np, "_core") else np.core
    multiarray = core.multiarray
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefdUS"}
    return {
        **dict.fromkeys(_OPTION_CLASSES, _Options),
        **{f"numpy.{c}.multiarray.scalar": multiarray.scalar for c in ("core", "_core")},
        **{
            f"numpy.{c}.multiarray._reconstruct": multiarray._reconstruct for c in ("core", "_core")
        },
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        **{f"numpy.dtypes.{dtype.__name__}": dtype for dtype in dtypes},
        "mmengine.logging.history_buffer.HistoryBuffer": _History,
        "builtins.getattr": _method_of_history,
    }


def _name_of(entry: Any) -> str:
    if isinstance(entry, tuple):
        return str(entry[1])
    return f"{getattr(entry, '__module__', '')}.{getattr(entry, '__qualname__', '')}"


def _explain_refusal(path: Path, message: str) -> str:
    match = re.search(r"GLOBAL ([\w.]+)|global ([\w.]+) was not an allowed", message)
    if match:
        return _refusal(path, match.group(1) or match.group(2))
    return f"{path} is no checkpoint that can be read here ({message.splitlines()[0]})."


def _refusal(path: Path, name: str) -> str:
    return (
        f"{path} asks to load {name}, which is not on the list of what a checkpoint may contain, "
        "so it was refused: unpickling it could run code. If you trust it, read it once in a "
        "process of your own with torch.load(weights_only=False) and save the state dict alone."
    )
