"""``tools/analyze_logs.py plot_curve|cal_train_time RUNS``: curves and speed of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swin_dense.cli.common import Parser, add_debug_argument, run
from swin_dense.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from argparse import Namespace

    from swin_dense.visualization.curves import Curve


def build_parser() -> Parser:
    """Return the parser; subcommands and flags are those of mmdet's own tool."""
    parser = Parser(prog="analyze_logs.py", description="Curves and speed of training runs.")
    commands = parser.add_subparsers(
        dest="task", required=True, metavar="plot_curve|cal_train_time"
    )
    curve = commands.add_parser("plot_curve", help="plot any scalars of one or more runs")
    logs = "work dirs, or their vis_data/scalars.json"
    curve.add_argument("json_logs", nargs="+", metavar="RUN", help=logs)
    curve.add_argument("--keys", nargs="+", default=["loss"], metavar="KEY", help="such as loss")
    curve.add_argument("--title", help="above the picture")
    curve.add_argument("--legend", nargs="+", metavar="TEXT", help="one a run and key, in order")
    curve.add_argument("--out", metavar="FILE", help="a .png, .svg or .pdf (curves.png)")
    speed = commands.add_parser("cal_train_time", help="print the time of an iteration")
    speed.add_argument("json_logs", nargs="+", metavar="RUN", help=logs)
    speed.add_argument(
        "--include-outliers",
        action="store_true",
        help="count each epoch's first logged value too, which warming up makes slow",
    )
    for command in (curve, speed):
        add_debug_argument(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Plot or count; return the exit code."""
    return run(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    return _plot(args) if args.task == "plot_curve" else _time(args)


def _plot(args: Namespace) -> int:
    from swin_dense.visualization.curves import plot_together, read_scalars

    wanted = [(log, key) for log in args.json_logs for key in args.keys]
    if args.legend and len(args.legend) != len(wanted):
        raise UserError(
            f"--legend has {len(args.legend)} texts for {len(args.json_logs)} runs with "
            f"{len(args.keys)} keys; expected {len(wanted)}, run by run."
        )
    runs = {log: read_scalars(log) for log in dict.fromkeys(args.json_logs)}
    names = args.legend or [
        key if len(runs) == 1 else f"{Path(log).name}: {key}" for log, key in wanted
    ]
    curves: dict[str, Curve] = {}
    for (log, key), name in zip(wanted, names, strict=True):
        if key not in runs[log]:
            known = sorted(runs[log])
            raise UserError(
                f"{log} has no {key!r}{did_you_mean(key, known)}; it has {', '.join(known)}."
            )
        if name in curves:
            raise UserError(f"two curves are called {name!r}; give each its own with --legend.")
        curves[name] = runs[log][key]
    path = plot_together(curves, args.out or "curves.png", title=args.title)
    print(f"done: {path}")
    return 0


def _time(args: Namespace) -> int:
    from swin_dense.visualization.curves import iteration_times

    for log in args.json_logs:
        times = iteration_times(log, drop_first=not args.include_outliers)
        print(f"{log}")
        print(f"  mean    {times.mean:.4f} s/iter over {times.count} logged values")
        print(f"  median  {times.median:.4f} s/iter")
        print(f"  slowest {times.slowest:.4f} s/iter, logged at iteration {times.slowest_at}")
        if len(times.epochs) > 1:
            slow = max(times.epochs, key=lambda epoch: times.epochs[epoch])
            fast = min(times.epochs, key=lambda epoch: times.epochs[epoch])
            print(f"  slowest epoch {slow}, {times.epochs[slow]:.4f} s/iter")
            print(f"  fastest epoch {fast}, {times.epochs[fast]:.4f} s/iter")
    return 0
