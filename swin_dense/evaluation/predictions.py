"""Predictions on disk: what an evaluation, a report and a comparison read instead of a model.

A folder holds ``index.json`` (what was predicted, by what, on which pictures) and beside it
``detections.json``, a list of COCO results, or ``labels/`` with one PNG of class indices per
picture and ``calibration.npz``, how often a softmax probability was right. ``docs/evaluation.md``
lists the fields. The writers are in ``prediction_writers.py``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swin_dense.errors import UserError

FORMAT = 1
INDEX = "index.json"
DETECTIONS = "detections.json"
LABELS = "labels"
CALIBRATION = "calibration.npz"


@dataclass(frozen=True)
class PredictedImage:
    """One picture of a predictions folder.

    Attributes:
        id: as in the annotation file (detection), or the file's name (segmentation).
        file: path below the run's ``image_root``; absolute where the picture lies elsewhere.
        height, width: of the photograph, in pixels.
        labels: path of the ground truth's PNG, for segmentation, or None.
        prediction: path of the predicted PNG below the predictions folder, for segmentation.
    """

    id: int | str
    file: str
    height: int
    width: int
    labels: str | None = None
    prediction: str | None = None


@dataclass(frozen=True)
class RunInfo:
    """What was run to make predictions: the part of ``index.json`` that both tasks share.

    Attributes:
        classes: names, in the order of the label indices.
        palette: one RGB colour for each class, or None.
        config, checkpoint: what predicted.
        created: ISO time.
        annotations: path of the COCO file, or None.
        image_root: folder below which the pictures' files are named.
        extra: further fields of ``index.json``.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None = None
    config: str = ""
    checkpoint: str = ""
    created: str = ""
    annotations: str | None = None
    image_root: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibration:
    """How often the most probable class was right, by its probability.

    Attributes:
        n: (bins,) int64, pixels whose largest softmax probability fell into each of equal bins
            from 0 to 1.
        correct: (bins,) int64, those of them that had the right class.
    """

    n: NDArray[np.int64]
    correct: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DetectionPredictions:
    """Boxes, and masks where the model has them, of one run.

    Attributes:
        folder: where they lie.
        run: what made them.
        images: every picture that was predicted, also those without a detection.
        results: COCO results: image_id, category_id, bbox as x, y, width, height in pixels, score,
            and segmentation as compressed RLE where masks exist.
    """

    folder: Path
    run: RunInfo
    images: tuple[PredictedImage, ...]
    results: list[dict[str, Any]]

    @property
    def with_masks(self) -> bool:
        """Whether the results have masks."""
        return any("segmentation" in result for result in self.results[:1])

    @classmethod
    def load(cls, folder: str | Path) -> DetectionPredictions:
        """Read and check a folder.

        Raises:
            UserError: it is not there, not whole, or holds predictions of another task.
        """
        folder, index = _read_index(folder, "detection")
        path = folder / DETECTIONS
        results = _read_json(path)
        if not isinstance(results, list):
            raise UserError(
                f"{path}: got a {type(results).__name__}; expected a list of COCO results."
            )
        known = {image.id for image in index[1]}
        for place, result in enumerate(results):
            _check_result(path, place, result, known)
        return cls(folder, index[0], index[1], results)


@dataclass(frozen=True, eq=False)
class SegmentationPredictions:
    """Label maps of one run.

    Attributes:
        folder: where they lie.
        run: what made them.
        images: every picture that was predicted, with its PNGs.
        reduce_zero_label: whether 0 in the ground truth's files means "no class".
        ignore_index: the label of pixels that count nowhere.
        label_map: class index in the ground truth's files (after ``reduce_zero_label``) to the
            run's own, or None.
        calibration: confidence counts, or None where the run wrote none.
    """

    folder: Path
    run: RunInfo
    images: tuple[PredictedImage, ...]
    reduce_zero_label: bool
    ignore_index: int
    label_map: dict[int, int] | None
    calibration: Calibration | None

    def prediction(self, image: PredictedImage) -> NDArray[np.int64]:
        """Return the predicted class indices (H, W).

        Raises:
            UserError: the PNG is missing, unreadable or of another size than the picture.
        """
        return _read_label_map(self.folder / str(image.prediction), image)

    def ground_truth(self, image: PredictedImage) -> NDArray[np.int64] | None:
        """Return the true class indices (H, W) with ``ignore_index`` where none counts, or None
        where the run had no ground truth.

        Raises:
            UserError: the PNG is missing, unreadable or of another size than the picture.
        """
        if image.labels is None:
            return None
        labels = _read_label_map(Path(image.labels), image)
        if self.reduce_zero_label:
            # as the hosts do: the file's 0 and 255 both end as 255
            labels = np.where((labels == 0) | (labels == 255), 255, labels - 1)
        if self.label_map:
            # into a copy, so that a class moved onto another's index does not move again
            moved = labels.copy()
            for old, new in self.label_map.items():
                moved[labels == old] = new
            labels = moved
        return labels

    @classmethod
    def load(cls, folder: str | Path) -> SegmentationPredictions:
        """Read and check a folder; the PNGs are read when asked for, but must be there.

        Raises:
            UserError: it is not there, not whole, or holds predictions of another task.
        """
        folder, (run, images) = _read_index(folder, "segmentation")
        for image in images:
            if image.prediction is None or not (folder / image.prediction).is_file():
                raise UserError(
                    f"{folder}: the prediction {image.prediction} of {image.file} is missing. "
                    "Run tools/test.py again."
                )
        counts = None
        if (folder / CALIBRATION).is_file():
            with np.load(folder / CALIBRATION) as stored:
                counts = Calibration(stored["n"].astype(np.int64), stored["correct"].astype(int))
        label_map = run.extra.get("label_map")
        return cls(
            folder,
            run,
            images,
            reduce_zero_label=bool(run.extra.get("reduce_zero_label", False)),
            ignore_index=int(run.extra.get("ignore_index", 255)),
            label_map={int(old): int(new) for old, new in label_map.items()} if label_map else None,
            calibration=counts,
        )


