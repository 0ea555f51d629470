"""The pictures beside the page: photographs made small, label maps as overlays, outlines of masks.

Letters: H, W the photograph; h, w the small picture; P points.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swin_dense.visualization.images import RgbImage, read_image
from swin_dense.visualization.palette import RGB

LONG_SIDE_PX = 800
"""The longer side of a small picture, enough for a screen and about 50 kB."""

GRID_PX = 120
"""The longer side of the coarse label maps that tell the class under the pointer."""

_JPEG_QUALITY = 80
_MOST_POINTS = 60
PIXEL_COLORS: tuple[RGB, ...] = ((93, 177, 238), (255, 122, 196), (229, 172, 58))
"""Of boundary, missed and partial errors, as the page's style sheet has them on dark ground."""


def small_size(image_hw: tuple[int, int], long_side_px: int = LONG_SIDE_PX) -> tuple[int, int]:
    """Return (h, w) of the small picture; never larger than the photograph."""
    factor = min(1.0, long_side_px / max(image_hw))
    return max(1, round(image_hw[0] * factor)), max(1, round(image_hw[1] * factor))


def read_photo(path: Path, image_hw: tuple[int, int]) -> RgbImage:
    """Return the photograph as the model saw it: unturned where only that has the size.

    Raises:
        UserError: there is none, or it does not decode.
    """
    photo = read_image(path)
    if photo.shape[:2] != image_hw:
        unturned = read_image(path, apply_orientation=False)
        if unturned.shape[:2] == image_hw:
            return unturned
    return photo


def write_photo(path: Path, photo: RgbImage) -> None:
    """Write the small JPEG of a photograph (H, W, 3)."""
    height, width = small_size((photo.shape[0], photo.shape[1]))
    small = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, encoded = cv2.imencode(".jpg", np.asarray(small)[..., ::-1], options)
    assert done
    path.write_bytes(encoded.tobytes())


def write_overlay(path: Path, labels: NDArray[np.generic], colors: Sequence[RGB]) -> None:
    """Write a label map (H, W) as a small PNG: classes in their colours, all else see-through."""
    size = small_size((labels.shape[0], labels.shape[1]))
    small = cv2.resize(
        labels.astype(np.int32).astype(np.float32), size[::-1], interpolation=cv2.INTER_NEAREST
    ).astype(np.int64)
    known = (small >= 0) & (small < len(colors))
    buffer = BytesIO()
    table = np.array([*colors, (0, 0, 0)], np.uint8)
    index = np.where(known, small, len(colors))
    if len(colors) < 256:
        picture = Image.frombytes("P", size[::-1], index.astype(np.uint8).tobytes())
        picture.putpalette(table.tobytes())
        picture.save(buffer, "PNG", transparency=len(colors))
    else:
        rgb = table[index]
        alpha = np.where(known, 255, 0).astype(np.uint8)
        Image.fromarray(np.dstack([rgb, alpha])).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())


def outline(mask: NDArray[np.generic]) -> list[list[int]]:
    """Return the outer outlines of a mask (H, W), each x and y in turn, in thousandths."""
    binary = (np.asarray(mask) != 0).astype(np.uint8)
    height, width = binary.shape
    contours, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours:
        points = np.asarray(contour)
        tolerance = 0.0015 * max(height, width)
        short = cv2.approxPolyDP(points, tolerance, True)
        while len(short) > _MOST_POINTS:
            tolerance *= 1.6
            short = cv2.approxPolyDP(points, tolerance, True)
        if len(short) >= 3:
            scaled = np.asarray(short).reshape(-1, 2) * (1000 / width, 1000 / height)  # (P, 2)
            found.append(np.rint(scaled).astype(int).ravel().tolist())
    return found


def write_outlines(
    path: Path,
    truth: Iterable[Sequence[Sequence[int]]],
    runs: Sequence[Iterable[Sequence[Sequence[int]]]],
) -> None:
    """Write the outlines of a picture's annotations and of each run's detections as a script."""
    _write_script(path, {"t": list(truth), "r": [list(run) for run in runs]})


def write_grids(
    path: Path, truth: NDArray[np.generic], runs: Sequence[NDArray[np.generic]]
) -> None:
    """Write coarse copies of label maps (H, W) as a script: the annotated one and each run's."""
    height, width = small_size((truth.shape[0], truth.shape[1]), GRID_PX)
    content = {
        "w": width,
        "h": height,
        "t": _label_runs(truth, (height, width)),
        "r": [_label_runs(labels, (height, width)) for labels in runs],
    }
    _write_script(path, content)


def _label_runs(labels: NDArray[np.generic], size: tuple[int, int]) -> list[int]:
    """Return a coarse label map, row by row, as label and length in turn."""
    rows = (np.arange(size[0]) + 0.5) * labels.shape[0] / size[0]
    columns = (np.arange(size[1]) + 0.5) * labels.shape[1] / size[1]
    flat = labels[np.ix_(rows.astype(int), columns.astype(int))].ravel().astype(np.int64)
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 1))
    lengths = np.diff(np.append(starts, len(flat)))
    return [int(value) for value in np.stack([flat[starts], lengths], axis=1).ravel()]


def _write_script(path: Path, content: object) -> None:
    text = json.dumps(content, separators=(",", ":"))
    path.write_text(f"swinDenseBeside({json.dumps(path.stem)},{text});\n")
