"""RoIAlign (https://arxiv.org/abs/1703.06870) in plain torch, forward and backward.

The mean of bilinear samples on a grid is separable: a bin is a weighted sum of the rows of the box's own
window, then of its columns. So one box costs two small matrix products on a view of the map, no sample is
ever gathered, and the only memory beside input and output is one channels-last copy of the map.

Letters: B images; C channels; H, W map; K boxes; P, Q output rows and columns; S samples a bin and axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from swin_dense.errors import UserError
from swin_dense.ops._threads import one_thread

PoolMode = Literal["avg", "max"]


@dataclass(frozen=True)
class RoISampling:
    """How boxes are laid over a map: everything RoIAlign needs beside the map.

    Attributes:
        output_hw: bins of each box, (P, Q).
        spatial_scale: cells of the map per pixel of the boxes.
        sampling_ratio: samples a bin and axis; 0 takes as many as the bin has cells, rounded up.
        aligned: whether pixel centres lie at half-integers, so that boxes are shifted by half a cell.
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
        aligned: shift boxes by half a cell (right since detectron2); False also makes each box at least one
            cell large, as the first implementations did.
        pool_mode: "avg", or "max" of the samples.

    Raises:
        UserError: the shapes do not fit, or an image index is out of range.
    """
    output_hw = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    _check(features, rois, output_hw, pool_mode)
    sampling = RoISampling(output_hw, float(spatial_scale), int(sampling_ratio), bool(aligned))
    if pool_mode == "avg" and features.device.type != "cpu" and torchvision_agrees(features.device):
        from torchvision.ops import roi_align as torchvision_roi_align

        return torchvision_roi_align(
            features, rois.to(features.dtype), output_hw, spatial_scale, sampling_ratio, aligned
        )
    pooled: Tensor = _RoIAlign.apply(features, rois, sampling, pool_mode)
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
        pooled, argmax_y, argmax_x = max_forward(features, rois, sampling)
        ctx.save_for_backward(rois, argmax_y, argmax_x)
        return pooled

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if ctx.pool_mode == "avg":
            (rois,) = ctx.saved_tensors
            return average_backward(grad, rois, ctx.shape, ctx.sampling), None, None, None
        return max_backward(grad, *ctx.saved_tensors, ctx.shape), None, None, None


def average_forward(features: Tensor, rois: Tensor, sampling: RoISampling) -> Tensor:
    """Return (K, C, P, Q) means of bilinear samples; see :func:`roi_align`."""
    rows_out, columns_out = sampling.output_hw
    channels = features.shape[1]
    dtype = _work_dtype(features)
    with torch.autocast(features.device.type, enabled=False):
        maps = features.to(dtype).permute(0, 2, 3, 1).contiguous()  # (B, C, H, W) -> (B, H, W, C)
        row_weights, column_weights, boxes = _windows(rois, features.shape, sampling, dtype)
        pooled = maps.new_empty(len(rois), rows_out, columns_out, channels)
        with one_thread():
            for k, (image, top, bottom, left, right) in enumerate(boxes):
                window = maps[image, top:bottom, left:right].flatten(1)  # (h, w * C), a view
                rows = row_weights[k, :, : bottom - top] @ window  # (P, w * C)
                columns = column_weights[k, :, : right - left]
                torch.matmul(columns, rows.view(rows_out, right - left, channels), out=pooled[k])
    return pooled.permute(0, 3, 1, 2).to(features.dtype)  # (K, P, Q, C) -> (K, C, P, Q)


def average_backward(
    grad: Tensor, rois: Tensor, shape: torch.Size, sampling: RoISampling
) -> Tensor:
    """Return the gradient (B, C, H, W) of :func:`average_forward` for ``grad`` (K, C, P, Q)."""
    rows_out = sampling.output_hw[0]
    batch, channels, height, width = shape
    dtype = _work_dtype(grad)
    with torch.autocast(grad.device.type, enabled=False):
        bins = grad.to(dtype).permute(0, 2, 3, 1).contiguous()  # (K, C, P, Q) -> (K, P, Q, C)
        row_weights, column_weights, boxes = _windows(rois, shape, sampling, dtype)
        column_weights = column_weights.transpose(1, 2)
        row_weights = row_weights.transpose(1, 2)
        grad_maps = bins.new_zeros(batch, height, width, channels)
        with one_thread():
            for k, (image, top, bottom, left, right) in enumerate(boxes):
                rows = torch.matmul(column_weights[k, : right - left], bins[k])  # (P, w, C)
                window = grad_maps[image, top:bottom, left:right].flatten(1)  # (h, w * C), a view
                window.addmm_(row_weights[k, : bottom - top], rows.view(rows_out, -1))
    return grad_maps.permute(0, 3, 1, 2).to(grad.dtype)  # (B, H, W, C) -> (B, C, H, W)


def max_forward(
    features: Tensor, rois: Tensor, sampling: RoISampling
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (K, C, P, Q) maxima of bilinear samples, and the row and column they were sampled at.

    Where a bin has no sample the value is 0 and the position -1.
    """
    rows_out, columns_out = sampling.output_hw
    channels, height, width = features.shape[1:]
    dtype = _work_dtype(features)
    ys, xs = _sample_positions(rois, sampling)
    pooled = features.new_zeros(len(rois), channels, rows_out, columns_out, dtype=dtype)
    argmax_y, argmax_x = torch.full_like(pooled, -1.0), torch.full_like(pooled, -1.0)
    for k, image in enumerate(rois[:, 0].long().tolist()):
        y, x = ys[k], xs[k]  # (P, S), (Q, S), NaN beyond the box's own count
        y, x = y[:, ~y[0].isnan()], x[:, ~x[0].isnan()]
        if not y.numel() or not x.numel():
            continue
        weights_y = _axis_weights(y.reshape(1, -1, 1), height, dtype)[0]
        weights_x = _axis_weights(x.reshape(1, -1, 1), width, dtype)[0]
        with torch.autocast(features.device.type, enabled=False):
            samples = weights_y @ features[image].to(dtype) @ weights_x.t()  # (C, P * S, Q * S)
        samples = samples.view(channels, rows_out, y.shape[1], columns_out, x.shape[1])
        pooled[k], where = samples.transpose(2, 3).flatten(3).max(dim=-1)
        bins_y, bins_x = torch.meshgrid(
            torch.arange(rows_out, device=y.device),
            torch.arange(columns_out, device=y.device),
            indexing="ij",
        )
        argmax_y[k] = y[bins_y, where // x.shape[1]].to(dtype)
        argmax_x[k] = x[bins_x, where % x.shape[1]].to(dtype)
    return pooled.to(features.dtype), argmax_y, argmax_x


def max_backward(
    grad: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, shape: torch.Size
) -> Tensor:
    """Return the gradient (B, C, H, W) of :func:`max_forward` for ``grad`` (K, C, P, Q)."""
    batch, channels, height, width = shape
    dtype = _work_dtype(grad)
    grad_maps = grad.new_zeros(batch * channels, height * width, dtype=dtype)
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(
        channels, device=grad.device
    )  # (K, C)
    plane = plane[:, :, None, None].expand(grad.shape)
    (y0, y1, fy, inside_y), (x0, x1, fx, inside_x) = (
        _corners(argmax_y.to(dtype), height),
        _corners(argmax_x.to(dtype), width),
    )
    flow = grad.to(dtype) * (inside_y & inside_x & (argmax_y > -1) & (argmax_x > -1))
    for y, weight_y in ((y0, 1 - fy), (y1, fy)):
        for x, weight_x in ((x0, 1 - fx), (x1, fx)):
            grad_maps.index_put_(
                (plane, y * width + x), flow * weight_y * weight_x, accumulate=True
            )
    return grad_maps.view(shape).to(grad.dtype)


def _windows(
    rois: Tensor, shape: torch.Size, sampling: RoISampling, dtype: torch.dtype
) -> tuple[Tensor, Tensor, list[list[int]]]:
    """Return row weights (K, P, h), column weights (K, Q, w), and each box's image and window.

    h and w are those of the largest window; a box's own weights stand in front. The windows are
    ``[image, top, bottom, left, right]``, the last excluded.
    """
    height, width = shape[2:]
    positions = _sample_positions(rois, sampling)
    rows, top, bottom = _axis_window(positions[0], height, dtype)
    columns, left, right = _axis_window(positions[1], width, dtype)
    boxes = torch.stack([rois[:, 0].long(), top, bottom, left, right], dim=1).tolist()
    return rows, columns, boxes


def _axis_window(
    positions: Tensor, length: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights (K, P, h) of the cells that samples at (K, P, S) touch, and the window's bounds (K,)."""
    low, high, fraction, inside = _corners(positions, length)
    counts = (~positions.isnan()).sum(dim=2, keepdim=True).clamp(min=1)
    start = torch.where(inside, low, length).flatten(1).amin(dim=1).clamp(max=length - 1)
    stop = torch.where(inside, high, -1).flatten(1).amax(dim=1).maximum(start) + 1
    scale = inside / counts
    weights = positions.new_zeros(
        *positions.shape[:2], int((stop - start).max()) if len(start) else 1
    )
    for index, share in ((low, (1 - fraction) * scale), (high, fraction * scale)):
        own = (index - start[:, None, None]).clamp(0, weights.shape[2] - 1)
        weights.scatter_add_(2, own, share.nan_to_num(0.0))
    return weights.to(dtype), start, stop


def _axis_weights(positions: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Return dense interpolation weights (K, P, length) of samples at (K, P, 1)."""
    low, high, fraction, inside = _corners(positions, length)
    weights = positions.new_zeros(*positions.shape[:2], length)
    weights.scatter_add_(2, low, (1 - fraction) * inside)
    weights.scatter_add_(2, high, fraction * inside)
    return weights.to(dtype)


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
    """Return the samples' rows (K, P, S) and columns (K, Q, S) in cells, NaN beyond a box's own count."""
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


def _check(features: Tensor, rois: Tensor, output_hw: tuple[int, ...], pool_mode: str) -> None:
    if features.dim() != 4 or rois.dim() != 2 or rois.shape[1] != 5:
        raise UserError(
            f"RoIAlign got features of shape {tuple(features.shape)} and rois of {tuple(rois.shape)}; "
            "expected (B, C, H, W) and (K, 5) with the image index first."
        )
    if len(output_hw) != 2 or min(output_hw) < 1 or pool_mode not in ("avg", "max"):
        raise UserError(
            f"RoIAlign got output_size={output_hw} and pool_mode={pool_mode!r}; expected two positive "
            "numbers and 'avg' or 'max'."
        )
    if len(rois) and not 0 <= int(rois[:, 0].min()) <= int(rois[:, 0].max()) < len(features):
        raise UserError(
            f"RoIAlign got image indices from {int(rois[:, 0].min())} to {int(rois[:, 0].max())} for "
            f"{len(features)} images; expected 0 to {len(features) - 1} in the first column of rois."
        )


@cache
def torchvision_agrees(device: torch.device) -> bool:
    """Whether torchvision is there, runs on ``device``, and gives our values."""
    try:
        from torchvision.ops import roi_align as torchvision_roi_align

        generator = torch.Generator().manual_seed(0)
        features = torch.randn(1, 2, 9, 11, generator=generator).to(device)
        rois = torch.tensor([[0, 1.3, 2.1, 17.0, 12.4], [0, -3.0, 4.0, 9.0, 30.0]]).to(device)
        theirs = torchvision_roi_align(features, rois, (3, 3), 0.5, 0, True)
        ours = average_forward(features, rois, RoISampling((3, 3), 0.5, 0, True))
        return torch.allclose(theirs, ours, atol=1e-4)
    except (ImportError, RuntimeError, NotImplementedError):
        return False
