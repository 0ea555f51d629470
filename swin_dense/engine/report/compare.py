"""Two runs on the same images: what changed, how sure that is, and where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.engine.report import detection, segmentation
from swin_dense.engine.report.runs import SavedRun, read_run
from swin_dense.engine.report.write import (
    DETECTION_FIGURE,
    SEGMENTATION_FIGURE,
    analyses_of,
    common_data,
    empty,
    gallery_data,
    missing_photos,
    ticker,
)
from swin_dense.errors import UserError
from swin_dense.evaluation.analysis.bootstrap import (
    RESAMPLES,
    Difference,
    Figure,
    mean_iou,
    paired_bootstrap,
    paired_bootstraps,
)
from swin_dense.evaluation.analysis.ranking import Ranking, mean_over_classes
from swin_dense.evaluation.analysis.table import Floats
from swin_dense.visualization.report.page import write_page

TEXTS = {
    "figures": "B less A, in percentage points. The interval holds 95 % of 1,000 resamples of the "
    "pictures; a change whose interval leaves out 0 is in colour.",
    "classes": "The figures of each class, and by how much B differs; a head sorts.",
    "pictures": "What each run predicts, A left and B right; most changed first.",
}


def compare_runs(
    first: str | Path, second: str | Path, out: str | Path, *, resamples: int = RESAMPLES
) -> tuple[Path, dict[str, Difference]]:
    """Write the page that compares two runs; return its path, and the figures by name (0..1).

    Args:
        first: a work dir or a folder of predictions.
        second: another one, on the same images and classes.
        out: the page, ``.html``; its pictures lie in a folder of the same name beside it.
        resamples: of the bootstrap.

    Raises:
        UserError: predictions lack, or the runs differ in task, classes or images.
    """
    runs = [read_run(first), read_run(second)]
    check_pair(runs)
    path = Path(out)
    if path.suffix != ".html":
        raise UserError(f"--out {out}: expected a name that ends in .html.")
    folder = path.with_name(path.stem + "_files")
    made = _detection if runs[0].task == "detection" else _segmentation
    data, found = made(runs, folder, resamples)
    names = [f"A, {runs[0].name}", f"B, {runs[1].name}"]
    data |= {
        "runs": names,
        "text": data["text"] | TEXTS,
        "differences": [
            {"name": name, "first": 100 * one.first, "second": 100 * one.second,
             "change": 100 * one.change, "low": 100 * one.low, "high": 100 * one.high,
             "clear": one.is_clear}
            for name, one in found.items()
        ],
    }  # fmt: skip
    write_page(path, data["heading"], data, script="compare.js")
    return path, found


def check_pair(runs: Sequence[SavedRun]) -> None:
    """Hold two runs to one task, the same classes and the same images.

    Raises:
        UserError: they differ, with the difference.
    """
    a, b = runs
    if a.task != b.task:
        raise UserError(f"{a.folder} is of {a.task}, {b.folder} of {b.task}; expected one task.")
    if a.class_names != b.class_names:
        odd = sorted(set(a.class_names) ^ set(b.class_names))
        what = f"such as {odd[0]!r}" if odd else "in another order"
        raise UserError(
            f"the runs have {len(a.class_names)} and {len(b.class_names)} classes, {what}; "
            "expected the same classes. Evaluate both with one test set."
        )
    ids = [{entry.id for entry in run.images} for run in runs]
    if ids[0] != ids[1]:
        raise UserError(
            f"the runs share {len(ids[0] & ids[1])} images of {len(ids[0])} and {len(ids[1])}; "
            "expected the same images. Evaluate both with one test set."
        )


def _detection(
    runs: list[SavedRun], folder: Path, resamples: int
) -> tuple[dict[str, Any], dict[str, Difference]]:
    both = [analyses_of(run) for run in runs]
    kinds = min(len(both[0]), len(both[1]))
    number = len(both[0][0].table.image_ids)
    found: dict[str, Difference] = {}
    for index in range(kinds):
        noun = "Box" if index == 0 else "Mask"
        first, second = (_ap_figures(analyses[index].ranking) for analyses in both)
        tick = ticker(f"compare: {noun.lower()} AP, resamples")
        results = paired_bootstraps(first, second, number, resamples=resamples, progress=tick)
        found |= dict(zip((f"{noun} AP", f"{noun} AP50"), results, strict=True))
    pairs = [analyses[0] for analyses in both]
    empty(folder)
    images, absent = detection.pictures_of(runs, pairs, folder, ticker("compare: pictures"))
    data = common_data(runs, f"{runs[0].name} and {runs[1].name}")
    views = []
    for index in range(kinds):
        ap = [100 * analyses[index].average_precision for analyses in both]
        rows = [
            [name, float(ap[0][:, k].mean()), float(ap[1][:, k].mean()),
             float((ap[1] - ap[0])[:, k].mean()), float((ap[1] - ap[0])[0, k])]
            for k, name in enumerate(runs[0].class_names)
        ]  # fmt: skip
        columns: list[dict[str, Any]] = [
            {"label": "Class"},
            {"label": "AP of A", "digits": 1},
            {"label": "AP of B", "digits": 1},
            {"label": "Change of AP", "digits": 1, "signed": True},
            {"label": "Change of AP50", "digits": 1, "signed": True},
        ]  # fmt: skip
        kind = both[0][index].kind
        views.append(
            {
                "key": kind,
                "label": detection.KIND_LABELS[kind],
                "table": {"columns": columns, "rows": rows, "first": 3, "falling": True},
            }
        )
    data |= {
        "views": views,
        "about": data["about"] + missing_photos(absent),
        "gallery": gallery_data(
            images,
            folder,
            beside=runs[0].table.has_masks and runs[1].table.has_masks,
            least=round(max(pair.least_score for pair in pairs), 2),
            **DETECTION_FIGURE,
        ),
    }
    return data, found


def _segmentation(
    runs: list[SavedRun], folder: Path, resamples: int
) -> tuple[dict[str, Any], dict[str, Difference]]:
    analyses = [
        segmentation.analyse_segmentation(run, ticker("compare: label maps")) for run in runs
    ]
    number = len(runs[0].images)

    def iou_figure(analysis: segmentation.SegmentationAnalysis) -> Figure:
        return lambda weights: mean_iou(analysis.per_image, weights)

    def accuracy_figure(analysis: segmentation.SegmentationAnalysis) -> Figure:
        both, _, truth = (analysis.per_image[:, part].sum(axis=1) for part in range(3))
        return lambda weights: float(weights @ both / max(1.0, float(weights @ truth)))

    found = {
        name: paired_bootstrap(make(analyses[0]), make(analyses[1]), number, resamples=resamples)
        for name, make in (("mIoU", iou_figure), ("aAcc", accuracy_figure))
    }
    empty(folder)
    images, _, absent = segmentation.pictures_of(
        runs, analyses, folder, ticker("compare: pictures")
    )
    data = common_data(runs, f"{runs[0].name} and {runs[1].name}")
    iou = [100 * analysis.counts.iou for analysis in analyses]
    rows = [
        [name, float(iou[0][k]), float(iou[1][k]), float((iou[1] - iou[0])[k])]
        for k, name in enumerate(runs[0].class_names)
    ]
    columns: list[dict[str, Any]] = [
        {"label": "Class"}, {"label": "IoU of A", "digits": 1}, {"label": "IoU of B", "digits": 1},
        {"label": "Change", "digits": 1, "signed": True},
    ]  # fmt: skip
    table = {"columns": columns, "rows": rows, "first": 3, "falling": True}
    data |= {
        "views": [{"key": "miou", "label": "Pixels", "table": table}],
        "about": data["about"] + missing_photos(absent),
        "gallery": gallery_data(images, folder, beside=True, **SEGMENTATION_FIGURE),
    }
    return data, found


def _ap_figures(ranking: Ranking) -> Callable[[Floats], Floats]:
    """Return a function from the images' weights to AP and AP50."""

    def figures(weights: Floats) -> Floats:
        table = ranking.average_precision(weights)
        return np.array([mean_over_classes(table), mean_over_classes(table[0])])

    return figures
