"""Draw instances and label maps on photographs, and put pictures side by side.

Boxes are left, top, right, bottom in pixels of the picture, the right and lower edge exclusive.
Letters: N instances; H, W the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from swin_dense.errors import UserError
from swin_dense.visualization.images import RgbImage, as_rgb, save_png
from swin_dense.visualization.palette import class_color
from swin_dense.visualization.tags import (
    TagRequest,
    draw_tags,
    fit_text,
    font_size_px,
    load_font,
    place_tags,
)

__all__ = ["draw_instances", "draw_semantic", "save_png", "side_by_side"]

MIN_SHORT_SIDE_PX = 320
"""Smaller pictures are enlarged by a whole factor before drawing, so that text stays readable."""

_MASK_OPACITY = (0.45, 0.24)  # of the smallest instances and of those that fill a quarter or more
_HALO_OPACITY = 0.3


def draw_instances(
    image: NDArray[np.generic],
    *,
    boxes_xyxy: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike | None = None,
    masks: Any = None,
    class_names: Sequence[str],
    score_threshold: float = 0.3,
    min_short_side_px: int = MIN_SHORT_SIDE_PX,
) -> RgbImage:
    """Return a copy of ``image`` with boxes, translucent masks and a tag for each instance.

    Small instances lie above large ones and the tags of high scores are placed first. An instance
    with a score under the threshold, or with a score or box that is not finite, is left out.

    Args:
        image: (H, W, 3) or (H, W) uint8 RGB.
        boxes_xyxy: (N, 4), in pixels of ``image``; clipped to it.
        labels: (N,) class indices.
        scores: (N,) in 0..1; None for annotations, which are all drawn.
        masks: (N, H, W), what is not zero belongs to the instance; an array, or anything else
            with a shape that gives one mask by its number, of which one is looked at at a time.
        class_names: by index; a label without a name reads ``class 7``.
        score_threshold: the least score that is drawn.
        min_short_side_px: enlarge a smaller picture by a whole factor first; 0 keeps the size.

    Raises:
        UserError: shapes that do not fit each other.
    """
    canvas = as_rgb(image).copy()
    image_hw = canvas.shape[:2]
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    classes = np.asarray(labels, np.int64).reshape(-1)
    confidence = None if scores is None else np.asarray(scores, np.float64).reshape(-1)
    shapes = masks if masks is None or hasattr(masks, "shape") else np.asarray(masks)
    _check_instances(boxes, classes, confidence, shapes, (image_hw[0], image_hw[1]))

    keep: NDArray[np.bool_] = np.asarray(np.isfinite(boxes).all(axis=1), np.bool_)
    if confidence is not None:
        keep &= confidence >= score_threshold  # False for NaN
    factor = _enlargement((image_hw[0], image_hw[1]), min_short_side_px)
    canvas = _enlarge(canvas, factor)
    height, width = canvas.shape[:2]
    limit = np.array([width, height, width, height], np.float64)
    boxes = np.clip(np.where(keep[:, None], boxes * factor, 0.0), 0, limit)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = [int(index) for index in np.argsort(-areas, kind="stable") if keep[index]]

    outlines: dict[int, list[NDArray[np.int32]]] = {}
    if shapes is not None:
        for index in order:
            outlines[index] = _fill_mask(
                canvas, np.asarray(shapes[index]), class_color_of(classes[index]), factor
            )
    _draw_outlines(canvas, order, boxes, classes, outlines)

    if confidence is not None:
        order.sort(key=lambda index: -confidence[index])
    requests = []
    for index in order:
        text = name_of(int(classes[index]), class_names)
        if confidence is not None:
            text = f"{text} {confidence[index]:.2f}"
        left, top, right, bottom = (float(value) for value in boxes[index])
        color = class_color_of(classes[index])
        requests.append(TagRequest(text, color, (left, top, right, bottom)))
    draw_tags(canvas, place_tags(requests, (height, width)))
    return canvas


def draw_semantic(
    image: NDArray[np.generic],
    label_map: ArrayLike,
    *,
    class_names: Sequence[str],
    ignore_index: int = 255,
    opacity: float = 0.55,
    min_short_side_px: int = MIN_SHORT_SIDE_PX,
) -> RgbImage:
    """Return a copy of ``image`` under the colours of its label map, with each region's name on it.

    Every class that occurs is named at its largest region, and at others that are large; pixels of
    ``ignore_index`` keep the photograph's colours.

    Args:
        image: (H, W, 3) or (H, W) uint8 RGB.
        label_map: (H, W) class indices.
        class_names: by index; a label without a name reads ``class 7``.
        ignore_index: the label of pixels without a class.
        opacity: of the colours, 0..1.
        min_short_side_px: enlarge a smaller picture by a whole factor first; 0 keeps the size.

    Raises:
        UserError: the label map has another size than the picture, or the opacity is out of range.
    """
    canvas = as_rgb(image).copy()
    labels = np.asarray(label_map)
    if labels.shape != canvas.shape[:2]:
        raise UserError(
            f"got a label map of shape {labels.shape} for a picture of {canvas.shape[:2]}; "
            "expected one label a pixel. Resize the label map (nearest neighbour), or check "
            "which file it came from."
        )
    if not 0.0 <= opacity <= 1.0:
        raise UserError(
            f"got opacity {opacity}; expected 0 (photograph alone) to 1 (colours alone)."
        )
    factor = _enlargement((labels.shape[0], labels.shape[1]), min_short_side_px)
    canvas = _enlarge(canvas, factor)
    positions, present = _number_densely(labels, ignore_index)
    if factor > 1:
        positions = positions.repeat(factor, axis=0).repeat(factor, axis=1)

    colors = np.array([*(class_color_of(label) for label in present), (0, 0, 0)], np.uint8)
    tint = np.take(colors, positions, axis=0)  # (H, W) -> (H, W, 3)
    tinted = cv2.addWeighted(canvas, 1.0 - opacity, tint, opacity, 0.0)
    cv2.copyTo(tinted, (positions < len(present)).astype(np.uint8), canvas)
    _draw_borders(canvas, positions)
    names = _region_names(positions, present, class_names)
    draw_tags(canvas, place_tags(names, (canvas.shape[0], canvas.shape[1])))
    return canvas


def side_by_side(
    images: Sequence[NDArray[np.generic]], titles: Sequence[str] | None = None
) -> RgbImage:
    """Return pictures in one row, at the height of the tallest, each under its title.

    Args:
        images: (H, W, 3) or (H, W) uint8 RGB, of any sizes.
        titles: one a picture; None for none.

    Raises:
        UserError: no picture, or another number of titles.
    """
    if not images or (titles is not None and len(titles) != len(images)):
        got = "none" if titles is None else len(titles)
        raise UserError(
            f"got {len(images)} pictures and {got} titles; expected at least one picture and one "
            "title each."
        )
    pictures = [as_rgb(image) for image in images]
    height = max(picture.shape[0] for picture in pictures)
    pictures = [_to_height(picture, height) for picture in pictures]
    width = max(picture.shape[1] for picture in pictures)
    font_px = font_size_px((height, width))
    gap_px = max(8, font_px)
    band_px = 0 if titles is None else 2 * font_px
    total = sum(picture.shape[1] for picture in pictures) + gap_px * (len(pictures) - 1)
    sheet = np.full((height + band_px, total, 3), 255, np.uint8)
    left = 0
    for index, picture in enumerate(pictures):
        right = left + picture.shape[1]
        sheet[band_px:, left:right] = picture
        if titles is not None:
            _draw_title(sheet[:band_px, left:right], titles[index], font_px)
        left = right + gap_px
    return sheet


def name_of(label: int, class_names: Sequence[str]) -> str:
    """Return a class's name, ``class 7`` where the names end before, ``ignored`` for a negative."""
    if label < 0:
        return "ignored"
    return class_names[label] if label < len(class_names) else f"class {label}"


