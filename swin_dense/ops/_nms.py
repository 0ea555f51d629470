"""Non-maximum suppression of axis-aligned boxes, greedy and soft, in plain torch.

Boxes are (N, 4) as x1, y1, x2, y2 in pixels. ``offset`` is what a side adds to ``x2 - x1``: 0, or 1
for boxes that count their last pixel. Sources: the greedy rule of R-CNN; Soft-NMS
(https://arxiv.org/abs/1704.04503).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from swin_dense.errors import UserError
from swin_dense.ops._threads import one_thread
from swin_dense.ops._torchvision import Operation, agreed_op

_BLOCK = 128
_RUN = 512
SoftMethod = Literal["naive", "linear", "gaussian"]


def nms(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float, *, offset: int = 0) -> Tensor:
    """Return the indices (K,) int64 of the boxes that survive, by falling score.

    A box is suppressed by a kept box of higher score (or equal score and lower index) where their
    IoU is above ``iou_threshold``.

    Args:
        boxes_xyxy: (N, 4) in pixels.
        scores: (N,).
        iou_threshold: 0 to 1.
        offset: 0 or 1, see the module.

    Raises:
        UserError: the shapes do not fit.
    """
    _check(boxes_xyxy, scores)
    if boxes_xyxy.shape[0] == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes_xyxy.device)
    theirs = agreed_op("nms", boxes_xyxy.device, _keeps_the_same) if offset == 0 else None
    if theirs is not None:
        dtype = _work_dtype(boxes_xyxy, scores)
        return theirs(boxes_xyxy.to(dtype), scores.to(dtype), iou_threshold)
    with one_thread():
        return _blocked_nms(boxes_xyxy, scores, iou_threshold, offset)


def batched_nms(
    boxes_xyxy: Tensor, scores: Tensor, class_ids: Tensor, iou_threshold: float
) -> Tensor:
    """NMS within each class: indices (K,) int64 of the survivors of all classes, by falling score.

    Args:
        boxes_xyxy: (N, 4) in pixels.
        scores: (N,).
        class_ids: (N,) integers; boxes of different ids never meet.
        iou_threshold: 0 to 1.

    Raises:
        UserError: the shapes do not fit.
    """
    _check(boxes_xyxy, scores)
    if class_ids.shape != scores.shape:
        raise UserError(
            f"batched_nms got class_ids of shape {tuple(class_ids.shape)} for {len(scores)} boxes; "
            f"expected ({len(scores)},)."
        )
    kept = [torch.empty(0, dtype=torch.int64, device=boxes_xyxy.device)]
    for class_id in torch.unique(class_ids):
        members = (class_ids == class_id).nonzero().squeeze(1)
        kept.append(members[nms(boxes_xyxy[members], scores[members], iou_threshold)])
    survivors = torch.cat(kept).sort().values
    return survivors[scores[survivors].argsort(descending=True, stable=True)]


def soft_nms(
    boxes_xyxy: Tensor,
    scores: Tensor,
    *,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: SoftMethod = "linear",
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    """Lower the score of overlapping boxes instead of dropping them.

    Args:
        boxes_xyxy: (N, 4) in pixels.
        scores: (N,).
        iou_threshold: overlap from which "naive" and "linear" act.
        sigma: width of the "gaussian" decay.
        min_score: boxes whose score falls below it are dropped.
        method: "naive" zeroes, "linear" multiplies by ``1 - IoU``, "gaussian" by
            ``exp(-IoU^2 / sigma)``.
        offset: 0 or 1, see the module.

    Returns:
        (K, 5) boxes with their lowered score, in the order they were picked, and their indices
        (K,).

    Raises:
        UserError: the shapes do not fit, or an unknown method.
    """
    _check(boxes_xyxy, scores)
    if method not in ("naive", "linear", "gaussian"):
        raise UserError(
            f"soft_nms got method={method!r}; expected 'naive', 'linear' or 'gaussian'."
        )
    dtype = _work_dtype(boxes_xyxy, scores)
    boxes, left = boxes_xyxy.to(dtype), scores.detach().to(dtype, copy=True)
    areas = _areas(boxes, offset)
    picked, picked_scores = [], []
    with one_thread():
        while (best := int(left.nan_to_num(nan=-torch.inf).argmax()) if left.numel() else -1) >= 0:
            score = float(left[best])
            if not score > -torch.inf:
                break
            picked.append(best)
            picked_scores.append(score)
            left[best] = -torch.inf
            overlap = _iou(boxes[best : best + 1], boxes, areas[best : best + 1], areas, offset)[0]
            if method == "gaussian":
                # two boxes without area have no IoU: they leave each other alone
                decay = torch.exp(-overlap.nan_to_num(nan=0.0).square() / sigma)
            else:
                softened = 1 - overlap if method == "linear" else torch.zeros_like(overlap)
                decay = torch.where(overlap >= iou_threshold, softened, torch.ones_like(overlap))
            left = torch.where(left > -torch.inf, left * decay, left)
            left = torch.where(left < min_score, torch.full_like(left, -torch.inf), left)
    indices = torch.tensor(picked, dtype=torch.int64, device=boxes_xyxy.device)
    lowered = torch.tensor(picked_scores, dtype=dtype, device=boxes_xyxy.device)
    return torch.cat([boxes[indices], lowered[:, None]], dim=1).to(boxes_xyxy.dtype), indices


def nms_match(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float) -> list[Tensor]:
    """Return one index tensor for each surviving box: itself, then the boxes it suppressed."""
    _check(boxes_xyxy, scores)
    boxes = boxes_xyxy.to(_work_dtype(boxes_xyxy))
    order = scores.argsort(descending=True, stable=True)
    areas = _areas(boxes, 0)
    groups = []
    with one_thread():
        while order.numel():
            best, rest = order[:1], order[1:]
            overlap = _iou(boxes[best], boxes[rest], areas[best], areas[rest], 0)[0]
            groups.append(torch.cat([best, rest[overlap >= iou_threshold]]))
            order = rest[~(overlap >= iou_threshold)]
    return groups


def _blocked_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy NMS of each run of boxes apart; the hosts shift every class out of the others' way."""
    kept = [
        members[_greedy_nms(boxes[members], scores[members], iou_threshold, offset)]
        for members in _separate_runs(boxes, iou_threshold, offset)
    ]
    if len(kept) == 1:
        return kept[0]
    survivors = torch.cat(kept).sort().values
    return survivors[scores[survivors].argsort(descending=True, stable=True)]


