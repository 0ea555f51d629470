"""Write ``report.html`` and the pictures beside it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from swin_dense.engine.progress import ProgressLine, clock
from swin_dense.engine.report import detection, segmentation
from swin_dense.engine.report.runs import SavedRun, read_run
from swin_dense.errors import UserError
from swin_dense.evaluation.analysis.detection import DetectionAnalysis, analyse_detection
from swin_dense.evaluation.analysis.error_kinds import KINDS
from swin_dense.evaluation.analysis.segmentation import PIXEL_KINDS
from swin_dense.version import __version__
from swin_dense.visualization.report.page import write_page

STAMP = ".swin_dense_report"
"""Marks a folder of pictures as ours, so that nothing else is ever removed."""

Tick = Callable[[int, int], None]

TEXTS = {
    "detection": {
        "classes": "The figures of each class; a head sorts.",
        "errors": "What AP50 would gain were all errors of one kind put right, after TIDE.",
        "confusion": "Rows are what was annotated, columns what was predicted.",
        "calibration": "How often detections are right, beside how sure the model was.",
        "doubts": "Sure detections that contradict the annotations, the most doubtful first. "
        "Some will be the model's mistakes.",
        "pictures": "Boxes in the colour of their kind. Open one to see annotations beside it.",
    },
    "segmentation": {
        "classes": "The figures of each class; a head sorts.",
        "errors": "What mIoU would gain were all wrong pixels of one kind put right.",
        "confusion": "Rows are what was annotated, columns what was predicted.",
        "calibration": "How often pixels are right, beside how sure the model was.",
        "doubts": "Annotated regions that the model gives, whole, to another class that it knows "
        "well. Some will be the model's mistakes.",
        "pictures": "The prediction over the photograph. Open one to see the annotation beside it.",
    },
}


def write_report(
    work_dir: str | Path,
    predictions: str | Path | None = None,
    *,
    metrics: Mapping[str, float] | None = None,
    previous: Mapping[str, float] | None = None,
) -> Path:
    """Write ``report.html`` into a work dir; return its path.

    Args:
        work_dir: where the report goes.
        predictions: a folder of them; the work dir's own where it is None.
        metrics: of this evaluation; worked out from the predictions where they lack.
        previous: of the last one, to compare with.

    Raises:
        UserError: there are no predictions, or annotations are gone.
    """
    work_dir = Path(work_dir)
    run = read_run(work_dir if predictions is None else predictions)
    folder = work_dir / "report_files"
    made = _detection if run.task == "detection" else _segmentation
    data = made(run, folder, metrics or {}, previous or {})
    data["previous"] = (
        "Compared with the evaluation before, in the same folder." if previous else ""
    )
    return write_page(
        work_dir / "report.html", f"{data['heading']}: report", data, script="report.js"
    )


def common_data(runs: list[SavedRun], heading: str) -> dict[str, Any]:
    """Return what every page has: names, colours, where it comes from."""
    run = runs[0]
    about: list[list[dict[str, str]]] = []
    for letter, one in zip(("A: ", "B: ") if len(runs) > 1 else ("",), runs, strict=True):
        line: list[dict[str, str]] = [{"text": letter}] if letter else []
        for word, key in (("", "config"), (" with ", "checkpoint")):
            value = getattr(one.predictions.run, key)
            if value:
                line += [{"text": word}] * bool(word) + [{"code": value}]
        about.append(line)
    created = run.predictions.run.created[:16].replace("T", " ")
    noun = f"{len(run.images):,} pictures, {len(run.class_names)} classes"
    about.append([{"text": f"{noun}{', evaluated ' + created if created else ''}. swin_dense "
                           f"{__version__}"}])  # fmt: skip
    return {
        "task": run.task,
        "heading": heading,
        "about": [line for line in about if line],
        "classes": run.class_names,
        "colors": ["#{:02x}{:02x}{:02x}".format(*color) for color in run.colors],
        "runs": [one.name for one in runs],
        "text": TEXTS[run.task],
        "doubts": [],
    }


def gallery_data(images: list[dict[str, Any]], folder: Path, **more: Any) -> dict[str, Any]:
    """Return what the gallery needs beside its pictures' entries."""
    return {
        "folder": folder.name,
        "images": images,
        "kinds": KINDS,
        "pixelKinds": PIXEL_KINDS,
        **more,
    }


DETECTION_FIGURE = {"figure": "F1", "scale": 1000, "digits": 2}
SEGMENTATION_FIGURE = {"figure": "mIoU", "scale": 10, "digits": 1}


def analyses_of(run: SavedRun) -> list[DetectionAnalysis]:
    """Return a detector's analysis by boxes and, where there are masks, by masks."""
    kinds = ("bbox", "segm") if run.table.has_masks else ("bbox",)
    return [analyse_detection(run.table, kind) for kind in kinds]


def ticker(what: str) -> Tick:
    """Return a function that shows how far it is and when it ends."""
    line, start = ProgressLine(), time.monotonic()

    def tick(done: int, of: int) -> None:
        spent = time.monotonic() - start
        if done == of:
            if spent > 2:
                line.finish(f"{what}: {of} in {clock(spent)}")
        elif spent > 2:
            line.show(f"{what}: {done}/{of}, ETA {clock(spent / done * (of - done))}")

    return tick


def empty(folder: Path) -> None:
    """Make a folder for pictures; an earlier report's are removed from it, nothing else.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / STAMP).is_file():
        raise UserError(
            f"{folder} holds something else than a report's pictures; expected a new or an empty "
            "folder. Move it, or give the page another name."
        )
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / STAMP).touch()
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}. Choose another folder.") from error


def _detection(
    run: SavedRun, folder: Path, metrics: Mapping[str, float], previous: Mapping[str, float]
) -> dict[str, Any]:
    analyses = analyses_of(run)
    boxes = analyses[0]
    empty(folder)
    images, absent = detection.pictures_of([run], [boxes], folder, ticker("report: pictures"))
    data = common_data([run], run.name)
    return data | {
        "summary": detection.tiles_of(analyses, metrics, previous),
        "views": [detection.view_of(analysis) for analysis in analyses],
        "doubts": detection.doubts_of(boxes),
        "about": data["about"] + missing_photos(absent),
        "gallery": gallery_data(
            images,
            folder,
            beside=run.table.has_masks,
            least=round(boxes.least_score, 2),
            **DETECTION_FIGURE,
        ),
    }


def _segmentation(
    run: SavedRun, folder: Path, metrics: Mapping[str, float], previous: Mapping[str, float]
) -> dict[str, Any]:
    analysis = segmentation.analyse_segmentation(run, ticker("report: label maps"))
    empty(folder)
    images, doubts, absent = segmentation.pictures_of(
        [run], [analysis], folder, ticker("report: pictures")
    )
    data = common_data([run], run.name)
    return data | {
        "summary": segmentation.tiles_of(analysis, metrics, previous),
        "views": [segmentation.view_of(analysis, run.calibration)],
        "doubts": segmentation.doubts_of(doubts, run.class_names, images),
        "about": data["about"] + missing_photos(absent),
        "gallery": gallery_data(images, folder, beside=True, **SEGMENTATION_FIGURE),
    }


def missing_photos(absent: int) -> list[list[dict[str, str]]]:
    """Return a line for the head of the page where photographs could not be read."""
    if not absent:
        return []
    return [[{"text": f"{absent} photographs could not be read, and are left dark."}]]
