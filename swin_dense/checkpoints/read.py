"""Read a checkpoint without running anything in it.

Every file goes through ``torch.load(weights_only=True)``: a pickle that asks for more than tensors, plain
containers and the classes that :func:`allow_globals` has named is refused, with the name it asked for.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from swin_dense.errors import UserError

URL_SCHEMES = ("http://", "https://")


def allow_globals(classes: Iterable[Any]) -> None:
    """Let checkpoints contain these classes or functions; name only what cannot run foreign code.

    A pair ``(substitute, name)`` lets ``substitute`` answer where a file asks for ``name``.
    """
    torch.serialization.add_safe_globals(list(classes))


def read_checkpoint(source: str | Path, *, map_location: Any = "cpu") -> Any:
    """Return what a checkpoint file holds, usually a dict.

    Args:
        source: a path, or a URL, which is downloaded once into torch's hub folder.
        map_location: as for ``torch.load``.

    Raises:
        UserError: the file is missing, empty, truncated, no checkpoint, or asks for a class that is not
            allowed; or the download fails.
    """
    if str(source).startswith(URL_SCHEMES):
        path = _download(str(source))
    else:
        path = Path(os.path.expanduser(source))
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "nothing"
        raise UserError(
            f"no checkpoint at {path}: found {kind} there, expected a file. Check the path."
        )
    _refuse_what_is_no_checkpoint(path)
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(_explain_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} ({path.stat().st_size} bytes) could not be read as a checkpoint, it looks truncated "
            f"or damaged ({reason}). Download or copy it again."
        ) from error


def _refuse_what_is_no_checkpoint(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise UserError(f"{path} is empty; expected a checkpoint. Download or copy it again.")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(
            f"{path} is a web page, not a checkpoint: the download got an error or login page. "
            "Open the link in a browser, and download the file itself."
        )
    if text.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{path} is a Git LFS pointer, not the checkpoint itself. Run: git lfs pull"
        )


def _explain_refusal(path: Path, message: str) -> str:
    match = re.search(r"GLOBAL ([\w.]+)|global ([\w.]+) was not an allowed", message)
    if match:
        name = match.group(1) or match.group(2)
        return (
            f"{path} asks to load {name}, which is not on the list of what a checkpoint may contain, so "
            "it was refused: unpickling it could run code. If you trust it, read it once in a process of "
            "your own with torch.load(weights_only=False) and save the state dict alone."
        )
    return f"{path} is no checkpoint that torch can read ({message.splitlines()[0]})."


def _download(url: str) -> Path:
    name = Path(urlparse(url).path).name
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(target), progress=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"could not download {url} ({error}). Fetch the file on a machine with a connection and "
                f"put it at {target}, or name a local file; to train without pretrained weights add "
                "--cfg-options model.backbone.init_cfg=None"
            ) from error
    return target
