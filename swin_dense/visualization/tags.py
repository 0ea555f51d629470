"""Text on pictures: a tag has its own ground, stays inside the picture and off other tags.

Letters: H, W the picture; K tags already placed; M positions tried for one tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from swin_dense.visualization.images import RgbImage
from swin_dense.visualization.palette import RGB, text_color

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Box = tuple[int, int, int, int]

MIN_FONT_PX = 11
_SMOOTHING = 4
_CROWD = 20
_REACH = 7  # how many tag heights a tag may stand away from what it names


@dataclass(frozen=True)
class TagRequest:
    """A text and what it names.

    Attributes:
        text: one line.
        color: the tag's ground.
        target_xyxy: the box that it names, in pixels.
        centered: put it on the target's middle where there is room, as for a region's name.
    """

    text: str
    color: RGB
    target_xyxy: tuple[float, float, float, float]
    centered: bool = False


@dataclass(frozen=True)
class PlacedTag:
    """A tag with its place; ``box_xyxy`` is in whole pixels, right and lower edge exclusive."""

    request: TagRequest
    text: str
    box_xyxy: Box
    font_px: int


def font_size_px(image_hw: tuple[int, int]) -> int:
    """Return the text size for a picture: it grows with the picture, as that is shown smaller."""
    height, width = image_hw
    return max(13, round(0.024 * (height * width) ** 0.5))


@lru_cache(maxsize=32)
def load_font(size_px: int) -> Font:
    """Return DejaVu Sans (matplotlib brings it) in this size, or Pillow's own font."""
    spec = find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size_px)
    return ImageFont.load_default(size_px)


def fit_text(text: str, font_px: int, width_px: int) -> str:
    """Return ``text``, shortened with an ellipsis where it is wider than ``width_px``."""
    text = " ".join(text.split())
    font = load_font(font_px)
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text.rstrip() + "…"


def place_tags(requests: Sequence[TagRequest], image_hw: tuple[int, int]) -> list[PlacedTag]:
    """Find a place for each tag, the first ones first.

    A tag stands at its target where it covers neither another tag nor another small target; else it
    may cover a target; else it moves away a little, to be joined by a line. In a crowd the text
    shrinks. What still has no place is left out: two tags on each other say less than one.
    """
    font_px = font_size_px(image_hw)
    placed: list[PlacedTag] = []
    for shrink in (1.0, 0.85, 0.7) if len(requests) <= _CROWD else (0.85, 0.7):
        size_px = max(MIN_FONT_PX, round(font_px * shrink))
        placed = _place_all(requests, image_hw, size_px)
        if len(placed) == len(requests) or size_px == MIN_FONT_PX:
            break
    return placed


