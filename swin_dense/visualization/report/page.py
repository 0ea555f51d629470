"""One HTML file from a template, a style sheet, scripts and data; nothing is asked of a network.

The text of the data ends up in the page by ``textContent`` alone, so class and file names may hold
anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from swin_dense.errors import UserError

_SHARED = ("core.js", "charts.js", "table.js", "pictures.js", "viewer.js", "gallery.js")


def write_page(path: Path, title: str, data: Mapping[str, Any], *, script: str) -> Path:
    """Write a page, whole or not at all; return its path.

    Args:
        path: the ``.html`` file.
        title: of the browser's window.
        data: what the scripts draw; plain values, NaN becomes null.
        script: the page's own script, "report.js" or "compare.js".

    Raises:
        UserError: the folder cannot be written.
    """
    parts = files("swin_dense.visualization.report")
    values = {
        "title": escape(title),
        "css": parts.joinpath("report.css").read_text(encoding="utf-8"),
        "js": "\n".join(
            parts.joinpath(name).read_text(encoding="utf-8") for name in (*_SHARED, script)
        ),
        "data": as_script_data(data),
    }
    pieces = parts.joinpath("template.html").read_text(encoding="utf-8").split("{{")
    page = pieces[0]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        page += values[name] + rest
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}. Choose another folder.") from error
    return path


def as_script_data(data: Any) -> str:
    """Return JSON that is safe inside a ``<script>`` element, NaN and infinity as null."""
    text = json.dumps(_plain(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value