def class_color_of(label: int | np.integer) -> tuple[int, int, int]:
    """Return a label's colour; gray for a negative one, which names no class."""
    return class_color(int(label)) if label >= 0 else (128, 128, 128)


def _check_instances(
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    scores: NDArray[np.float64] | None,
    masks: Any,
    image_hw: tuple[int, int],
) -> None:
    count = len(boxes)
    lengths = {"labels": len(labels)}
    if scores is not None:
        lengths["scores"] = len(scores)
    for name, length in lengths.items():
        if length != count:
            raise UserError(f"got {count} boxes and {length} {name}; expected one each.")
    shape = None if masks is None else tuple(masks.shape)
    if shape not in (None, (count, *image_hw)) and not (count == 0 == len(masks)):
        raise UserError(
            f"got masks of shape {shape}; expected {(count, *image_hw)}, one of the "
            "picture's size for each box. Draw on the picture that the boxes were found in."
        )


def _enlargement(image_hw: tuple[int, int], min_short_side_px: int) -> int:
    return max(1, -(-min_short_side_px // max(1, min(image_hw))))


def _enlarge(image: RgbImage, factor: int) -> RgbImage:
    if factor == 1:
        return image
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _line_width_px(image_hw: tuple[int, int]) -> int:
    return max(1, round((image_hw[0] * image_hw[1]) ** 0.5 / 330))


def _fill_mask(
    canvas: RgbImage, mask: NDArray[np.generic], color: tuple[int, int, int], factor: int
) -> list[NDArray[np.int32]]:
    """Tint the mask's pixels in place and return its contours, each (P, 1, 2) x and y."""
    inside = mask != 0
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return []
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    crop = inside[top:bottom, left:right].astype(np.uint8)
    if factor > 1:
        crop = crop.repeat(factor, axis=0).repeat(factor, axis=1)
    top, left = top * factor, left * factor
    below = canvas[top : top + crop.shape[0], left : left + crop.shape[1]]
    share = min(1.0, 4.0 * int(crop.sum()) / (canvas.shape[0] * canvas.shape[1]))
    opacity = _MASK_OPACITY[0] + (_MASK_OPACITY[1] - _MASK_OPACITY[0]) * share
    mixed = cv2.addWeighted(below, 1.0 - opacity, np.full_like(below, color), opacity, 0.0)
    cv2.copyTo(mixed, crop, below)
    contours, _ = cv2.findContours(
        crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top)
    )
    return [np.asarray(contour, np.int32) for contour in contours]


def _draw_outlines(
    canvas: RgbImage,
    order: Sequence[int],
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    outlines: dict[int, list[NDArray[np.int32]]],
) -> None:
    """Draw boxes and mask outlines in place; a soft dark edge shows the outlines on any ground."""
    width_px = _line_width_px((canvas.shape[0], canvas.shape[1]))
    box_px = max(1, round(width_px * 0.6)) if outlines else width_px
    halo = np.zeros(canvas.shape[:2], np.uint8)
    extra = 2 * max(1, width_px // 2)
    corners = {index: _corners(boxes[index], canvas.shape[:2]) for index in order}
    for index in order:
        if not outlines:
            cv2.rectangle(halo, *corners[index], 255, box_px + extra)
        cv2.polylines(halo, outlines.get(index, []), True, 255, width_px + extra, cv2.LINE_AA)
    shaded = halo > 0
    strength = 1.0 - halo[shaded].astype(np.float32) * (_HALO_OPACITY / 255.0)
    canvas[shaded] = np.rint(canvas[shaded] * strength[:, None]).astype(np.uint8)
    for index in order:
        color = class_color_of(labels[index])
        cv2.rectangle(canvas, *corners[index], color, box_px)
        cv2.polylines(canvas, outlines.get(index, []), True, color, width_px, cv2.LINE_AA)


def _corners(
    box_xyxy: NDArray[np.float64], image_hw: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the first and the last pixel of a box, both inside the picture."""
    left, top, right, bottom = (float(value) for value in box_xyxy)
    x1, y1 = min(int(left), image_hw[1] - 1), min(int(top), image_hw[0] - 1)
    x2, y2 = min(int(np.ceil(right)), image_hw[1]) - 1, min(int(np.ceil(bottom)), image_hw[0]) - 1
    return (x1, y1), (max(x1, x2), max(y1, y2))


def _number_densely(
    labels: NDArray[np.generic], ignore_index: int
) -> tuple[NDArray[np.uint16], list[int]]:
    """Return the labels' positions in the list of labels that occur, (H, W), and that list.

    Pixels to ignore, and negative ones, get the position after the last.
    """
    whole = labels.astype(np.int64)
    ignored = (whole < 0) | (whole == ignore_index)
    whole[ignored] = 0
    counts = np.bincount(whole.ravel(), minlength=1)
    counts[0] -= int(ignored.sum())
    present = np.flatnonzero(counts)
    table = np.zeros(len(counts), np.uint16)
    table[present] = np.arange(len(present))
    positions = np.take(table, whole)
    positions[ignored] = len(present)
    return positions, [int(label) for label in present]


def _draw_borders(canvas: RgbImage, labels: NDArray[np.generic]) -> None:
    """Draw a thin pale line in place where two labels meet."""
    edge = np.zeros(labels.shape, np.uint8)
    edge[:, 1:][labels[:, 1:] != labels[:, :-1]] = 255
    edge[1:][labels[1:] != labels[:-1]] = 255
    width_px = _line_width_px((labels.shape[0], labels.shape[1])) - 1
    if width_px > 1:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width_px, width_px))
        edge = np.asarray(cv2.dilate(edge, kernel), np.uint8)
    edge = np.asarray(cv2.blur(edge, (3, 3)), np.uint8)
    lit = edge > 0
    weight = edge[lit].astype(np.float32)[:, None] * (0.75 / 255.0)
    canvas[lit] = np.rint(canvas[lit] + (255.0 - canvas[lit]) * weight).astype(np.uint8)


def _region_names(
    labels: NDArray[np.generic], present: Sequence[int], class_names: Sequence[str]
) -> list[TagRequest]:
    """Return a tag for the deepest point of each class's largest region, and of other large ones.

    ``labels`` (H, W) holds positions in ``present``. Regions are found on a small copy.
    """
    height, width = labels.shape
    scale = min(1.0, 640 / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    to_full = np.array([width / size[0], height / size[1]])
    found: list[tuple[int, TagRequest]] = []
    for position, label in enumerate(present):
        mask = (small == position).astype(np.uint8)
        _, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        wanted = [
            index
            for index in range(len(areas))
            if index == int(areas.argmax()) or areas[index] > 0.04 * mask.size
        ]
        for index in wanted:
            region = np.pad((regions == index + 1).astype(np.uint8), 1)
            depth = cv2.distanceTransform(region, cv2.DIST_L2, 3)[1:-1, 1:-1]
            y, x = np.unravel_index(int(depth.argmax()), depth.shape)
            x_full, y_full = (np.array([x, y]) + 0.5) * to_full
            reach = max(float(depth.max()) * 0.5, 1.0) * float(to_full.min())
            target = (x_full - reach, y_full - reach, x_full + reach, y_full + reach)
            text, color = name_of(label, class_names), class_color_of(label)
            found.append((int(areas[index]), TagRequest(text, color, target, centered=True)))
    found.sort(key=lambda item: -item[0])
    return [request for _, request in found]


def _to_height(picture: RgbImage, height: int) -> RgbImage:
    if picture.shape[0] == height:
        return picture
    size = (max(1, round(picture.shape[1] * height / picture.shape[0])), height)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _draw_title(band: RgbImage, title: str, font_px: int) -> None:
    """Write a title into its white band (h, w, 3), in place."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(band)
    text = fit_text(title, font_px, picture.width - font_px)
    ImageDraw.Draw(picture).text(
        (font_px // 2, picture.height / 2),
        text,
        fill=(24, 24, 24),
        font=load_font(font_px),
        anchor="lm",
    )
    band[:] = np.asarray(picture)
