"""``tools/publish_model.py IN OUT``: a run's checkpoint, small and self-describing."""

from __future__ import annotations

from collections.abc import Sequence

from swin_dense.cli.common import Parser, add_debug_argument, run


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        prog="publish_model.py",
        description="Strip a run's checkpoint of optimizer state, and add class names, config, "
        "normalisation and a checksum, which also ends the new file's name.",
    )
    parser.add_argument("in_file", help="a checkpoint of a run")
    parser.add_argument("out_file", help="the new file; 8 digits of its sha256 join its name")
    parser.add_argument("--config", help="the run's config, where the checkpoint does not have it")
    parser.add_argument(
        "--classes", nargs="+", help="class names, where the checkpoint does not have them"
    )
    add_debug_argument(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Publish; return the exit code."""
    return run(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    from pathlib import Path

    from swin_dense.checkpoints.publish import publish, slim
    from swin_dense.checkpoints.read import read_checkpoint

    text = None
    if args.config:
        from swin_dense.engine.config import load_config

        text = load_config(args.config).pretty_text
    checkpoint = read_checkpoint(args.in_file)
    content = slim(checkpoint, source=args.in_file, config_text=text, classes=args.classes)
    path = publish(content, Path(args.out_file))
    before, after = Path(args.in_file).stat().st_size, path.stat().st_size
    print(f"{path}: {after / 1e6:.1f} MB (was {before / 1e6:.1f} MB)")
    print(f"classes: {', '.join(content['meta']['dataset_meta']['classes'][:8])}")
    print(f"weights sha256: {content['meta']['weights_sha256']}")
    return 0
