"""``tools/test.py CONFIG CHECKPOINT``: evaluate a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swin_dense.cli.common import (
    Parser,
    add_config_arguments,
    add_launcher_arguments,
    run,
    set_local_rank,
    warn_deprecated,
)


def build_parser() -> Parser:
    """Return the parser; its flags are those of mmdet's and mmseg's own tools."""
    parser = Parser(prog="test.py", description="Evaluate a checkpoint: COCO mAP or mIoU.")
    add_config_arguments(parser)
    parser.add_argument("checkpoint", nargs="?", help="a checkpoint's path or URL")
    parser.add_argument(
        "--from-predictions",
        metavar="DIR",
        help="measure a predictions folder again, without a model",
    )
    parser.add_argument(
        "--work-dir", help="folder for metrics.json and logs (work_dirs/<config's name>)"
    )
    parser.add_argument(
        "--out", help="save predictions: a .pkl (detection) or a folder (segmentation)"
    )
    parser.add_argument("--show", action="store_true", help="open a window for each picture")
    parser.add_argument("--show-dir", metavar="DIR", help="save pictures of the predictions")
    parser.add_argument(
        "--wait-time", type=float, default=2.0, metavar="S", help="seconds a window stays"
    )
    parser.add_argument("--tta", "--aug-test", action="store_true", help="test-time augmentation")
    parser.add_argument(
        "--no-report", action="store_true", help="skip report.html and the pictures beside it"
    )
    parser.add_argument(
        "--save-thresholds",
        action="store_true",
        help="keep the score thresholds with the best F1 in the checkpoint",
    )
    parser.add_argument(
        "--val-loss", action="store_true", help="the model's losses beside the metrics"
    )
    parser.add_argument(
        "--eval", nargs="+", metavar="METRIC", help="older flag: the config decides now"
    )
    add_launcher_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; return the exit code."""
    return run(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    if args.eval:
        warn_deprecated("--eval", "test_evaluator in the config, which decides what is measured")
    set_local_rank(args.local_rank)

    from swin_dense.engine.config import load_config
    from swin_dense.engine.session import default_work_dir
    from swin_dense.engine.test import TestOptions, test

    cfg = load_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or default_work_dir(cfg.filename)
    options = TestOptions(
        out=args.out,
        show=args.show,
        show_dir=args.show_dir,
        wait_time=args.wait_time,
        tta=args.tta,
        launcher=args.launcher,
        report=not args.no_report,
        save_thresholds=args.save_thresholds,
        from_predictions=args.from_predictions,
        val_loss=args.val_loss,
    )
    test(cfg, args.checkpoint, options)
    print(f"done: metrics.json is in {cfg.work_dir}")
    if not args.no_report and (Path(cfg.work_dir) / "report.html").is_file():
        print(f"report: {Path(cfg.work_dir) / 'report.html'}")
    return 0
