"""The operations of swin_dense.ops again, one number at a time, straight from their definitions.

Everything is numpy in float64 and slow on purpose: no vectorised step that could share a mistake
with what it checks. Each backward is written out by hand as well.
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def iou(first: Array, second: Array, offset: int = 0) -> float:
    """Intersection over union of two boxes; 0 where neither has an area."""
    width = min(first[2], second[2]) - max(first[0], second[0]) + offset
    height = min(first[3], second[3]) - max(first[1], second[1]) + offset
    common = max(width, 0) * max(height, 0)
    area_1 = (first[2] - first[0] + offset) * (first[3] - first[1] + offset)
    area_2 = (second[2] - second[0] + offset) * (second[3] - second[1] + offset)
    union = area_1 + area_2 - common
    return common / union if union else 0.0


def by_falling_score(scores: Array) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))


def nms(boxes: Array, scores: Array, threshold: float, offset: int = 0) -> list[int]:
    kept: list[int] = []
    for index in by_falling_score(scores):
        if all(iou(boxes[index], boxes[other], offset) <= threshold for other in kept):
            kept.append(index)
    return kept


def nms_match(boxes: Array, scores: Array, threshold: float) -> list[list[int]]:
    groups: list[list[int]] = []
    for index in by_falling_score(scores):
        for group in groups:
            if iou(boxes[index], boxes[group[0]]) >= threshold:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def soft_nms(
    boxes: Array,
    scores: Array,
    threshold: float,
    sigma: float,
    min_score: float,
    method: str,
    offset: int = 0,
) -> list[tuple[int, float]]:
    """Return (index, lowered score) in the order of picking."""
    left = {index: float(score) for index, score in enumerate(scores)}
    picked = []
    while left:
        best = min(left, key=lambda index: (-left[index], index))
        picked.append((best, left.pop(best)))
        for index in list(left):
            overlap = iou(boxes[best], boxes[index], offset)
            if method == "gaussian":
                left[index] *= math.exp(-overlap * overlap / sigma)
            elif overlap >= threshold:
                left[index] *= 1 - overlap if method == "linear" else 0.0
            if left[index] < min_score:
                del left[index]
    return picked


def clamped_corners(y: float, x: float, height: int, width: int) -> list[tuple[int, int, float]]:
    """Cells and weights around a point; nearly outside is moved in, far outside is nothing."""
    if not (-1 <= y <= height and -1 <= x <= width):
        return []
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    return [
        (row, column, (1 - abs(y - row)) * (1 - abs(x - column)))
        for row in {math.floor(y), min(math.floor(y) + 1, height - 1)}
        for column in {math.floor(x), min(math.floor(x) + 1, width - 1)}
    ]


def zero_padded_corners(
    y: float, x: float, height: int, width: int
) -> list[tuple[int, int, float, float, float]]:
    """Cells inside the map around a point, their weights, and the weights' slopes in y and x.

    A point a whole cell outside has none, not even a slope towards the border.
    """
    if y <= -1 or x <= -1 or y >= height or x >= width:
        return []
    top, left = math.floor(y), math.floor(x)
    corners = []
    for row, share_y, slope_y in ((top, 1 - (y - top), -1.0), (top + 1, y - top, 1.0)):
        for column, share_x, slope_x in ((left, 1 - (x - left), -1.0), (left + 1, x - left, 1.0)):
            if 0 <= row < height and 0 <= column < width:
                weights = share_y * share_x, slope_y * share_x, share_y * slope_x
                corners.append((row, column, *weights))
    return corners


def roi_align(
    features: Array,
    rois: Array,
    output_hw: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
    mode: str,
    grad: Array | None = None,
) -> tuple[Array, Array]:
    """Return the pooled boxes and the gradient in ``features`` for ``grad`` (ones if not given)."""
    channels, height, width = features.shape[1:]
    rows, columns = output_hw
    pooled = np.zeros((len(rois), channels, rows, columns))
    grad_features = np.zeros(features.shape)
    grad = np.ones(pooled.shape) if grad is None else grad
    for k, roi in enumerate(rois):
        image = int(roi[0])
        left, top, right, bottom = roi[1:] * scale - (0.5 if aligned else 0.0)
        side_x, side_y = right - left, bottom - top
        if not aligned:
            side_x, side_y = max(side_x, 1.0), max(side_y, 1.0)
        bin_y, bin_x = side_y / rows, side_x / columns
        count_y = ratio if ratio > 0 else max(math.ceil(bin_y), 0)
        count_x = ratio if ratio > 0 else max(math.ceil(bin_x), 0)
        for p in range(rows):
            for q in range(columns):
                samples = [
                    clamped_corners(
                        top + p * bin_y + (iy + 0.5) * bin_y / count_y,
                        left + q * bin_x + (ix + 0.5) * bin_x / count_x,
                        height,
                        width,
                    )
                    for iy in range(count_y)
                    for ix in range(count_x)
                ]
                for c in range(channels):
                    values = [
                        sum(features[image, c, y, x] * share for y, x, share in corners)
                        for corners in samples
                    ]
                    if not values:
                        continue
                    if mode == "avg":
                        pooled[k, c, p, q] = sum(values) / len(values)
                        used = [(corners, 1 / len(values)) for corners in samples]
                    else:
                        first = max(range(len(values)), key=lambda i: (values[i], -i))
                        pooled[k, c, p, q] = values[first]
                        used = [(samples[first], 1.0)]
                    for corners, factor in used:
                        for y, x, share in corners:
                            grad_features[image, c, y, x] += grad[k, c, p, q] * factor * share
    return pooled, grad_features


def roi_pool(
    features: Array, rois: Array, output_hw: tuple[int, int], scale: float, grad: Array
) -> tuple[Array, Array]:
    """Return the pooled boxes and the gradient in ``features`` for ``grad``."""
    channels, height, width = features.shape[1:]
    rows, columns = output_hw
    pooled = np.zeros((len(rois), channels, rows, columns))
    grad_features = np.zeros(features.shape)
    for k, roi in enumerate(rois):
        image = int(roi[0])
        left, top = roi[1] * scale, roi[2] * scale
        side_x, side_y = (roi[3] + 1) * scale - left, (roi[4] + 1) * scale - top
        if side_x <= 0 or side_y <= 0:
            continue
        for p in range(rows):
            for q in range(columns):
                cells = [
                    (y, x)
                    for y in range(height)
                    for x in range(width)
                    if math.floor(p * side_y / rows + top) <= y
                    and y < math.ceil((p + 1) * side_y / rows + top)
                    and math.floor(q * side_x / columns + left) <= x
                    and x < math.ceil((q + 1) * side_x / columns + left)
                ]
                for c in range(channels):
                    if cells:
                        best = max(cells, key=lambda cell: features[image, c, cell[0], cell[1]])
                        pooled[k, c, p, q] = features[image, c, best[0], best[1]]
                        grad_features[image, c, best[0], best[1]] += grad[k, c, p, q]
    return pooled, grad_features


def sigmoid_focal_loss(
    logits: Array, targets: Array, gamma: float, alpha: float, weight: Array | None
) -> tuple[Array, Array]:
    """Return the loss and its derivative in each logit."""
    loss, slope = np.zeros(logits.shape), np.zeros(logits.shape)
    for n in range(logits.shape[0]):
        factor = 1.0
        if weight is not None and 0 <= targets[n] < len(weight):
            factor = weight[targets[n]]
        for c in range(logits.shape[1]):
            p = 1 / (1 + math.exp(-logits[n, c]))
            if targets[n] == c:
                loss[n, c] = -factor * alpha * (1 - p) ** gamma * math.log(p)
                inner = 1 - p - gamma * p * math.log(p)
                slope[n, c] = -factor * alpha * (1 - p) ** gamma * inner
            else:
                loss[n, c] = -factor * (1 - alpha) * p**gamma * math.log(1 - p)
                inner = gamma * (1 - p) * math.log(1 - p) - p
                slope[n, c] = -factor * (1 - alpha) * p**gamma * inner
    return loss, slope


def softmax_focal_loss(
    logits: Array, targets: Array, gamma: float, alpha: float, weight: Array | None
) -> tuple[Array, Array]:
    """Return the loss and its derivative in each logit."""
    loss, slope = np.zeros(len(logits)), np.zeros(logits.shape)
    for n, target in enumerate(targets):
        if target < 0:
            continue
        factor = alpha if weight is None else alpha * weight[target]
        total = sum(math.exp(value) for value in logits[n])
        p = [math.exp(value) / total for value in logits[n]]
        own = p[target]
        loss[n] = -factor * (1 - own) ** gamma * math.log(own)
        outer = gamma * (1 - own) ** (gamma - 1) * own * math.log(own) - (1 - own) ** gamma
        for c in range(len(p)):
            slope[n, c] = factor * outer * ((c == target) - p[c])
    return loss, slope


def deformable_attention(
    value: Array, level_hw: list[tuple[int, int]], locations: Array, weights: Array, grad: Array
) -> tuple[Array, Array, Array, Array]:
    """Return the output and the gradients in value, locations and weights for ``grad``."""
    batch, _, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    output = np.zeros((batch, queries, heads * channels))
    grad_value, grad_weights = np.zeros(value.shape), np.zeros(weights.shape)
    grad_locations = np.zeros(locations.shape)
    for b, q, h in np.ndindex(batch, queries, heads):
        start = 0
        for level, (height, width) in enumerate(level_hw):
            for point in range(points):
                place = b, q, h, level, point
                x = locations[place][0] * width - 0.5
                y = locations[place][1] * height - 0.5
                for row, column, share, slope_y, slope_x in zero_padded_corners(
                    y, x, height, width
                ):
                    cell = start + row * width + column
                    for c in range(channels):
                        flow = grad[b, q, h * channels + c]
                        content = value[b, cell, h, c]
                        output[b, q, h * channels + c] += weights[place] * share * content
                        grad_value[b, cell, h, c] += flow * weights[place] * share
                        grad_weights[place] += flow * share * content
                        common = flow * weights[place] * content
                        grad_locations[place][0] += common * slope_x * width
                        grad_locations[place][1] += common * slope_y * height
            start += height * width
    return output, grad_value, grad_locations, grad_weights


def modulated_deform_conv(
    images: Array,
    offset: Array,
    mask: Array,
    weight: Array,
    bias: Array,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    deform_groups: int,
    grad: Array,
) -> tuple[Array, dict[str, Array]]:
    """Return the output and the gradient in each input for ``grad``."""
    batch, channels, height, width = images.shape
    filters, per_group, kernel_h, kernel_w = weight.shape
    out_h, out_w = offset.shape[2:]
    output = np.zeros((batch, filters, out_h, out_w))
    grads = {
        "images": np.zeros(images.shape),
        "offset": np.zeros(offset.shape),
        "mask": np.zeros(mask.shape),
        "weight": np.zeros(weight.shape),
        "bias": grad.sum(axis=(0, 2, 3)),
    }
    for b, o, i, j in np.ndindex(batch, filters, out_h, out_w):
        output[b, o, i, j] = bias[o]
        flow = grad[b, o, i, j]
        for local in range(per_group):
            c = o // (filters // groups) * per_group + local
            d = c // (channels // deform_groups)
            for ky, kx in np.ndindex(kernel_h, kernel_w):
                tap = ky * kernel_w + kx
                at_mask = b, d * kernel_h * kernel_w + tap, i, j
                at_y = b, 2 * (d * kernel_h * kernel_w + tap), i, j
                at_x = b, 2 * (d * kernel_h * kernel_w + tap) + 1, i, j
                y = i * stride[0] - padding[0] + ky * dilation[0] + offset[at_y]
                x = j * stride[1] - padding[1] + kx * dilation[1] + offset[at_x]
                kernel = weight[o, local, ky, kx]
                for row, column, share, slope_y, slope_x in zero_padded_corners(
                    y, x, height, width
                ):
                    content = images[b, c, row, column]
                    output[b, o, i, j] += kernel * mask[at_mask] * share * content
                    grads["images"][b, c, row, column] += flow * kernel * mask[at_mask] * share
                    grads["weight"][o, local, ky, kx] += flow * mask[at_mask] * share * content
                    grads["mask"][at_mask] += flow * kernel * share * content
                    common = flow * kernel * mask[at_mask] * content
                    grads["offset"][at_y] += common * slope_y
                    grads["offset"][at_x] += common * slope_x
    return output, grads