def _separate_runs(boxes: Tensor, iou_threshold: float, offset: int) -> list[Tensor]:
    """Split the boxes where x leaves a gap that none reaches across, once in ``_RUN`` boxes.

    Returns the rising indices of each run. Boxes of different runs do not intersect: a gap is found
    with the arithmetic of ``_overlaps``, so that rounding cannot tell otherwise. It stays one run
    on an accelerator, which would wait for the answer, and below a threshold of 0, where boxes
    without overlap suppress each other too.
    """
    if len(boxes) < 2 * _RUN or iou_threshold < 0 or boxes.device.type != "cpu":
        return [torch.arange(len(boxes), device=boxes.device)]
    left, _, right, _ = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).unbind(dim=1)
    left, order = left.sort()
    reach = right[order].cummax(dim=0).values
    gaps = (reach[:-1] - left[1:] + offset <= 0).nonzero().squeeze(1) + 1
    chosen = gaps[torch.diff(gaps // _RUN, prepend=gaps.new_zeros(1)) > 0]
    return [run.sort().values for run in order.tensor_split(chosen)]


def _greedy_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy NMS a block of the best boxes at a time, so that memory stays at block x N."""
    order = scores.argsort(descending=True, stable=True)
    # coordinates as rows, so that each block of arithmetic runs along contiguous memory
    coordinates = boxes.to(_work_dtype(boxes))[order].t().contiguous()
    areas = (coordinates[2] - coordinates[0] + offset) * (coordinates[3] - coordinates[1] + offset)
    kept = []
    while order.numel():
        size = min(_BLOCK, order.numel())
        head, head_areas = coordinates[:, :size], areas[:size]
        overlaps = _overlaps(head, head, head_areas, head_areas, iou_threshold, offset)
        survivors = _resolve(overlaps.triu_(1))
        kept.append(order[:size][survivors])
        suppressed = _overlaps(
            head[:, survivors],
            coordinates[:, size:],
            head_areas[survivors],
            areas[size:],
            iou_threshold,
            offset,
        ).any(dim=0)
        rest = (~suppressed).nonzero().squeeze(1) + size
        order, coordinates, areas = order[rest], coordinates[:, rest], areas[rest]
    return torch.cat(kept)


def _resolve(suppresses: Tensor) -> Tensor:
    """Return which of n ranked boxes survive, given (n, n) "the earlier would suppress the later".

    Every round settles at least one more box from the top, so it ends, mostly after a few rounds.
    """
    weights = suppresses.to(torch.float32)
    survivors = torch.ones(len(suppresses), dtype=torch.bool, device=suppresses.device)
    while True:
        updated = (survivors.to(torch.float32) @ weights) == 0
        if torch.equal(updated, survivors):
            return survivors
        survivors = updated


def _overlaps(
    first: Tensor,
    second: Tensor,
    first_areas: Tensor,
    second_areas: Tensor,
    threshold: float,
    offset: int,
) -> Tensor:
    """Return (n, m) bool "IoU above threshold" for coordinate rows (4, n) and (4, m)."""
    width = torch.minimum(first[2, :, None], second[2]).sub_(
        torch.maximum(first[0, :, None], second[0])
    )
    height = torch.minimum(first[3, :, None], second[3]).sub_(
        torch.maximum(first[1, :, None], second[1])
    )
    intersection = width.add_(offset).clamp_(min=0).mul_(height.add_(offset).clamp_(min=0))
    union = (first_areas[:, None] + second_areas).sub_(intersection)
    return intersection.div_(union) > threshold


def _areas(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)


def _iou(
    first: Tensor, second: Tensor, first_areas: Tensor, second_areas: Tensor, offset: int
) -> Tensor:
    top_left = torch.maximum(first[:, None, :2], second[:, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[:, 2:])
    intersection = (bottom_right - top_left + offset).clamp(min=0).prod(dim=-1)
    return intersection / (first_areas[:, None] + second_areas - intersection)


def _check(boxes_xyxy: Tensor, scores: Tensor) -> None:
    if boxes_xyxy.dim() != 2 or boxes_xyxy.shape[1] != 4 or scores.shape != boxes_xyxy.shape[:1]:
        raise UserError(
            f"NMS got boxes of shape {tuple(boxes_xyxy.shape)} and scores of "
            f"{tuple(scores.shape)}; expected (N, 4) and (N,)."
        )


def _work_dtype(*values: Tensor) -> torch.dtype:
    dtype = torch.float32
    for value in values:
        dtype = torch.promote_types(dtype, value.dtype)
    return dtype


def _keeps_the_same(theirs: Operation, device: torch.device) -> bool:
    """Whether ``theirs`` keeps the boxes that we keep, in our order, scores tied or not."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(200, 2, 2, generator=generator).cumsum(dim=1).flatten(1).to(device)
    scores = torch.rand(200, generator=generator).to(device)
    tied = (scores * 8).floor() / 8
    return all(
        torch.equal(theirs(boxes, each, 0.5), _blocked_nms(boxes, each, 0.5, 0))
        for each in (scores, tied)
    )