def load_predictions(folder: str | Path) -> DetectionPredictions | SegmentationPredictions:
    """Read a predictions folder of either task.

    Raises:
        UserError: as the two classes' own ``load``.
    """
    index = _read_json(Path(folder) / INDEX)
    if isinstance(index, Mapping) and index.get("task") == "segmentation":
        return SegmentationPredictions.load(folder)
    return DetectionPredictions.load(folder)


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise UserError(
            f"no predictions at {path}. Expected the folder that tools/test.py leaves in its work "
            "dir as predictions/, whole; a run that was stopped leaves none."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}. Run tools/test.py again.") from error


def _read_index(
    folder: str | Path, task: str
) -> tuple[Path, tuple[RunInfo, tuple[PredictedImage, ...]]]:
    folder = Path(folder)
    path = folder / INDEX
    index = _read_json(path)
    if not isinstance(index, Mapping) or index.get("format") != FORMAT:
        got = index.get("format") if isinstance(index, Mapping) else type(index).__name__
        raise UserError(f"{path}: got format {got!r}; expected {FORMAT}. Run tools/test.py again.")
    if index.get("task") != task:
        raise UserError(
            f"{path}: got predictions of a {index.get('task')!r} run; expected {task!r}. Give the "
            "folder of the other run, or the config that belongs to this one."
        )
    missing = [key for key in ("classes", "images", "image_root") if key not in index]
    if missing:
        raise UserError(f"{path}: the fields {', '.join(missing)} are missing.")
    names = set(PredictedImage.__dataclass_fields__)
    try:
        images = tuple(
            PredictedImage(**{key: image[key] for key in image if key in names})
            for image in index["images"]
        )
    except TypeError as error:
        raise UserError(f"{path}: an entry of images does not fit: {error}") from error
    palette = index.get("palette")
    own = {"format", "task", "images"}
    fields = set(RunInfo.__dataclass_fields__) - {"extra", "classes", "palette"}
    run = RunInfo(
        classes=tuple(index["classes"]),
        palette=None if palette is None else tuple(tuple(colour) for colour in palette),
        **{key: index[key] for key in fields if key in index},
        extra={
            key: value
            for key, value in index.items()
            if key not in own | fields | {"classes", "palette"}
        },
    )
    return folder, (run, images)


def _check_result(path: Path, place: int, result: Any, known: set[int | str]) -> None:
    wanted = ("image_id", "category_id", "bbox", "score")
    if not isinstance(result, Mapping) or any(key not in result for key in wanted):
        raise UserError(f"{path}: entry {place} lacks one of {', '.join(wanted)}.")
    if result["image_id"] not in known:
        raise UserError(
            f"{path}: entry {place} is for image {result['image_id']!r}, which {INDEX} does not "
            "list. Both files must come from one run."
        )
    if len(result["bbox"]) != 4:
        raise UserError(
            f"{path}: entry {place} has a bbox of {len(result['bbox'])} numbers; expected x, y, "
            "width, height."
        )


def _read_label_map(path: Path, image: PredictedImage) -> NDArray[np.int64]:
    try:
        with Image.open(path) as picture:
            labels = np.asarray(picture).astype(np.int64)
    except OSError as error:
        raise UserError(f"the label map {path} of {image.file} does not open: {error}") from error
    if labels.shape != (image.height, image.width):
        raise UserError(
            f"the label map {path} has shape {labels.shape}; expected the picture's "
            f"{(image.height, image.width)} (height, width), one channel."
        )
    return labels


def image_path(run: RunInfo, image: PredictedImage) -> str:
    """Return where the photograph lies."""
    return os.path.join(run.image_root, image.file)
