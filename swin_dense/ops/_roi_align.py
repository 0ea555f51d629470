"""RoIAlign (https://arxiv.org/abs/1703.06870) in plain torch, forward and backward.

The mean of bilinear samples on a grid is separable: a bin is a weighted sum of the rows of the
box's own window, then of its columns. So one box costs two small matrix products on a view of the
map, no sample is ever gathered, and the only memory beside input and output is one channels-last
copy of the map.

Letters: B images; C channels; H, W map; K boxes; P, Q output rows and columns; S samples a bin and
axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from swin_dense.errors import UserError
from swin_dense.ops._products import many_small_products
from swin_dense.ops._rois import as_output_hw, check_rois
from swin_dense.ops._threads import one_thread
from swin_dense.ops._torchvision import Operation, agreed_op

PoolMode = Literal["avg", "max"]

_PADDED_SAMPLES = 2**17
"""Samples along an axis that the boxes of one group are padded to, all together."""


@dataclass(frozen=True)
class RoISampling:
    """How boxes are laid over a map: everything RoIAlign needs beside the map.

    Attributes:
        output_hw: bins of each box, (P, Q).
        spatial_scale: cells of the map per pixel of the boxes.
        sampling_ratio: samples a bin and axis; 0 takes as many as the bin has cells, rounded up.
        aligned: whether pixel centres lie at half-integers; boxes are then shifted by half a cell.
    """

    output_hw: tuple[int, int]
    spatial_scale: float
    sampling_ratio: int = 0
    aligned: bool = True


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
    *,
    pool_mode: PoolMode = "avg",
) -> Tensor:
    """Pool each box to a fixed grid of bins: (K, C, P, Q), differentiable in ``features``.

    Args:
        features: (B, C, H, W), any floating type.
        rois: (K, 5): image index, then x1, y1, x2, y2 in pixels of the input image.
        output_size: (P, Q), or one number for both.
        spatial_scale: cells of the map per pixel, 1 / stride.
        sampling_ratio: samples per bin and axis; 0 takes ``ceil(box side / bins)``.
        aligned: shift boxes by half a cell (right since detectron2); False also makes each box at
            least one cell large, as the first implementations did.
        pool_mode: "avg", or "max" of the samples; the first of equal samples gets the gradient.

    A bin without samples, of a box without area, is 0.

    Raises:
        UserError: the shapes do not fit, an image index is out of range, or a box is not finite.
    """
    output_hw = as_output_hw("RoIAlign", output_size)
    check_rois("RoIAlign", features, rois)
    if pool_mode not in ("avg", "max"):
        raise UserError(f"RoIAlign got pool_mode={pool_mode!r}; expected 'avg' or 'max'.")
    sampling = RoISampling(output_hw, float(spatial_scale), int(sampling_ratio), bool(aligned))
    theirs = _torchvision_for(features) if pool_mode == "avg" else None
    if theirs is not None:
        return _call_torchvision(theirs, features, rois, sampling)
    pooled: Tensor = _RoIAlign.apply(  # type: ignore[no-untyped-call,unused-ignore]
        features, rois, sampling, pool_mode
    )
    return pooled


class _RoIAlign(torch.autograd.Function):
    """Ties the forward and backward functions below together."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, rois: Tensor, sampling: RoISampling, pool_mode: str
    ) -> Tensor:
        ctx.sampling, ctx.pool_mode, ctx.shape = sampling, pool_mode, features.shape
        if pool_mode == "avg":
            ctx.save_for_backward(rois)
            return average_forward(features, rois, sampling)
        pooled, best_y, best_x = max_forward(features, rois, sampling)
        ctx.save_for_backward(rois, best_y, best_x)
        return pooled

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.pool_mode == "avg":
            (rois,) = ctx.saved_tensors
            return average_backward(grad, rois, ctx.shape, ctx.sampling), None, None, None
        rois, best_y, best_x = ctx.saved_tensors
        grad_features = max_backward(grad, rois, best_y, best_x, ctx.shape, ctx.sampling)
        return grad_features, None, None, None


