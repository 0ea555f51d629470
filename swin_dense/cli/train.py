"""``tools/train.py CONFIG``: train a model."""

from __future__ import annotations

from collections.abc import Sequence

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
    parser = Parser(prog="train.py", description="Train a detector or a segmenter.")
    add_config_arguments(parser)
    parser.add_argument(
        "--work-dir", help="folder for logs and checkpoints (work_dirs/<config's name>)"
    )
    parser.add_argument(
        "--amp", action="store_true", help="mixed precision, also on the CPU (bfloat16)"
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate to the real batch size",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from a checkpoint, or from the latest in the work dir",
    )
    parser.add_argument(
        "--resume-from", metavar="CHECKPOINT", help="older name of --resume CHECKPOINT"
    )
    parser.add_argument(
        "--seed", type=int, help="random seed (older tools' flag for randomness.seed)"
    )
    parser.add_argument("--deterministic", action="store_true", help="deterministic kernels")
    parser.add_argument(
        "--val-loss", action="store_true", help="losses of the validation images beside the metrics"
    )
    add_launcher_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the exit code."""
    return run(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    if args.resume_from:
        warn_deprecated("--resume-from", "--resume CHECKPOINT")
    set_local_rank(args.local_rank)

    from swin_dense.engine.config import load_config
    from swin_dense.engine.session import default_work_dir
    from swin_dense.engine.train import TrainOptions, train

    cfg = load_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or default_work_dir(cfg.filename)
    options = TrainOptions(
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        resume=args.resume or args.resume_from,
        launcher=args.launcher,
        seed=args.seed,
        deterministic=args.deterministic,
        val_loss=args.val_loss,
    )
    runner = train(cfg, options)
    if runner.rank == 0:
        print(f"done: checkpoints and logs are in {runner.work_dir}")
    return 0
