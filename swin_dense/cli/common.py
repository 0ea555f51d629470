"""What every command shares: flags that hands know, and errors that a person can act on.

Nothing heavy is imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from swin_dense.errors import UserError, did_you_mean

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: one line, with the flag that may be meant."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        known = [flag for action in self._actions for flag in action.option_strings]
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        hint = did_you_mean(unknown.group(1), known) if unknown else ""
        raise UserError(f"{self.prog}: {message}{hint}. See {self.prog} --help")


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``CONFIG``, ``--cfg-options`` and ``--debug``."""
    parser.add_argument(
        "config", help="a config file, a name below configs/, or mmdet::swin/NAME.py"
    )
    parser.add_argument(
        "--cfg-options",
        "--options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override config keys: train_cfg.max_epochs=6 model.backbone.init_cfg=None",
    )
    add_debug_argument(parser)


def add_debug_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--debug``."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_launcher_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher`` and the ``--local-rank`` that old launchers pass."""
    parser.add_argument(
        "--launcher", choices=LAUNCHERS, default="none", help="who starts the processes"
    )
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)


def set_local_rank(local_rank: int) -> None:
    """Pass ``--local-rank`` on to where torch and mmengine look for it."""
    os.environ.setdefault("LOCAL_RANK", str(local_rank))


def warn_deprecated(old: str, new: str) -> None:
    """Say once that a flag of an older toolbox still works, and what it is called now."""
    print(f"note: {old} is an older name; use {new}", file=sys.stderr)


def run(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Run a command; print an error as one message and return 1, with the traceback under
    ``--debug``.

    An error that is not the user's to mend says so and names ``--debug``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get("SWIN_DENSE_DEBUG"))
    if not debug:
        warnings.filterwarnings("ignore")
    try:
        return command(arguments)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1


def explain(error: Exception) -> str:
    """Return the message to show for an error: the user's part of it alone.

    Registries and data-loader workers wrap what they pass on; the wrapping is taken off.
    """
    text = str(error)
    if "Original Traceback" in text:  # raised in a worker: the last line of its traceback says it
        lines = text.strip().splitlines()
        start = max(
            index
            for index, line in enumerate(lines)
            if re.match(r"^[\w.]+(Error|Exception)\b", line)
        )
        text = re.sub(r"^[\w.]+: ", "", "\n".join(lines[start:]))
    text = re.sub(r"^(class `\w+` in [\w./]+: )+", "", text)
    if isinstance(error, UserError):
        return text
    unexpected = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text)
    if unexpected:
        hint = re.search(r"Did you mean '(\w+)'", text)
        meant = f" (did you mean {hint.group(1)!r}?)" if hint else ""
        return f"{unexpected[1]} has no option {unexpected[2]!r}{meant}. Check the config."
    if isinstance(error, KeyError) and "registry" in text:
        return (
            text.strip("'\"").split(" Please check")[0]
            + " Check the type's spelling and its scope."
        )
    return f"{type(error).__name__}: {text}\n(unexpected; --debug shows where)"