def average_forward(features: Tensor, rois: Tensor, sampling: RoISampling) -> Tensor:
    """Return (K, C, P, Q) means of bilinear samples; see :func:`roi_align`."""
    rows_out, columns_out = sampling.output_hw
    channels = features.shape[1]
    dtype = _work_dtype(features)
    with torch.autocast(features.device.type, enabled=False):
        maps = features.to(dtype).permute(0, 2, 3, 1).contiguous()  # (B, C, H, W) -> (B, H, W, C)
        pooled = maps.new_empty(len(rois), rows_out, columns_out, channels)
        with many_small_products():
            for k, row_weights, column_weights, (image, top, bottom, left, right) in _windows(
                rois, features.shape, sampling, dtype
            ):
                window = maps[image, top:bottom, left:right].flatten(1)  # (h, w * C), a view
                rows = row_weights @ window  # (P, w * C)
                by_column = rows.view(rows_out, right - left, channels)
                torch.matmul(column_weights, by_column, out=pooled[k])
    # (K, P, Q, C) -> (K, C, P, Q)
    return pooled.permute(0, 3, 1, 2).to(features.dtype).contiguous()


def average_backward(
    grad: Tensor, rois: Tensor, shape: torch.Size, sampling: RoISampling
) -> Tensor:
    """Return the gradient (B, C, H, W) of :func:`average_forward` for ``grad`` (K, C, P, Q)."""
    rows_out = sampling.output_hw[0]
    batch, channels, height, width = shape
    dtype = _work_dtype(grad)
    with torch.autocast(grad.device.type, enabled=False):
        bins = grad.to(dtype).permute(0, 2, 3, 1).contiguous()  # (K, C, P, Q) -> (K, P, Q, C)
        grad_maps = bins.new_zeros(batch, height, width, channels)
        with many_small_products():
            for k, row_weights, column_weights, (image, top, bottom, left, right) in _windows(
                rois, shape, sampling, dtype
            ):
                rows = torch.matmul(column_weights.t(), bins[k])  # (P, w, C)
                window = grad_maps[image, top:bottom, left:right].flatten(1)  # (h, w * C), a view
                window.addmm_(row_weights.t(), rows.view(rows_out, -1))
    return grad_maps.permute(0, 3, 1, 2).to(grad.dtype)  # (B, H, W, C) -> (B, C, H, W)


