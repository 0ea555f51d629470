"""Saved predictions of a run, as the report reads them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swin_dense.errors import UserError
from swin_dense.evaluation.analysis.calibration import NUM_BINS, Reliability, from_counts
from swin_dense.evaluation.analysis.table import DetectionTable, from_coco
from swin_dense.evaluation.predictions import (
    INDEX,
    DetectionPredictions,
    PredictedImage,
    SegmentationPredictions,
    image_path,
    load_predictions,
)
from swin_dense.visualization.palette import class_color

Palette = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A run by its predictions.

    Attributes:
        predictions: of either task.
    """

    predictions: DetectionPredictions | SegmentationPredictions

    @property
    def folder(self) -> Path:
        """Where the predictions lie."""
        return self.predictions.folder

    @property
    def task(self) -> str:
        """ "detection" or "segmentation"."""
        detects = isinstance(self.predictions, DetectionPredictions)
        return "detection" if detects else "segmentation"

    @property
    def class_names(self) -> tuple[str, ...]:
        """By index."""
        return self.predictions.run.classes

    @property
    def colors(self) -> Palette:
        """One RGB a class: a label map's own where the data set has some, else ours."""
        own = self.predictions.run.palette
        if self.task == "segmentation" and own and len(own) >= len(self.class_names):
            return own[: len(self.class_names)]
        return tuple(class_color(index) for index in range(len(self.class_names)))

    @cached_property
    def images(self) -> list[PredictedImage]:
        """In the order of their ids."""
        return sorted(
            self.predictions.images, key=lambda image: (isinstance(image.id, str), image.id)
        )

    @property
    def name(self) -> str:
        """A short name: the folder of the run."""
        folder = self.folder.resolve()
        return folder.parent.name if folder.name == "predictions" else folder.name

    def photo(self, image: PredictedImage) -> Path:
        """Return where the photograph of an image lies."""
        return Path(os.path.expanduser(image_path(self.predictions.run, image)))

    def shown_name(self, image: PredictedImage) -> str:
        """Return what the page calls an image: its path below the run's folder of images."""
        return Path(image.file).name if os.path.isabs(image.file) else image.file

    @cached_property
    def table(self) -> DetectionTable:
        """Annotations and detections.

        Raises:
            UserError: the annotation file is gone.
        """
        assert isinstance(self.predictions, DetectionPredictions)
        path = Path(str(self.predictions.run.annotations or ""))
        if not path.is_file():
            raise UserError(
                f"the annotations of {self.folder} are not at {path}; expected the COCO file that "
                "was evaluated on. Put it there, or mend the path in index.json."
            )
        annotations = json.loads(path.read_text(encoding="utf-8"))
        ids = [int(image.id) for image in self.images]
        results = self.predictions.results
        return from_coco(annotations, results, classes=self.class_names, image_ids=ids)

    def label_maps(self, image: PredictedImage) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the annotated and the predicted label map of an image, (H, W) each.

        Raises:
            UserError: one is gone, or of another size than the picture.
        """
        assert isinstance(self.predictions, SegmentationPredictions)
        found = self.predictions.prediction(image)
        truth = self.predictions.ground_truth(image)
        if truth is None:
            raise UserError(
                f"{image.file} has no annotated label map; expected one, to hold the prediction to."
            )
        return truth, found

    @property
    def calibration(self) -> Reliability | None:
        """Confidence and accuracy of a segmenter's pixels, where they were counted."""
        counts = getattr(self.predictions, "calibration", None)
        if counts is None:
            return None
        bins = len(counts.n)
        shown = NUM_BINS if bins % NUM_BINS == 0 else bins
        middle = (np.arange(bins) + 0.5) / bins
        parts = (counts.n, counts.correct, counts.n * middle)
        return from_counts(*(part.reshape(shown, -1).sum(axis=1) for part in parts))

    @property
    def ignore_index(self) -> int:
        """The label of pixels without a class."""
        assert isinstance(self.predictions, SegmentationPredictions)
        return self.predictions.ignore_index


def read_run(path: str | Path) -> SavedRun:
    """Return the saved predictions at a path: a work dir, or its ``predictions/``.

    Raises:
        UserError: there are none, or not whole.
    """
    given = Path(os.path.expanduser(path))
    inside = given / "predictions"
    folder = inside if (inside / INDEX).is_file() else given
    if not (folder / INDEX).is_file():
        raise UserError(
            f"no predictions at {given}; expected the work dir of an evaluation, with "
            f"predictions/{INDEX}. tools/test.py writes it."
        )
    return SavedRun(load_predictions(folder))
