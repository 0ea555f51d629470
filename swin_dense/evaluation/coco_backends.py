"""COCO matching and accumulation by interchangeable libraries.

pycocotools is the reference and always there. hotcoco does the same in compiled code, agrees to the
last bit on precision and recall and is some hundred times as fast; it is chosen where it is
importable. ``benchmarks/results/evaluation.md`` has the figures, also of what was not taken.

Letters: T IoU thresholds; R recall points; K categories; A areas (all, small, medium, large);
M limits on detections per picture.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swin_dense.errors import UserError, did_you_mean

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """What to measure.

    Attributes:
        iou_type: "bbox" or "segm".
        category_ids: of the annotation file, ascending: pycocotools sorts them in silence.
        image_ids: those that count.
        iou_thresholds: (T,).
        max_detections: (M,) per picture, ascending.
        use_categories: False matches whatever the class, as for proposals.
    """

    iou_type: str
    category_ids: tuple[int, ...]
    image_ids: tuple[int, ...]
    iou_thresholds: tuple[float, ...]
    max_detections: tuple[int, ...]
    use_categories: bool = True


Answer = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Precision (T, R, K, A, M) and recall (T, K, A, M); -1 where nothing was to be found."""


def by_pycocotools(
    annotations: Mapping[str, Any], results: Sequence[Result], question: Question
) -> Answer:
    """Answer with the COCO API's own code."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        # it writes into what it is given
        truth.dataset = dict(annotations, annotations=list(map(dict, annotations["annotations"])))
        truth.createIndex()
        found = truth.loadRes([dict(result) for result in results])
        evaluation = COCOeval(truth, found, question.iou_type)
        evaluation.params.catIds = list(question.category_ids)
        evaluation.params.imgIds = list(question.image_ids)
        evaluation.params.iouThrs = np.array(question.iou_thresholds)
        evaluation.params.maxDets = list(question.max_detections)
        evaluation.params.useCats = int(question.use_categories)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def by_hotcoco(
    annotations: Mapping[str, Any], results: Sequence[Result], question: Question
) -> Answer:
    """Answer with hotcoco."""
    from hotcoco import COCO, COCOeval

    with warnings.catch_warnings():
        # it warns of every limit but the COCO challenge's own 1, 10, 100
        warnings.simplefilter("ignore")
        truth = COCO(dict(annotations))
        if question.iou_type == "bbox":
            rows = [
                (result["image_id"], *result["bbox"], result["score"], result["category_id"])
                for result in results
            ]
            found = truth.load_res(np.array(rows, np.float64))
        else:
            found = truth.load_res(list(map(dict, results)))
        evaluation = COCOeval(truth, found, question.iou_type)
        evaluation.params.cat_ids = list(question.category_ids)
        evaluation.params.img_ids = list(question.image_ids)
        evaluation.params.iou_thrs = list(question.iou_thresholds)
        evaluation.params.max_dets = list(question.max_detections)
        evaluation.params.use_cats = question.use_categories
        evaluation.evaluate()
        evaluation.accumulate()
        found_at: Any = evaluation.eval
        return np.asarray(found_at["precision"]), np.asarray(found_at["recall"])


BACKENDS: dict[str, Callable[[Mapping[str, Any], Sequence[Result], Question], Answer]] = {
    "hotcoco": by_hotcoco,
    "pycocotools": by_pycocotools,
}
"""By name, the fastest first."""


def choose_backend(name: str = "auto") -> str:
    """Return the name of the back end to use: "auto" is the fastest that is importable.

    Raises:
        UserError: no such back end, or it is not installed.
    """
    if name == "auto":
        return next(each for each in BACKENDS if find_spec(each) is not None)
    if name not in BACKENDS:
        raise UserError(
            f"got backend {name!r}{did_you_mean(name, BACKENDS)}; expected auto or one of "
            f"{', '.join(BACKENDS)}."
        )
    if find_spec(name) is None:
        raise UserError(
            f"backend {name!r} is not installed. pip install {name}, or backend='auto'."
        )
    return name
