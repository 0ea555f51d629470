"""``tools/visualize.py dataset CONFIG`` and ``predict CONFIG CHECKPOINT IMAGES``: look."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from glob import glob, has_magic
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_dense.cli.common import Parser, add_config_arguments, run
from swin_dense.errors import UserError

if TYPE_CHECKING:
    from argparse import Namespace

_QUIET_S = 2.0
_LINE_EVERY_S = 10.0


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(prog="visualize.py", description="Look at a data set, or at predictions.")
    commands = parser.add_subparsers(dest="what", required=True, metavar="dataset|predict")

    dataset = commands.add_parser(
        "dataset", help="what the pipeline feeds the model: resized, flipped, cropped, annotated"
    )
    add_config_arguments(dataset)
    dataset.add_argument("--split", default="train", metavar="train|val|test", help="train")
    dataset.add_argument(
        "--number", type=int, default=16, metavar="N", help="pictures, spread over the set (16)"
    )
    dataset.add_argument(
        "--original", action="store_true", help="beside each, the photograph as annotated"
    )
    dataset.add_argument("--out-dir", metavar="DIR", help="work_dirs/<config's name>/dataset_SPLIT")

    predict = commands.add_parser("predict", help="draw a checkpoint's predictions on photographs")
    add_config_arguments(predict)
    predict.add_argument("checkpoint", help="a checkpoint's path or URL")
    predict.add_argument("images", nargs="+", help="files, folders or patterns such as 'a/*.jpg'")
    predict.add_argument("--out-dir", metavar="DIR", help="work_dirs/<config's name>/predictions")
    predict.add_argument(
        "--score-thr",
        type=float,
        metavar="S",
        help="the least score drawn (the checkpoint's own for each class, or 0.3)",
    )
    predict.add_argument(
        "--original", action="store_true", help="beside each, the photograph as it is"
    )
    predict.add_argument("--device", help="such as cpu or cuda:0; the machine's best by default")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; return the exit code."""
    return run(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    return _dataset(args) if args.what == "dataset" else _predict(args)


def _dataset(args: Namespace) -> int:
    if args.number < 1:
        raise UserError(f"--number {args.number}: expected 1 or more.")
    from swin_dense.engine.browse import DatasetBrowser
    from swin_dense.engine.config import load_config
    from swin_dense.visualization.draw import save_png, side_by_side

    cfg = load_config(args.config, args.cfg_options)
    with redirect_stdout(StringIO()):  # pycocotools tells of every file it opens
        browser = DatasetBrowser(cfg, args.split)
    out_dir = _out_dir(args.out_dir, cfg.filename, f"dataset_{args.split}")
    indices = spread(len(browser), args.number)
    for index in track(indices, "pictures"):
        sample = browser.sample(index)
        picture = sample.draw()
        if args.original:
            original = browser.original(index, sample.path)
            titles = [
                f"{name}, {shown.image.shape[1]} x {shown.image.shape[0]}"
                for name, shown in (("as annotated", original), ("as the model sees it", sample))
            ]
            picture = side_by_side([original.draw(), picture], titles)
        save_png(out_dir / f"{index:06d}_{Path(sample.path).stem}.png", picture)
    print(f"done: {len(indices)} of {len(browser)} pictures of the {args.split} set in {out_dir}")
    return 0


def _predict(args: Namespace) -> int:
    if args.score_thr is not None and not 0.0 <= args.score_thr <= 1.0:
        raise UserError(f"--score-thr {args.score_thr}: expected 0 to 1.")
    paths = find_images(args.images)
    from swin_dense.engine.config import load_config
    from swin_dense.inference.predictor import Predictor
    from swin_dense.visualization.draw import save_png, side_by_side
    from swin_dense.visualization.images import read_image

    cfg = load_config(args.config, args.cfg_options)
    predictor = Predictor(cfg, args.checkpoint, device=args.device)
    out_dir = _out_dir(args.out_dir, cfg.filename, "predictions")
    names = distinct_names(paths)
    failed = 0
    for path, name in track(list(zip(paths, names, strict=True)), "pictures"):
        try:
            prediction = predictor(path)
            photo = read_image(path)
            if photo.shape[:2] != prediction.image_hw:  # a loader that leaves photographs unturned
                photo = read_image(path, apply_orientation=False)
            picture = prediction.draw(photo, score_threshold=args.score_thr)
            if args.original:
                picture = side_by_side([photo, picture], ["photograph", "prediction"])
            save_png(out_dir / name, picture)
        except UserError as error:
            if len(paths) == 1:
                raise
            failed += 1
            print(f"error: {error}", file=sys.stderr)
    print(f"done: {len(paths) - failed} of {len(paths)} pictures in {out_dir}")
    return 1 if failed else 0


def find_images(given: Sequence[str]) -> list[Path]:
    """Return the image files that files, folders (not below them) and patterns name, each once.

    Raises:
        UserError: something names no image.
    """
    from swin_dense.visualization.images import IMAGE_SUFFIXES

    found: list[Path] = []
    for text in given:
        path = Path(text).expanduser()
        if path.is_dir():
            matches = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
            expected = f"files ending in {', '.join(sorted(IMAGE_SUFFIXES))} in that folder"
        elif path.exists() or not has_magic(text):
            matches = [path] if path.is_file() else []
            expected = "a file, a folder or a pattern in quotes"
        else:
            matches = [Path(match) for match in glob(str(path), recursive=True)]
            matches = [match for match in matches if match.is_file()]
            expected = "a pattern that files match"
        if not matches:
            raise UserError(f"no image at {text}: expected {expected}. Check the path.")
        found += sorted(matches)
    return list(dict.fromkeys(found))


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return a PNG's name for each picture, numbered where two have the same stem."""
    names: dict[str, None] = {}
    for path in paths:
        name, number = f"{path.stem}.png", 2
        while name in names:
            name, number = f"{path.stem}_{number}.png", number + 1
        names[name] = None
    return list(names)


def spread(total: int, number: int) -> list[int]:
    """Return ``number`` indices spread evenly over ``total``, or all where there are no more."""
    count = min(total, number)
    return [index * total // count for index in range(count)]


def track(items: Sequence[Any], what: str) -> Iterator[Any]:
    """Yield the items; once that takes over two seconds, show how far it is and when it ends."""
    start = last = time.monotonic()
    shown = False
    on_screen = sys.stderr.isatty()
    for done, item in enumerate(items):
        now = time.monotonic()
        wait = (0.2 if on_screen else _LINE_EVERY_S) if shown else _QUIET_S
        if done and now - last >= wait:
            left = round((now - start) / done * (len(items) - done))
            line = f"{done}/{len(items)} {what}, ETA {left // 60}:{left % 60:02d}"
            print(
                f"\r{line}  " if on_screen else line, end="" if on_screen else "\n", file=sys.stderr
            )
            last, shown = now, True
        yield item
    if shown and on_screen:
        print(file=sys.stderr)


def _out_dir(given: str | None, config: str, name: str) -> Path:
    if given:
        return Path(given).expanduser()
    return Path("work_dirs") / Path(config).stem / name
