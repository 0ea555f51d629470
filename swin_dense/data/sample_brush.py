"""What the sample data's painters share: smooth noise and colour mixing, in numpy."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


def noise(
    rng: np.random.Generator, hw: tuple[int, int], cell_px: float, octaves: int = 3
) -> Floats:
    """Smooth noise of about zero mean and unit spread; the coarsest detail is ``cell_px`` wide."""
    total = np.zeros(hw, np.float32)
    weight, power = 1.0, 0.0
    for _ in range(octaves):
        grid_hw = (max(2, round(hw[0] / cell_px) + 1), max(2, round(hw[1] / cell_px) + 1))
        grid = rng.standard_normal(grid_hw, dtype=np.float32)
        total += weight * cv2.resize(grid, hw[::-1], interpolation=cv2.INTER_CUBIC)
        power += weight**2
        weight, cell_px = weight / 2, max(1.0, cell_px / 2)
    return total / np.float32(power**0.5 * 0.75)


def jitter(rng: np.random.Generator, rgb: tuple[float, float, float], spread: float) -> Floats:
    """One colour ``(3,)`` near ``rgb``, each channel moved by a normal step of ``spread``."""
    return np.clip(np.array(rgb) + rng.normal(0, spread, 3), 0, 1).astype(np.float32)


def mix(first: Floats, second: Floats, share: Floats) -> Floats:
    """Blend two colours by a ``(h, w)`` share of the second."""
    share = np.clip(share, 0, 1)[..., None]
    return first * (1 - share) + second * share
