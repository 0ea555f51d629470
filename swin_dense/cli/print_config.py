"""``tools/print_config.py CONFIG``: the whole config after inheritance and overrides."""

from __future__ import annotations

from collections.abc import Sequence

from swin_dense.cli.common import Parser, add_config_arguments, run


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(prog="print_config.py", description="Print a config, whole.")
    add_config_arguments(parser)
    parser.add_argument(
        "--save-path", "--save", metavar="FILE", help="also write it to a .py, .json or .yaml"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print; return the exit code."""
    return run(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    from swin_dense.engine.config import load_config
    from swin_dense.errors import UserError

    cfg = load_config(args.config, args.cfg_options)
    print(cfg.pretty_text)
    if args.save_path:
        if not args.save_path.endswith((".py", ".json", ".yml", ".yaml")):
            raise UserError(f"--save-path {args.save_path}: expected a .py, .json or .yaml file.")
        cfg.dump(args.save_path)
    return 0
