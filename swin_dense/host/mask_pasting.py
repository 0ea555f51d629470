"""Box-sized mask predictions as COCO run lengths of the whole picture, without its pixels.

What mmdet's ``FCNMaskHead`` pastes (https://arxiv.org/abs/1703.06870, appendix A), bit by bit: each
mask is sampled bilinearly at the pixels of its box's own window, in chunks, and the window's
changes are counted as runs of the whole picture. Nothing of the picture's size is kept.
Letters: N instances; K classes; h, w a mask as the head gives it; H, W the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from swin_dense.host.rle_masks import RleMasks

CHUNK_PX = 1 << 18
"""Pixels that are sampled at a time: 13 bytes each, so that they stay in the CPU's cache."""

DEVICE_CHUNK_PX = 1 << 22
"""The same on other devices, which like few and large operations."""

Window = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels; right and bottom exclusive."""


def install() -> None:
    """Let every mask head that inherits mmdet's ``FCNMaskHead`` predict :class:`RleMasks`."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import FCNMaskHead

    original = FCNMaskHead._predict_by_feat_single

    @wraps(original)
    def predict(
        self: Any,
        mask_preds: Any,
        bboxes: Tensor,
        labels: Tensor,
        img_meta: dict[str, Any],
        rcnn_test_cfg: Any,
        rescale: bool = False,
        activate_map: bool = False,
    ) -> Tensor:
        soft = rcnn_test_cfg.mask_thr_binary < 0  # shares of 255 instead of a mask
        tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if soft or tracing or torch.onnx.is_in_onnx_export():
            return original(
                self, mask_preds, bboxes, labels, img_meta, rcnn_test_cfg, rescale, activate_map
            )
        if activate_map:  # they are probabilities already
            shares = torch.as_tensor(mask_preds, dtype=bboxes.dtype, device=bboxes.device)
        else:
            shares = mask_preds.sigmoid()
        if not self.class_agnostic:
            shares = shares[range(len(shares)), labels][:, None]
        scale = bboxes.new_tensor(img_meta["scale_factor"])  # (2,) of width and height
        height, width = img_meta["ori_shape"][:2]
        if rescale:
            bboxes /= scale.repeat(2)  # in place: the caller's boxes become the photograph's
        else:
            height, width = (
                int(np.round(side * float(factor)))
                for side, factor in ((height, scale[1]), (width, scale[0]))
            )
        rles = paste(shares, bboxes, (height, width), rcnn_test_cfg.mask_thr_binary)
        return RleMasks(rles, (height, width), bboxes.device)

    FCNMaskHead._predict_by_feat_single = predict


def paste(
    shares: Tensor,
    boxes_xyxy: Tensor,
    image_hw: Sequence[int],
    threshold: float,
    *,
    tight: bool | None = None,
) -> list[dict[str, Any]]:
    """Return N compressed run lengths, those that pycocotools gives for mmdet's pasted masks.

    Needs 2 bytes for each pixel of one mask's window at a time, whatever N, and 13 for each of a
    chunk's.

    Args:
        shares: (N, 1, h, w) foreground probabilities.
        boxes_xyxy: (N, 4) in pixels of the picture; those outside it have empty masks.
        image_hw: H, W.
        threshold: the least probability that belongs to the instance, 0 or more.
        tight: mmdet looks no further than a pixel beyond the box on the CPU, and at the whole
            picture on other devices; None goes by the device.
    """
    if tight is None:
        tight = shares.device.type == "cpu"
    if boxes_xyxy.dtype == torch.float64:  # which mmdet refuses
        boxes_xyxy = boxes_xyxy.float()
    find = _tight_windows if tight else _reached_windows
    windows = find(shares, boxes_xyxy, image_hw, threshold)
    return [
        _to_rle(_runs(share, box, window, image_hw, threshold), image_hw)
        for share, box, window in zip(shares.float(), boxes_xyxy, windows, strict=True)
    ]


def _tight_windows(
    shares: Tensor, boxes_xyxy: Tensor, image_hw: Sequence[int], threshold: float
) -> list[Window]:
    """Return the boxes in whole pixels, with one more on each side, inside the picture."""
    limit = boxes_xyxy.new_tensor([image_hw[1], image_hw[0]])
    start = (boxes_xyxy[:, :2].floor() - 1).clamp(min=0)
    end = torch.minimum(boxes_xyxy[:, 2:].ceil() + 1, limit)
    edges = torch.cat([start, end], dim=1).nan_to_num(nan=0.0)
    return [tuple(row) for row in edges.int().tolist()]


