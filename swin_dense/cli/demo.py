"""``tools/demo.py``: train, evaluate and look, on generated sample data, in one command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from swin_dense.cli.common import Parser, add_debug_argument, run


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        prog="demo.py",
        description="Generate sample data, train Mask R-CNN and UperNet on it, evaluate, draw.",
    )
    parser.add_argument("--work-dir", default="work_dirs/demo", help="folder for all that comes")
    parser.add_argument("--seed", type=int, default=0, help="of the data and of both runs")
    add_debug_argument(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit code: 1 if a target is missed."""
    return run(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    from swin_dense.engine.demo import TITLES, run_demo

    report = run_demo(args.work_dir, seed=args.seed)
    print("\n".join(["", *report.lines()]))
    missed = report.missed()
    if missed:
        names = ", ".join(TITLES[name] for name in missed)
        print(f"error: below target: {names}. Another --seed may do better.", file=sys.stderr)
    return 1 if missed else 0
