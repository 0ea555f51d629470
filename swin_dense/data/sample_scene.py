"""Paint one beach scene: textured ground and shaded objects that hide one another.

Objects are drawn ``SUPERSAMPLING`` times larger and averaged down, so edges are antialiased. A
pixel belongs to the topmost object at its centre; masks of one scene therefore never overlap.

Letters: H, W the image; h, w the supersampled patch of one object; u, v its own coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from swin_dense.data.sample_brush import Bools, Floats
from swin_dense.data.sample_ground import paint_ground
from swin_dense.data.sample_objects import PAINTERS, REACH, THING_CLASSES, Look

SUPERSAMPLING = 3  # odd: the middle sample lies on the pixel centre
LIGHT = np.array([-0.45, -0.6, 0.66], np.float32)  # x right, y down, z towards the camera
NUM_OBJECTS = (4, 8)
RADIUS = (0.09, 0.18)  # of the shorter image side
MIN_VISIBLE = 0.4  # of an object's own area: a later object may not hide more
MIN_VISIBLE_AREA = 0.0023  # of the shorter image side, squared: 60 px at 160


@dataclass(frozen=True)
class Scene:
    """One picture with its ground truth.

    Attributes:
        image_rgb: ``(H, W, 3)`` uint8.
        instance_map: ``(H, W)`` int32, indices into ``classes``, -1 where no object lies.
        ground_map: ``(H, W)`` int32 into :data:`STUFF_CLASSES`, :data:`UNLABELED` where two meet.
        classes: for each object, its index into :data:`THING_CLASSES`.
    """

    image_rgb: NDArray[np.uint8]
    instance_map: NDArray[np.int32]
    ground_map: NDArray[np.int32]
    classes: tuple[int, ...]


def paint_scene(rng: np.random.Generator, image_hw: tuple[int, int]) -> Scene:
    """Draw the ground, then objects from the bottom up, then light and camera noise."""
    height, width = image_hw
    canvas_hw = (height * SUPERSAMPLING, width * SUPERSAMPLING)
    ground_rgb, ground_map = paint_ground(rng, image_hw)
    canvas = cv2.resize(ground_rgb, canvas_hw[::-1], interpolation=cv2.INTER_NEAREST)
    owner = np.full(canvas_hw, -1, np.int32)
    classes: list[int] = []
    areas_px: list[int] = []
    centres_xy: list[tuple[float, float]] = []
    for _ in range(int(rng.integers(*NUM_OBJECTS, endpoint=True))):
        class_index = int(rng.integers(len(THING_CLASSES)))
        for _attempt in range(6):
            patch = _place(rng, canvas_hw, class_index, centres_xy)
            if _leaves_all_visible(patch, owner, areas_px):
                break
        else:
            continue
        patch.paint(canvas)
        owner[patch.rows, patch.columns][patch.inside] = len(classes)
        classes.append(class_index)
        areas_px.append(int(patch.inside.sum()))
        centres_xy.append(patch.centre_xy)
    middle = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
    return Scene(
        image_rgb=_develop(rng, canvas, image_hw),
        instance_map=owner[middle, middle].copy(),
        ground_map=ground_map,
        classes=tuple(classes),
    )


@dataclass(frozen=True)
class _Patch:
    """An object where it will lie: the canvas window it touches and its look there."""

    rows: slice
    columns: slice
    centre_xy: tuple[float, float]
    radius_px: float
    look: Look

    @property
    def inside(self) -> Bools:
        return self.look.inside

    def paint(self, canvas: Floats) -> None:
        """Darken the ground by the cast shadow, then lay the shaded object on it."""
        window = canvas[self.rows, self.columns]
        blur = max(1.0, 0.10 * self.radius_px)
        drop = 0.13 * self.radius_px
        shift = np.array([[1, 0, 0.75 * drop], [0, 1, drop]], np.float32)
        hw = self.inside.shape
        shadow = cv2.warpAffine(self.inside.astype(np.float32), shift, hw[::-1])
        window *= 1 - 0.5 * cv2.GaussianBlur(shadow, (0, 0), blur)[..., None]

        slope_y, slope_x = np.gradient(self.look.height * self.radius_px)
        length = np.sqrt(slope_x**2 + slope_y**2 + 1)
        light = (-slope_x * LIGHT[0] - slope_y * LIGHT[1] + LIGHT[2]) / length
        shine = self.look.gloss * np.clip(light, 0, 1) ** 24
        shaded = self.look.colour * (0.48 + 0.62 * np.clip(light, 0, 1))[..., None]
        lit = shaded + shine[..., None]
        window[self.inside] = lit[self.inside]


def _place(
    rng: np.random.Generator,
    canvas_hw: tuple[int, int],
    class_index: int,
    centres_xy: list[tuple[float, float]],
) -> _Patch:
    """Lay an object down, every other time close to an earlier one so that it hides part of it."""
    height, width = canvas_hw
    name = THING_CLASSES[class_index]
    radius = float(rng.uniform(*RADIUS)) * REACH[name] * min(canvas_hw)
    margin = 0.5 * radius
    if centres_xy and rng.random() < 0.55:
        near = centres_xy[int(rng.integers(len(centres_xy)))]
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.7) * radius
        x, y = near[0] + distance * np.cos(angle), near[1] + distance * np.sin(angle)
        x = float(np.clip(x, margin, width - margin))
        y = float(np.clip(y, margin, height - margin))
    else:
        x = float(rng.uniform(margin, width - margin))
        y = float(rng.uniform(margin, height - margin))
    reach = 1.3 * radius  # room for the shadow
    top, bottom = max(0, int(y - reach)), min(height, int(y + reach) + 1)
    left, right = max(0, int(x - reach)), min(width, int(x + reach) + 1)
    dy, dx = np.mgrid[top:bottom, left:right].astype(np.float32)
    dy, dx = (dy - np.float32(y)) / np.float32(radius), (dx - np.float32(x)) / np.float32(radius)
    turn = rng.uniform(0, 2 * np.pi)
    u = (dx * np.cos(turn) + dy * np.sin(turn)).astype(np.float32)
    v = (dy * np.cos(turn) - dx * np.sin(turn)).astype(np.float32)
    look = PAINTERS[name](rng, u, v)
    return _Patch(slice(top, bottom), slice(left, right), (x, y), radius, look)


def _leaves_all_visible(patch: _Patch, owner: NDArray[np.int32], areas_px: list[int]) -> bool:
    """Whether each object, the new one included, would still show enough of itself."""
    floor_px = MIN_VISIBLE_AREA * min(owner.shape) ** 2
    if int(patch.inside.sum()) < floor_px:
        return False
    covered = np.bincount(owner[patch.rows, patch.columns][patch.inside] + 1)[1:]
    visible = np.bincount(owner.ravel() + 1, minlength=len(areas_px) + 1)[1:]
    for index, hidden_px in enumerate(covered):
        left_px = int(visible[index]) - int(hidden_px)
        if hidden_px and left_px < max(floor_px, MIN_VISIBLE * areas_px[index]):
            return False
    return True


def _develop(
    rng: np.random.Generator, canvas: Floats, image_hw: tuple[int, int]
) -> NDArray[np.uint8]:
    """Average the samples of each pixel; exposure, white balance, vignette, sensor noise."""
    image = cv2.resize(canvas, image_hw[::-1], interpolation=cv2.INTER_AREA)
    image = image * rng.uniform(0.88, 1.08) * rng.uniform(0.96, 1.04, 3).astype(np.float32)
    y, x = np.mgrid[-1 : 1 : image_hw[0] * 1j, -1 : 1 : image_hw[1] * 1j]
    image = image * (1 - 0.09 * (x**2 + y**2))[..., None]
    image = image + rng.normal(0, 0.012, image.shape)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