def draw_tags(image: RgbImage, tags: Sequence[PlacedTag]) -> None:
    """Draw tags onto (H, W, 3) in place, with a line to a target that they do not touch."""
    for tag in tags:
        if (ends := _leader(tag)) is not None:
            thickness = max(1, tag.font_px // 9)
            cv2.line(image, *ends, (20, 20, 20), thickness + 2, cv2.LINE_AA)
            cv2.line(image, *ends, tag.request.color, thickness, cv2.LINE_AA)
    for tag in tags:
        left, top, right, bottom = tag.box_xyxy
        color, alpha = _render(
            tag.text, tag.request.color, (bottom - top, right - left), tag.font_px
        )
        below = image[top:bottom, left:right].astype(np.float32)
        weight = alpha[..., None].astype(np.float32) / 255.0  # (h, w) -> (h, w, 1)
        mixed = below + (color.astype(np.float32) - below) * weight
        image[top:bottom, left:right] = np.rint(mixed).astype(np.uint8)


def _padding(font_px: int) -> tuple[int, int]:
    """Return the space around the text: beside, and above and below."""
    return max(3, round(font_px * 0.34)), max(2, round(font_px * 0.17))


def _tag_size(text: str, font_px: int) -> tuple[int, int]:
    """Return (height, width); the height is the same for all texts of one size."""
    beside, around = _padding(font_px)
    return round(font_px * 1.18) + 2 * around, int(load_font(font_px).getlength(text)) + 1 + (
        2 * beside
    )


def _render(
    text: str, color: RGB, hw: tuple[int, int], font_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the tag's colours (h, w, 3) and its opacity (h, w), rounded at the corners."""
    height, width = hw
    large = Image.new("L", (width * _SMOOTHING, height * _SMOOTHING), 0)
    corner = round(font_px * 0.22) * _SMOOTHING
    ImageDraw.Draw(large).rounded_rectangle(
        (0, 0, large.width - 1, large.height - 1), radius=corner, fill=255
    )
    tag = Image.new("RGB", (width, height), color)
    beside, _ = _padding(font_px)
    ImageDraw.Draw(tag).text(
        (beside, height / 2), text, fill=text_color(color), font=load_font(font_px), anchor="lm"
    )
    return np.asarray(tag), np.asarray(large.resize((width, height), Image.Resampling.BOX))


def _place_all(
    requests: Sequence[TagRequest], image_hw: tuple[int, int], font_px: int
) -> list[PlacedTag]:
    height, width = image_hw
    beside, _ = _padding(font_px)
    targets = np.array([request.target_xyxy for request in requests], np.float64).reshape(-1, 4)
    areas = (targets[:, 2] - targets[:, 0]) * (targets[:, 3] - targets[:, 1])
    taken = np.zeros((0, 4))
    placed = []
    for index, request in enumerate(requests):
        text = fit_text(request.text, font_px, width - 2 * beside - 1)
        tag_h, tag_w = _tag_size(text, font_px)
        if tag_h > height or tag_w > width:
            continue
        small = areas < 8 * tag_h * tag_w
        small[index] = False
        spot = _find_spot(request, (tag_h, tag_w), image_hw, taken, targets[small])
        if spot is None:
            continue
        left, top = spot
        box = (left, top, left + tag_w, top + tag_h)
        taken = np.concatenate([taken, np.array([box], np.float64)])
        placed.append(PlacedTag(request, text, box, font_px))
    return placed


def _find_spot(
    request: TagRequest,
    tag_hw: tuple[int, int],
    image_hw: tuple[int, int],
    taken: NDArray[np.float64],
    avoid: NDArray[np.float64],
) -> tuple[int, int] | None:
    """Return the tag's left and top, or None where every position covers another tag."""
    near = _boxes_at(_near_positions(request, tag_hw), tag_hw, image_hw)
    free = ~_overlaps(near, taken)
    best = free & ~_overlaps(near, avoid)
    for good in (best, free):
        if good.any():
            left, top = near[int(good.argmax()), :2]
            return int(left), int(top)
    far = _boxes_at(_far_positions(request, tag_hw), tag_hw, image_hw)
    free = ~_overlaps(far, taken)
    if free.any():
        left, top = far[int(free.argmax()), :2]
        return int(left), int(top)
    return None


def _near_positions(request: TagRequest, tag_hw: tuple[int, int]) -> NDArray[np.float64]:
    """Return (M, 2) left and top of positions that touch the target, the best first."""
    left, top, right, bottom = request.target_xyxy
    tag_h, tag_w = tag_hw
    spots = [
        (left, top - tag_h),
        (left, top),
        (right - tag_w, top - tag_h),
        (left, bottom),
        (right - tag_w, top),
        (left, bottom - tag_h),
        (right, top),
        (left - tag_w, top),
        (right - tag_w, bottom),
        (right - tag_w, bottom - tag_h),
    ]
    if request.centered:
        spots.insert(0, ((left + right - tag_w) / 2, (top + bottom - tag_h) / 2))
    along_x = np.arange(left, max(right - tag_w, left) + 1, max(tag_w / 2, 1))
    along_y = np.arange(top, max(bottom - tag_h, top) + 1, max(tag_h, 1))
    spots += [(x, y) for y in (top - tag_h, top, bottom - tag_h, bottom) for x in along_x]
    spots += [(x, y) for y in along_y for x in (left, right - tag_w, right, left - tag_w)]
    return np.array(spots)


def _far_positions(request: TagRequest, tag_hw: tuple[int, int]) -> NDArray[np.float64]:
    """Return (M, 2) left and top of positions around the target, the nearest first."""
    left, top, right, bottom = request.target_xyxy
    tag_h, tag_w = tag_hw
    reach = np.arange(-_REACH, _REACH + 1) * float(tag_h)
    x, y = np.meshgrid((left + right - tag_w) / 2 + reach, (top + bottom - tag_h) / 2 + reach)
    spots = np.stack([x.ravel(), y.ravel()], axis=1)
    distance = np.hypot(*(spots - spots.mean(axis=0)).T)
    return spots[np.argsort(distance, kind="stable")]


def _boxes_at(
    spots: NDArray[np.float64], tag_hw: tuple[int, int], image_hw: tuple[int, int]
) -> NDArray[np.float64]:
    """Return (M, 4) whole-pixel boxes, moved inside the picture: (M, 2) -> (M, 4)."""
    tag_h, tag_w = tag_hw
    height, width = image_hw
    left = np.clip(np.rint(spots[:, 0]), 0, width - tag_w)
    top = np.clip(np.rint(spots[:, 1]), 0, height - tag_h)
    return np.stack([left, top, left + tag_w, top + tag_h], axis=1)


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for each of (M, 4) boxes whether it shares a pixel with any of (K, 4) others."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: NDArray[np.bool_] = np.logical_and(*np.moveaxis(high > low, 2, 0))
    return np.asarray(shared.any(axis=1), np.bool_)


def _leader(tag: PlacedTag) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the ends of the line from a tag to the target that it does not touch."""
    target, box = np.array(tag.request.target_xyxy), np.array(tag.box_xyxy, np.float64)
    low, high = np.maximum(target[:2], box[:2]), np.minimum(target[2:], box[2:])
    gap = float((low - high).max())
    if gap < tag.font_px * 0.5:
        return None
    start = np.clip((target[:2] + target[2:]) / 2, box[:2], box[2:])
    end = np.clip(start, target[:2], target[2:])
    return (int(start[0]), int(start[1])), (int(end[0]), int(end[1]))
