"""``swin-dense COMMAND ...``: the tools under one name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "train": "train a model",
    "test": "evaluate a checkpoint",
    "compare": "compare two evaluated runs",
    "analyze_logs": "plot curves of runs, print their speed",
    "visualize": "look at a data set, or at predictions",
    "print_config": "print a config, whole",
    "publish_model": "make a run's checkpoint small and self-describing",
    "convert_checkpoint": "write a checkpoint in another project's layout",
    "get_flops": "count parameters and multiply-accumulates",
    "demo": "train, evaluate and look, on generated sample data",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the rest of the command line to the command it names; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0].replace("-", "_") if arguments else ""
    if command in COMMANDS:
        return int(import_module(f"swin_dense.cli.{command}").main(arguments[1:]))
    if arguments[:1] == ["--version"]:
        from swin_dense.version import __version__

        print(f"swin-dense {__version__}")
        return 0
    wants_help = not arguments or arguments[0] in ("-h", "--help")
    stream = sys.stdout if wants_help else sys.stderr
    if not wants_help:
        from swin_dense.errors import did_you_mean

        print(f"error: no command {arguments[0]!r}{did_you_mean(command, COMMANDS)}", file=stream)
    print("usage: swin-dense COMMAND ...  (swin-dense COMMAND --help says more)\n", file=stream)
    for name, what in COMMANDS.items():
        print(f"  {name:20}{what}", file=stream)
    return 0 if wants_help else 1


if __name__ == "__main__":
    raise SystemExit(main())
