"""``tools/convert_checkpoint.py SRC --to LAYOUT -o DST``: a Swin checkpoint for another project."""

from __future__ import annotations

from collections.abc import Sequence

from swin_dense.cli.common import Parser, add_debug_argument, run

TARGETS = ("official", "mmdet", "mmseg", "timm", "hf", "torchvision")


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        prog="convert_checkpoint.py",
        description="Write a Swin V1 or V2 checkpoint in the layout of another project. What it is "
        "in is recognised; values are moved, never changed. Whole detectors and segmentors keep "
        "necks and heads in official, mmdet and mmseg files.",
    )
    parser.add_argument("source", help="a checkpoint's path or URL")
    parser.add_argument("--to", required=True, choices=TARGETS, help="whose layout to write")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="DST",
        help="the file to write; one that ends in .safetensors holds tensors alone",
    )
    parser.add_argument("--sha256", help="the checksum that the source must have")
    add_debug_argument(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Convert; return the exit code."""
    return run(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    from pathlib import Path

    from swin_dense.checkpoints.convert import convert, save
    from swin_dense.checkpoints.formats import recognise_any, unwrap
    from swin_dense.checkpoints.read import read_checkpoint

    checkpoint = read_checkpoint(args.source, sha256=args.sha256)
    content = convert(checkpoint, args.to, source=args.source)
    save(content, Path(args.output))
    found = recognise_any(unwrap(checkpoint, args.source))
    assert found is not None
    written = unwrap(content, args.output)
    print(f"{args.source} ({found.format}) -> {args.output} ({args.to}), {len(written)} tensors")
    return 0
