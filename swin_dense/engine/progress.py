"""A progress line: rewritten in place on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

QUIET_S = 10.0  # between two lines where nothing can be rewritten


class ProgressLine:
    """Shows what a long step is doing.

    Args:
        stream: where to write; standard output where it is None.
        quiet_s: least seconds between two lines if the stream is no terminal.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet_s: float = QUIET_S) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._quiet_s = quiet_s
        self._rewrites = self._stream.isatty()
        self._last_shown_s = float("-inf")
        self._drawn = 0

    def show(self, text: str) -> None:
        """Show how things stand; it may be passed over if something was shown just before."""
        now = time.monotonic()
        if now - self._last_shown_s < (0.1 if self._rewrites else self._quiet_s):
            return
        self._last_shown_s = now
        self._write(text, end="" if self._rewrites else "\n")

    def finish(self, text: str) -> None:
        """Show the step's last line, always, and go to the next one."""
        self._write(text, end="\n")
        self._drawn = 0
        self._last_shown_s = float("-inf")

    def _write(self, text: str, end: str) -> None:
        if self._rewrites:
            text = text[: shutil.get_terminal_size().columns - 1]
            text, self._drawn = "\r" + text.ljust(self._drawn), len(text)
        self._stream.write(text + end)
        self._stream.flush()


def clock(seconds: float) -> str:
    """Return ``m:ss``."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
