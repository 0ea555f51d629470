"""``tools/compare.py RUN_A RUN_B``: what differs between two evaluations, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swin_dense.cli.common import Parser, add_debug_argument, run
from swin_dense.errors import UserError


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        prog="compare.py",
        description="Compare two evaluated runs on the same images, with bootstrap intervals.",
    )
    parser.add_argument("run_a", help="a work dir that tools/test.py wrote predictions into")
    parser.add_argument("run_b", help="another one; differences are B less A")
    parser.add_argument("--out", metavar="HTML", help="the page (RUN_B/compare.html)")
    parser.add_argument(
        "--resamples", type=int, default=1000, metavar="N", help="of the bootstrap (1000)"
    )
    add_debug_argument(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; return the exit code."""
    return run(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    if args.resamples < 10:
        raise UserError(f"--resamples {args.resamples}: expected 10 or more, as a rule 1000.")
    from swin_dense.engine.report.compare import compare_runs

    out = args.out or Path(args.run_b) / "compare.html"
    page, found = compare_runs(args.run_a, args.run_b, out, resamples=args.resamples)
    width = max(len(name) for name in found)
    print(f"{'':{width}}      A      B   change   95 % interval")
    for name, one in found.items():
        values = [100 * value for value in (one.first, one.second, one.change, one.low, one.high)]
        print(
            f"{name:{width}} {values[0]:6.1f} {values[1]:6.1f} {values[2]:+8.1f}   "
            f"{values[3]:+.1f} to {values[4]:+.1f}{'' if one.is_clear else '  (may be chance)'}"
        )
    print(f"done: {page}")
    return 0
