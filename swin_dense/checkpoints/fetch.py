"""Bring a checkpoint's URL to a local file: cache, mirrors, checksums, no network on request."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import torch

from swin_dense.errors import UserError

URL_SCHEMES = ("http://", "https://", "file://")
OFFLINE = "SWIN_DENSE_OFFLINE"
"""Set to 1: never download, use what is in the cache."""

MIRRORS = "SWIN_DENSE_MIRRORS"
"""``PREFIX=REPLACEMENT`` pairs between spaces: other addresses to try where the first one fails."""

TIMEOUT_S = 30
_HASH_IN_NAME = re.compile(r"[-_]([0-9a-f]{8,64})\.\w+$")
_COMMON_NAMES = re.compile(
    r"^(pytorch_model|model|model_final|model_best|checkpoint|latest|best|weights|ckpt)\.\w+$"
)


def is_url(source: str | Path) -> bool:
    """Whether a source is to be downloaded."""
    return str(source).startswith(URL_SCHEMES)


def fetch(source: str | Path, *, sha256: str | None = None, mirrors: Sequence[str] = ()) -> Path:
    """Return the local file of a path or a URL, downloaded once.

    A file whose name ends in a checksum, as the mm hosts' and PyTorch's do, is held to it.

    Args:
        source: a path, or a URL.
        sha256: the checksum the file must have, or its first 8 digits or more.
        mirrors: URLs of the same file, tried in turn when the first fails.

    Raises:
        UserError: there is no such file, no network, or the checksum does not match.
    """
    if not is_url(source):
        path = Path(os.path.expanduser(source))
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "nothing"
            raise UserError(
                f"no checkpoint at {path}: found {kind} there, expected a file. Check the path."
            )
        if sha256 is not None:
            check_sha256(path, sha256)
        return path
    url = str(source)
    path = cached_path(url)
    if not path.is_file():
        named = _HASH_IN_NAME.search(path.name)
        expected = sha256 or (named[1] if named else None)
        _download([url, *mirrors, *_mirrors_of(url)], path, expected)
    elif sha256 is not None:
        check_sha256(path, sha256)
    return path


def cached_path(url: str) -> Path:
    """Return where a URL's file lies once it is downloaded: torch's hub folder, which hosts share.

    Names that many files have, such as ``model.safetensors``, get a folder for each URL.
    """
    name = Path(urlparse(url).path).name or "checkpoint.pth"
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if _COMMON_NAMES.match(name):
        folder /= hashlib.sha256(url.encode()).hexdigest()[:12]
    return folder / name


def check_sha256(path: Path, expected: str, *, origin: str | None = None) -> None:
    """Raise a UserError unless the file's checksum begins with ``expected``."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    found = digest.hexdigest()
    if len(expected) < 8 or not found.startswith(expected.lower()):
        raise UserError(
            f"{origin or path} has sha256 {found}, expected {expected} (8 digits or more): the "
            "file is damaged or another one. Download it again, or correct the checksum."
        )


def _mirrors_of(url: str) -> list[str]:
    pairs = [pair.partition("=") for pair in os.environ.get(MIRRORS, "").split()]
    return [
        replacement + url[len(prefix) :]
        for prefix, _, replacement in pairs
        if prefix and url.startswith(prefix)
    ]


def _download(urls: Sequence[str], target: Path, sha256: str | None) -> None:
    by_hand = (
        f"Fetch the file on a machine with a connection and put it at {target}, or name a local "
        "file; to train without pretrained weights add "
        "--cfg-options model.backbone.init_cfg=None"
    )
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise UserError(
            f"{urls[0]} is not in the cache, and {OFFLINE} is set, so it was not downloaded. "
            + by_hand
        )
    failures = []
    for url in urls:
        try:
            _download_one(url, target, sha256)
            return
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            failures.append(f"{url}: {error}")
    raise UserError(f"could not download {'; '.join(failures)}. {by_hand}")


def _download_one(url: str, target: Path, sha256: str | None) -> None:
    """Download to a temporary file and move it into place only when it is whole and as expected."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    partial = Path(name)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "swin_dense"})
        with (
            os.fdopen(handle, "wb") as stream,
            urllib.request.urlopen(request, timeout=TIMEOUT_S) as response,
        ):
            shutil.copyfileobj(response, stream)
            promised = response.headers.get("Content-Length")
        if promised is not None and partial.stat().st_size != int(promised):
            raise OSError(f"got {partial.stat().st_size} of {promised} bytes")
        refuse_what_is_no_checkpoint(partial, origin=url)
        if sha256 is not None:
            check_sha256(partial, sha256, origin=url)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def refuse_what_is_no_checkpoint(path: Path, *, origin: str | None = None) -> None:
    """Raise a UserError for an empty file, a web page, or a Git LFS pointer."""
    what = origin or path
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise UserError(f"{what} is empty; expected a checkpoint. Download or copy it again.")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(
            f"{what} is a web page, not a checkpoint: the download got an error or login page. "
            "Open the link in a browser, and download the file itself."
        )
    if text.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{what} is a Git LFS pointer, not the checkpoint itself. Run: git lfs pull"
        )
