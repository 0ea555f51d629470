"""The ground of a sample scene: water, sand and grass along a wavy coast.

Letters: H, W the image.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from swin_dense.data.sample_brush import Floats, jitter, mix, noise

STUFF_CLASSES = ("sand", "water", "grass")
UNLABELED = -1


def paint_ground(rng: np.random.Generator, hw: tuple[int, int]) -> tuple[Floats, NDArray[np.int32]]:
    """Water, sand and grass along a wavy coast of random direction, in random shares.

    Returns:
        The colours ``(H, W, 3)`` and the class of each pixel ``(H, W)``.
    """
    unit = min(hw) / 160  # a pixel of the 160 px reference scene
    y, x = np.mgrid[0 : hw[0], 0 : hw[1]].astype(np.float32) / max(hw)
    angle = rng.uniform(0, 2 * np.pi)
    inland = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    inland = (inland + 0.09 * noise(rng, hw, 60 * unit)).astype(np.float32)
    share_water, share_sand = rng.dirichlet((2.5, 2.5, 2.5))[:2]
    shore, verge = np.quantile(inland[::8, ::8], [share_water, share_water + share_sand])
    from_shore, from_verge = inland - np.float32(shore), inland - np.float32(verge)

    sand = _sand(rng, hw, unit)
    wet = np.exp(-np.clip(from_shore, 0, None) / 0.05)
    colours = sand * (1 - 0.28 * wet[..., None])
    foam = np.exp(-(((from_shore + 0.006 * noise(rng, hw, 9 * unit)) / 0.014) ** 2))
    softness = np.float32(0.006)
    colours = mix(colours, _water(rng, hw, unit, -from_shore), 0.5 - from_shore / softness)
    colours = mix(colours, np.array([0.96, 0.98, 0.97], np.float32), 0.8 * foam)
    tufts = from_verge + 0.007 * noise(rng, hw, 5 * unit, octaves=1)
    colours = mix(colours, _grass(rng, hw, unit), 0.5 + tufts / softness)

    ground = np.where(from_shore < 0, 1, np.where(from_verge < 0, 0, 2)).astype(np.int32)
    border = (np.abs(from_shore) < 0.011) | (np.abs(from_verge) < 0.011)
    ground[border] = UNLABELED
    return colours.astype(np.float32), ground


def _warped_waves(
    rng: np.random.Generator, hw: tuple[int, int], wavelength_px: float, warp_px: float
) -> Floats:
    """Parallel waves of random direction, bent by noise, in [-1, 1]."""
    y, x = np.mgrid[0 : hw[0], 0 : hw[1]].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle) + warp_px * noise(rng, hw, 8 * warp_px, 2)
    return np.sin(along * np.float32(2 * np.pi / wavelength_px)).astype(np.float32)


def _water(rng: np.random.Generator, hw: tuple[int, int], unit: float, depth: Floats) -> Floats:
    shallow, deep = jitter(rng, (0.30, 0.70, 0.72), 0.04), jitter(rng, (0.06, 0.32, 0.50), 0.04)
    colours = mix(shallow, deep, 2.2 * depth + 0.08 * noise(rng, hw, 40 * unit))
    waves = _warped_waves(rng, hw, 13 * unit, 5 * unit)
    crossing = _warped_waves(rng, hw, 17 * unit, 6 * unit)
    glint = np.clip(1 - 2.2 * np.abs(waves + 0.7 * crossing), 0, 1)
    light = 0.035 * waves + 0.16 * glint
    return (colours + light[..., None]).astype(np.float32)


def _sand(rng: np.random.Generator, hw: tuple[int, int], unit: float) -> Floats:
    colour = jitter(rng, (0.86, 0.75, 0.55), 0.03)
    dunes = 0.035 * _warped_waves(rng, hw, 21 * unit, 7 * unit) + 0.03 * noise(rng, hw, 50 * unit)
    grain = noise(rng, hw, 1.6 * unit, octaves=1)
    dark_grains = np.clip(grain - 1.7, 0, 1)
    light = dunes + 0.028 * grain - 0.35 * dark_grains
    return (colour * (1 + light[..., None])).astype(np.float32)


def _grass(rng: np.random.Generator, hw: tuple[int, int], unit: float) -> Floats:
    dark, bright = jitter(rng, (0.13, 0.30, 0.09), 0.03), jitter(rng, (0.45, 0.66, 0.22), 0.04)
    blades = np.zeros(hw, np.float32)
    for _ in range(3):  # three layers of short strokes, each lying its own way
        squeezed = noise(rng, (hw[0] // 4, hw[1]), 1.5 * unit, octaves=1)
        streaks = cv2.resize(squeezed, hw[::-1], interpolation=cv2.INTER_LINEAR)
        turn = cv2.getRotationMatrix2D((hw[1] / 2, hw[0] / 2), rng.uniform(-35, 35), 1.5)
        blades += cv2.warpAffine(streaks, turn, hw[::-1], borderMode=cv2.BORDER_REFLECT)
    light = 0.4 + 0.16 * blades + 0.10 * noise(rng, hw, 30 * unit)
    return mix(dark, bright, light.astype(np.float32))
