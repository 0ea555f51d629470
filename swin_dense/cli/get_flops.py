"""``tools/get_flops.py CONFIG``: parameters and multiply-accumulates, module by module."""

from __future__ import annotations

from collections.abc import Sequence

from swin_dense.cli.common import Parser, add_config_arguments, run


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        prog="get_flops.py",
        description="Count parameters and multiply-accumulates (the published FLOPs) of a model.",
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--shape",
        nargs="+",
        type=int,
        metavar="PIXELS",
        help="height and width, or one side of a square (800 1280 for a detector; for a segmenter "
        "what its test images are resized into)",
    )
    parser.add_argument("--depth", type=int, default=2, metavar="N", help="levels shown (2)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Count and print; return the exit code."""
    return run(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    from swin_dense.engine.config import load_config
    from swin_dense.engine.counting import count_config, describe_counting, published_hw
    from swin_dense.errors import UserError
    from swin_dense.evaluation.complexity import format_costs

    if args.shape and (len(args.shape) > 2 or min(args.shape) < 1):
        raise UserError(
            f"--shape {' '.join(map(str, args.shape))}: expected height and width in pixels, or "
            "one side of a square."
        )
    cfg = load_config(args.config, args.cfg_options)
    height, width = (args.shape * 2)[:2] if args.shape else published_hw(cfg)
    costs = count_config(cfg, (height, width))
    print(format_costs(costs, depth=args.depth))
    print(f"\none image of {height}x{width} (height x width); {describe_counting(cfg)}")
    return 0