def max_forward(
    features: Tensor, rois: Tensor, sampling: RoISampling
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (K, C, P, Q) maxima of bilinear samples, and which row and column of its bin each is.

    They count from 0; where a bin has no sample the value is 0 and they are -1.
    """
    rows_out, columns_out = sampling.output_hw
    channels = features.shape[1]
    dtype = _work_dtype(features)
    ys, xs = _sample_positions(rois, sampling)
    pooled = features.new_zeros(len(rois), channels, rows_out, columns_out, dtype=dtype)
    best_y = torch.full(pooled.shape, -1, dtype=torch.int64, device=features.device)
    best_x = best_y.clone()
    with one_thread():
        for k, image in enumerate(rois[:, 0].long().tolist()):
            y, x = ys[k], xs[k]  # (P, S), (Q, S), NaN beyond the box's own count
            y, x = y[:, ~y[0].isnan()], x[:, ~x[0].isnan()]
            if not y.numel() or not x.numel():
                continue
            # element by element, since a matrix product may round equal samples apart
            samples = _interpolate(features[image].to(dtype), y.flatten(), dim=1)
            samples = _interpolate(samples, x.flatten(), dim=2)  # (C, P * S, Q * S)
            samples = samples.view(channels, rows_out, y.shape[1], columns_out, x.shape[1])
            pooled[k], where = samples.transpose(2, 3).flatten(3).max(dim=-1)
            best_y[k], best_x[k] = where // x.shape[1], where % x.shape[1]
    return pooled.to(features.dtype), best_y, best_x


def max_backward(
    grad: Tensor,
    rois: Tensor,
    best_y: Tensor,
    best_x: Tensor,
    shape: torch.Size,
    sampling: RoISampling,
) -> Tensor:
    """Return the gradient (B, C, H, W) of :func:`max_forward` for ``grad`` (K, C, P, Q)."""
    batch, channels, height, width = shape
    dtype = _work_dtype(grad)
    grad_maps = grad.new_zeros(batch * channels, height * width, dtype=dtype)
    ys, xs = _sample_positions(rois, sampling)
    if not ys.numel() or not xs.numel():
        return grad_maps.view(shape).to(grad.dtype)
    planes = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=grad.device)
    planes = planes[:, :, None, None].expand(grad.shape)
    box = torch.arange(len(rois), device=grad.device)[:, None, None, None]
    row = torch.arange(sampling.output_hw[0], device=grad.device)[:, None]
    column = torch.arange(sampling.output_hw[1], device=grad.device)
    y0, y1, fy, inside_y = _corners(ys[box, row, best_y.long().clamp(min=0)], height)
    x0, x1, fx, inside_x = _corners(xs[box, column, best_x.long().clamp(min=0)], width)
    flow = grad.to(dtype) * (inside_y & inside_x & (best_y >= 0))
    for y, weight_y in ((y0, 1 - fy), (y1, fy)):
        for x, weight_x in ((x0, 1 - fx), (x1, fx)):
            share = flow * (weight_y * weight_x).to(dtype)
            grad_maps = grad_maps.index_put((planes, y * width + x), share, accumulate=True)
    return grad_maps.view(shape).to(grad.dtype)


def _windows(
    rois: Tensor, shape: torch.Size, sampling: RoISampling, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor, Tensor, list[int]]]:
    """Yield each box's number, row weights (P, h), column weights (Q, w), and window.

    The window is ``[image, top, bottom, left, right]``, the last excluded.
    """
    height, width = shape[2:]
    for members in _of_similar_size(rois, sampling):
        group = rois[members]
        positions = _sample_positions(group, sampling)
        rows, top, bottom = _axis_window(positions[0], height, dtype)
        columns, left, right = _axis_window(positions[1], width, dtype)
        boxes = torch.stack([group[:, 0].long(), top, bottom, left, right], dim=1).tolist()
        for own, k in enumerate(members.tolist()):
            _, first_row, last_row, first_column, last_column = boxes[own]
            own_rows = rows[own, :, : last_row - first_row]
            yield k, own_rows, columns[own, :, : last_column - first_column], boxes[own]


def _of_similar_size(rois: Tensor, sampling: RoISampling) -> list[Tensor]:
    """Split boxes (K, 5), as index tensors, so that one giant does not pad all others' samples."""
    everyone = torch.arange(len(rois), device=rois.device)
    sides = (rois[:, 3:] - rois[:, 1:3]).float().amax(dim=1).clamp(min=0)
    samples = (sides * sampling.spatial_scale / min(sampling.output_hw)).ceil().clamp(min=1)
    if sampling.sampling_ratio > 0 or not len(rois):
        return [everyone]
    if float(samples.max()) * len(rois) <= _PADDED_SAMPLES:
        return [everyone]
    groups: list[list[int]] = [[]]
    order = samples.argsort()
    for k, count in zip(order.tolist(), samples[order].tolist(), strict=True):
        if groups[-1] and count * (len(groups[-1]) + 1) > _PADDED_SAMPLES:
            groups.append([])
        groups[-1].append(k)
    return [everyone[group] for group in groups]


def _axis_window(
    positions: Tensor, length: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights (K, P, h) of the cells that samples at (K, P, S) touch, and bounds (K,)."""
    if positions.shape[2] == 0:  # no box has any sample
        positions = positions.new_full((*positions.shape[:2], 1), torch.nan)
    low, high, fraction, inside = _corners(positions, length)
    counts = (~positions.isnan()).sum(dim=2, keepdim=True).clamp(min=1)
    start = torch.where(inside, low, length).flatten(1).amin(dim=1).clamp(max=length - 1)
    stop = torch.where(inside, high, -1).flatten(1).amax(dim=1).maximum(start) + 1
    scale = inside / counts.to(positions.dtype)
    weights = positions.new_zeros(
        *positions.shape[:2], int((stop - start).max()) if len(start) else 1
    )
    for index, share in ((low, (1 - fraction) * scale), (high, fraction * scale)):
        own = (index - start[:, None, None]).clamp(0, weights.shape[2] - 1)
        weights.scatter_add_(2, own, share.nan_to_num(0.0))
    return weights.to(dtype), start, stop


def _interpolate(maps: Tensor, positions: Tensor, dim: int) -> Tensor:
    """Sample (C, h, w) linearly along ``dim`` at positions (S,)."""
    low, high, fraction, inside = _corners(positions, maps.shape[dim])
    shape = [-1 if axis == dim else 1 for axis in range(maps.dim())]
    share_low = ((1 - fraction) * inside).to(maps.dtype).view(shape)
    share_high = (fraction * inside).to(maps.dtype).view(shape)
    return maps.index_select(dim, low) * share_low + maps.index_select(dim, high) * share_high


def _corners(positions: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the two cells around each position, the share of the second, and whether it counts.

    A position more than one cell outside counts nothing; a nearer one is moved to the border.
    """
    inside = (positions >= -1) & (positions <= length)
    clamped = positions.nan_to_num(0.0).clamp(0, length - 1)
    low = clamped.floor().long()
    high = (low + 1).clamp(max=length - 1)
    return low, high, clamped - low, inside


def _sample_positions(rois: Tensor, sampling: RoISampling) -> tuple[Tensor, Tensor]:
    """Return the samples' rows (K, P, S) and columns (K, Q, S), NaN beyond a box's own count."""
    corners = rois[:, 1:].to(torch.promote_types(rois.dtype, torch.float32))
    corners = corners * sampling.spatial_scale - (0.5 if sampling.aligned else 0.0)
    axes = []
    for low, high, bins in (
        (corners[:, 1], corners[:, 3], sampling.output_hw[0]),
        (corners[:, 0], corners[:, 2], sampling.output_hw[1]),
    ):
        side = high - low if sampling.aligned else (high - low).clamp(min=1)
        bin_size = side / bins
        if sampling.sampling_ratio > 0:
            counts = torch.full_like(side, sampling.sampling_ratio)
        else:
            counts = bin_size.ceil().clamp(min=0)
        most = int(counts.max()) if len(counts) else 0
        step = torch.arange(most, device=rois.device, dtype=corners.dtype)  # (S,)
        offsets = (step + 0.5) * (bin_size / counts)[:, None]  # (K, S)
        starts = low[:, None] + torch.arange(bins, device=rois.device) * bin_size[:, None]  # (K, P)
        positions = starts[:, :, None] + offsets[:, None, :]
        axes.append(positions.masked_fill((step >= counts[:, None])[:, None, :], torch.nan))
    return axes[0], axes[1]


def _work_dtype(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def average_backward_anywhere(
    grad: Tensor, rois: Tensor, shape: torch.Size, sampling: RoISampling
) -> Tensor:
    """:func:`average_backward`, or torchvision's where :func:`roi_align` takes torchvision."""
    theirs = _torchvision_for(grad)
    if theirs is None:
        return average_backward(grad, rois, shape, sampling)
    return _torchvision_gradient(theirs, grad, rois, shape, sampling)


def _torchvision_for(features: Tensor) -> Operation | None:
    return agreed_op("roi_align", features.device, _pools_the_same)


def _call_torchvision(
    theirs: Operation, features: Tensor, rois: Tensor, sampling: RoISampling
) -> Tensor:
    """Call torchvision in at least float32; it wants one type, and boxes in half miss by pixels."""
    dtype = _work_dtype(features)
    pooled: Tensor = theirs(
        features.to(dtype),
        rois.to(dtype),
        sampling.output_hw,
        sampling.spatial_scale,
        sampling.sampling_ratio,
        sampling.aligned,
    )
    return pooled.to(features.dtype)


def _torchvision_gradient(
    theirs: Operation, grad: Tensor, rois: Tensor, shape: torch.Size, sampling: RoISampling
) -> Tensor:
    with torch.enable_grad():
        features = grad.new_zeros(shape).requires_grad_()
        pooled = _call_torchvision(theirs, features, rois, sampling)
        return torch.autograd.grad(pooled, features, grad)[0]


def _pools_the_same(theirs: Operation, device: torch.device) -> bool:
    """Whether ``theirs`` has our values and gradients in every setting that moves the samples."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 9, 11, generator=generator).to(device)
    grad = torch.randn(3, 3, 3, 2, generator=generator).to(device)
    rois = [[0, 1.3, 2.1, 17.0, 12.4], [1, -3.0, 4.0, 9.0, 30.0], [0, 5.0, 6.0, 5.5, 6.5]]
    boxes = torch.tensor(rois, device=device)
    for ratio, aligned in ((0, True), (2, True), (0, False), (2, False)):
        sampling = RoISampling((3, 2), 0.5, ratio, aligned)
        pairs = (
            (
                _call_torchvision(theirs, features, boxes, sampling),
                average_forward(features, boxes, sampling),
            ),
            (
                _torchvision_gradient(theirs, grad, boxes, features.shape, sampling),
                average_backward(grad, boxes, features.shape, sampling),
            ),
        )
        if not all(torch.allclose(first, second, atol=1e-4) for first, second in pairs):
            return False
    return True
