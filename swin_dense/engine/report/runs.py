"""Saved predictions of a run, as the report reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from swin_dense.errors import UserError
from swin_dense.evaluation.analysis.calibration import Reliability, from_counts
from swin_dense.evaluation.analysis.table import DetectionTable, from_coco
from swin_dense.visualization.palette import class_color

Palette = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A folder of predictions.

    Attributes:
        folder: where they lie, with ``index.json``.
        index: its content.
    """

    folder: Path
    index: Mapping[str, Any]

    @property
    def task(self) -> str:
        """ "detection" or "segmentation"."""
        return str(self.index["task"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """By index."""
        return tuple(self.index["classes"])

    @property
    def colors(self) -> Palette:
        """One RGB a class: the data set's own where they tell classes apart, else ours."""
        own = self.index.get("palette")
        if self.task == "segmentation" and own and len(own) >= len(self.class_names):
            return tuple((int(r), int(g), int(b)) for r, g, b in own[: len(self.class_names)])
        return tuple(class_color(index) for index in range(len(self.class_names)))

    @property
    def images(self) -> list[Mapping[str, Any]]:
        """Of the index, in the order of the ids."""
        return sorted(self.index["images"], key=lambda entry: _rank(entry["id"]))

    @property
    def name(self) -> str:
        """A short name: the folder of the run."""
        folder = self.folder.resolve()
        return folder.parent.name if folder.name == "predictions" else folder.name

    def photo(self, entry: Mapping[str, Any]) -> Path:
        """Return where the photograph of an image lies."""
        return Path(os.path.expanduser(str(self.index.get("image_root") or ""))) / entry["file"]

    @cached_property
    def table(self) -> DetectionTable:
        """Annotations and detections.

        Raises:
            UserError: the annotation file is gone.
        """
        path = Path(str(self.index.get("annotations") or ""))
        if not path.is_file():
            raise UserError(
                f"the annotations of {self.folder} are not at {path}; expected the COCO file that "
                "was evaluated on. Put it there, or mend the path in index.json."
            )
        results = json.loads((self.folder / "detections.json").read_text())
        annotations = json.loads(path.read_text())
        ids = [int(entry["id"]) for entry in self.images]
        return from_coco(annotations, results, classes=self.class_names, image_ids=ids)

    def label_maps(self, entry: Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the annotated and the predicted label map of an image, (H, W) each.

        Raises:
            UserError: one is gone, or they are of different sizes.
        """
        truth = _read_labels(self.folder / str(entry["labels"]))
        found = _read_labels(self.folder / str(entry["prediction"]))
        if self.index.get("reduce_zero_label"):
            truth = np.where((truth == 0) | (truth == 255), 255, truth - 1)
        if truth.shape != found.shape:
            raise UserError(
                f"{entry['file']}: the annotation is of {truth.shape}, the prediction of "
                f"{found.shape}; expected the same size. Was the data changed since?"
            )
        return truth, found

    @property
    def calibration(self) -> Reliability | None:
        """Confidence and accuracy of a segmenter's pixels, where they were counted."""
        path = self.folder / "calibration.npz"
        if not path.is_file():
            return None
        with np.load(path) as counts:
            return from_counts(counts["count"], counts["confidence_sum"], counts["correct"])

    @property
    def ignore_index(self) -> int:
        """The label of pixels without a class."""
        value = self.index.get("ignore_index")
        return 255 if value is None else int(value)


def read_run(path: str | Path) -> SavedRun:
    """Return the saved predictions at a path: a work dir, its ``predictions/``, or the index.

    Raises:
        UserError: there are none, or of a format that is not known.
    """
    given = Path(os.path.expanduser(path))
    places = [given / "predictions" / "index.json", given / "index.json", given]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UserError(
            f"no predictions at {given}; expected the work dir of an evaluation, with "
            "predictions/index.json. tools/test.py writes it."
        )
    try:
        index = json.loads(file.read_text())
        known = index["format"] == 1 and index["task"] in ("detection", "segmentation")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no index of predictions: {error!r}.") from error
    if not known:
        raise UserError(
            f"{file} has format {index['format']!r} and task {index['task']!r}; expected format 1 "
            "and detection or segmentation. Write it again with this version's tools/test.py."
        )
    return SavedRun(file.parent, index)


def _rank(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _read_labels(path: Path) -> NDArray[np.int64]:
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise UserError(f"no label map at {path}; expected a PNG. Evaluate again to write it.")
    labels = np.asarray(found)
    return (labels if labels.ndim == 2 else labels[..., 0]).astype(np.int64)
