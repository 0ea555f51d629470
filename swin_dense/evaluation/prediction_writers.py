"""Write a predictions folder as results come, one process or several.

Each process appends one line of JSON per picture to its own part file, so memory stays small and a
run that dies leaves no half ``index.json``. The main process then merges the parts: in the order of
the data set, each picture once (a distributed sampler repeats some to fill the last round).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swin_dense.errors import UserError
from swin_dense.evaluation.predictions import (
    CALIBRATION,
    DETECTIONS,
    FORMAT,
    INDEX,
    LABELS,
    PredictedImage,
)

CALIBRATION_BINS = 100


@dataclass(frozen=True)
class RunHeader:
    """What ``index.json`` says about the run; see :class:`.predictions.RunInfo`."""

    classes: Sequence[str]
    palette: Sequence[Sequence[int]] | None = None
    config: str = ""
    checkpoint: str = ""
    annotations: str | None = None
    image_root: str = ""


class _PartWriter:
    """One process's part file, opened at the first picture of a run."""

    task = ""

    def __init__(self, folder: str | Path, *, rank: int = 0, world_size: int = 1) -> None:
        self.folder = Path(folder)
        self._rank, self._world_size = rank, world_size
        self._file: IO[str] | None = None

    def _part(self, rank: int) -> Path:
        return self.folder / f"part_{rank}.jsonl"

    def _append(self, image: Mapping[str, Any], rest: Any) -> None:
        """Write a picture and what belongs to it, both as JSON, in which no tab can be."""
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._rank == 0:
                (self.folder / INDEX).unlink(missing_ok=True)
            self._file = self._part(self._rank).open("w", encoding="utf-8")
        self._file.write(f"{json.dumps(image)}\t{json.dumps(rest)}\n")

    def close(self) -> None:
        """Bring this process's part to the disk; the part of one without pictures is empty."""
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._part(self._rank).write_text("")
            return
        self._file.close()
        self._file = None

    def _lines(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield every picture once, in the data set's order, and the JSON of what belongs to it."""
        missing = [rank for rank in range(self._world_size) if not self._part(rank).is_file()]
        if missing:
            raise UserError(
                f"the predictions of process {', '.join(map(str, missing))} are not in "
                f"{self.folder}. Every process must see that folder: give a --work-dir on a disk "
                "that all machines share."
            )
        files = [self._part(rank).open(encoding="utf-8") for rank in range(self._world_size)]
        seen: set[int | str] = set()
        try:
            # process r predicts pictures r, r + world_size, ...: one of each in turn
            for lines in zip_longest(*files):
                for line in lines:
                    if line is None:
                        continue
                    text, _, rest = line.rstrip("\n").partition("\t")
                    image = json.loads(text)
                    if image["id"] not in seen:
                        seen.add(image["id"])
                        yield image, rest
        finally:
            for file in files:
                file.close()

    def _finish(self, header: RunHeader, images: Sequence[Mapping[str, Any]], **more: Any) -> None:
        index = dict(
            format=FORMAT,
            task=self.task,
            **asdict(header),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **more,
            images=images,
        )
        with whole(self.folder / INDEX) as partial:
            partial.write_text(json.dumps(index) + "\n", encoding="utf-8")
        for rank in range(self._world_size):
            self._part(rank).unlink(missing_ok=True)


class DetectionWriter(_PartWriter):
    """Writes boxes, and masks as compressed RLE.

    Args:
        folder: where to; files of an earlier run in it are replaced.
        rank, world_size: of this process.
    """

    task = "detection"

    def append(self, image: PredictedImage, results: Sequence[Mapping[str, Any]]) -> None:
        """Take the COCO results of one picture, which may be none."""
        self._append(_without_none(image), results)

    def finish(self, header: RunHeader) -> None:
        """Merge the parts of all processes, in the main one, after each has closed its own.

        Raises:
            UserError: a process's part is not there.
        """
        images = []
        with (
            whole(self.folder / DETECTIONS) as partial,
            partial.open("w", encoding="utf-8") as file,
        ):
            file.write("[")
            separator = "\n"
            for image, results in self._lines():
                images.append(image)
                if results != "[]":  # the text as it is: nothing is decoded, memory stays small
                    file.write(separator + results[1:-1])
                    separator = ",\n"
            file.write("\n]\n")
        self._finish(header, images)


class SegmentationWriter(_PartWriter):
    """Writes label maps as PNGs, and counts how often each confidence was right.

    Args:
        folder: where to; files of an earlier run in it are replaced.
        num_classes: more than 255 are written in 16 bits.
        rank, world_size: of this process.
    """

    task = "segmentation"

    def __init__(
        self, folder: str | Path, *, num_classes: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(folder, rank=rank, world_size=world_size)
        self._dtype = np.uint8 if num_classes <= 255 else np.uint16

    def append(
        self,
        image: PredictedImage,
        label_map: NDArray[np.integer[Any]],
        calibration: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> None:
        """Take one picture's class indices (H, W) and confidence counts ``(n, correct)``."""
        name = os.path.join(LABELS, image.file.replace("..", "_").lstrip("/\\") + ".png")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(label_map, self._dtype)).save(path)
        counts = calibration and [list(map(int, part)) for part in calibration]
        self._append(_without_none(image) | dict(prediction=Path(name).as_posix()), counts)

    def finish(self, header: RunHeader, **more: Any) -> None:
        """Merge the parts of all processes, in the main one, after each has closed its own.

        Args:
            header: for ``index.json``.
            more: its further fields: ``reduce_zero_label``, ``ignore_index``, ``label_map``.

        Raises:
            UserError: a process's part is not there.
        """
        images = []
        counts = None
        for image, rest in self._lines():
            images.append(image)
            if (own := json.loads(rest)) is not None:
                counts = np.array(own, np.int64) + (0 if counts is None else counts)
        (self.folder / CALIBRATION).unlink(missing_ok=True)
        if counts is not None:
            with whole(self.folder / CALIBRATION) as partial, partial.open("wb") as file:
                np.savez(file, n=counts[0], correct=counts[1])
        self._finish(header, images, **more)


class whole:
    """Give a neighbouring path to write to, and move it into place when all went well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".part")

    def __enter__(self) -> Path:
        return self._partial

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)


def _without_none(image: PredictedImage) -> dict[str, Any]:
    return {key: value for key, value in asdict(image).items() if value is not None}