def _reached_windows(
    shares: Tensor, boxes_xyxy: Tensor, image_hw: Sequence[int], threshold: float
) -> list[Window]:
    """Return windows outside which every sample is 0: half a cell of the mask beyond the box.

    A box without an area samples the mask's middle everywhere, and a threshold of 0 takes in every
    pixel: there it is the whole picture.
    """
    windows = []
    for left, top, right, bottom in boxes_xyxy.tolist():
        edges = []
        for start, end, cells, limit in (
            (left, right, shares.shape[-1], image_hw[1]),
            (top, bottom, shares.shape[-2], image_hw[0]),
        ):
            reach = (end - start) / (2 * cells) + 2
            bounded = threshold > 0 and end > start and np.isfinite([start, end]).all()
            edges.append(
                (max(int(np.floor(start - reach)), 0), min(int(np.ceil(end + reach)), limit))
                if bounded
                else (0, limit)
            )
        windows.append((edges[0][0], edges[1][0], edges[0][1], edges[1][1]))
    return windows


def _runs(
    share: Tensor, box_xyxy: Tensor, window: Window, image_hw: Sequence[int], threshold: float
) -> NDArray[np.int64]:
    """Return where the mask begins and ends, in turn, as pixels of the picture by columns.

    Args:
        share: (1, h, w) float32.
        box_xyxy: (4,).
        window: the pixels to look at.
        image_hw: H, W.
        threshold: as :func:`paste` takes it.
    """
    left, top, right, bottom = window
    width, height = right - left, bottom - top
    if width <= 0 or height <= 0:
        return np.zeros(0, np.int64)
    x1, y1, x2, y2 = box_xyxy[:, None]
    columns = _places(left, right, x1, x2)
    rows = _places(top, bottom, y1, y2)[None]
    # columns as long as the picture go on in the next one; shorter ones end in a pixel outside
    length = height if height == image_hw[0] else height + 1
    bits = torch.zeros(2 + width * length, dtype=torch.bool, device=share.device)
    inside = bits[1:-1].view(width, length)[:, :height]
    chunk = CHUNK_PX if share.device.type == "cpu" else DEVICE_CHUNK_PX
    step = max(1, chunk // height)
    for start in range(0, width, step):
        part = columns[start : start + step, None]
        shape = (len(part), height)
        grid = torch.stack([part.expand(shape), rows.expand(shape)], dim=-1)
        # (1, 1, h, w) at (1, columns, rows, 2) -> (columns, rows)
        sampled = F.grid_sample(share[None], grid[None], align_corners=False)[0, 0]
        inside[start : start + step] = sampled >= threshold
    found = _changes(bits)
    column, row = np.divmod(found, length)
    return (left + column) * image_hw[0] + top + row


def _changes(bits: Tensor) -> NDArray[np.int64]:
    if bits.device.type == "cpu":
        pixels = bits.numpy()
        return np.flatnonzero(pixels[1:] != pixels[:-1])
    return np.asarray((bits[1:] != bits[:-1]).nonzero()[:, 0].cpu().numpy())


def _places(start: int, end: int, low: Tensor, high: Tensor) -> Tensor:
    """Return where the pixels' centres lie inside the box, (P,) from -1 to 1.

    In the order of mmdet's operations, since their rounding decides at the threshold.
    """
    centres = torch.arange(start, end, device=low.device).to(torch.float32) + 0.5
    places = (centres - low) / (high - low) * 2 - 1
    return places.masked_fill(places.isinf(), 0)


def _to_rle(runs: NDArray[np.int64], image_hw: Sequence[int]) -> dict[str, Any]:
    """Return compressed run lengths from the pixels where the mask begins and ends, in turn."""
    height, width = map(int, image_hw)
    total = height * width
    ends = runs if len(runs) and runs[-1] == total else np.append(runs, total)
    counts = np.diff(ends, prepend=0)
    rle = coco_mask.frPyObjects(dict(counts=counts, size=[height, width]), height, width)
    return dict(rle)
