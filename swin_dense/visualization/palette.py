"""Class colours: one for every class index, the same in every run and for any number of classes.

The colours are a farthest-point sequence in OKLab (https://bottosson.github.io/posts/oklab/): each
is the one of a grid of vivid, mid-light colours that lies farthest from all before it. So colour
``i`` does not depend on how many classes there are, and the first few differ most. Letters: N
colours.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from swin_dense.errors import UserError

RGB = tuple[int, int, int]

_FIRST: RGB = (255, 112, 32)
_GRID_STEP = 12
_LIGHTNESS = (0.52, 0.88)
_CHROMA = (0.085, 0.225)  # paler ones vanish on photographs, stronger ones glare
_LIGHTNESS_WEIGHT = 0.8  # of two equal OKLab distances, the one in hue is easier to name


def class_color(index: int) -> RGB:
    """Return the sRGB colour (0..255) of the class with this index.

    Raises:
        UserError: the index is negative.
    """
    if index < 0:
        raise UserError(f"got class index {index}; expected 0 or more.")
    size = 256
    while size <= index:
        size *= 2
    red, green, blue = _sequence(size)[index % len(_sequence(size))]
    return int(red), int(green), int(blue)


def class_palette(num_classes: int) -> NDArray[np.uint8]:
    """Return the colours of the first ``num_classes`` classes, (N, 3) uint8 RGB."""
    return np.array([class_color(index) for index in range(num_classes)], np.uint8).reshape(-1, 3)


def text_color(background: RGB) -> RGB:
    """Return black or white, whichever reads better; the contrast ratio is at least 4.5."""
    black, white = (0, 0, 0), (255, 255, 255)
    return max(black, white, key=lambda color: contrast_ratio(color, background))


def contrast_ratio(first: RGB, second: RGB) -> float:
    """Return the contrast ratio of two sRGB colours, 1 to 21 (WCAG 2.1, "contrast ratio")."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    luminance = sorted(float(_linear(np.array(color)) @ weights) for color in (first, second))
    return (luminance[1] + 0.05) / (luminance[0] + 0.05)


def oklab(colors: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return sRGB (..., 3) in 0..255 as OKLab (..., 3): lightness 0..1, green-red, blue-yellow."""
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(_linear(colors) @ to_lms.T) @ to_lab.T


def _linear(colors: NDArray[np.generic]) -> NDArray[np.float64]:
    """Undo the sRGB transfer curve: 0..255 to linear 0..1."""
    value = np.asarray(colors, np.float64) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


@lru_cache(maxsize=4)
def _sequence(count: int) -> NDArray[np.uint8]:
    """Return the first ``count`` colours of the sequence, fewer where the grid has no more."""
    axis = np.unique(np.append(np.arange(0, 256, _GRID_STEP), 255))
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = oklab(grid)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    light = (lab[:, 0] >= _LIGHTNESS[0]) & (lab[:, 0] <= _LIGHTNESS[1])
    vivid = (chroma >= _CHROMA[0]) & (chroma <= _CHROMA[1])
    grid = np.concatenate([[_FIRST], grid[light & vivid]])
    lab = oklab(grid) * np.array([_LIGHTNESS_WEIGHT, 1.0, 1.0])
    chosen = [0]
    distance = np.full(len(grid), np.inf)
    for _ in range(1, min(count, len(grid))):
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return grid[chosen].astype(np.uint8)
