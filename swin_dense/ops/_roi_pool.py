"""RoIPool (https://arxiv.org/abs/1504.08083) in plain torch: the maximum of each bin's whole cells.

Letters: B images; C channels; H, W map; K boxes; P, Q output rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swin_dense.ops._rois import as_output_hw, check_rois
from swin_dense.ops._threads import one_thread


def roi_pool(
    features: Tensor, rois: Tensor, output_size: int | tuple[int, int], spatial_scale: float = 1.0
) -> Tensor:
    """Pool each box to a fixed grid of bins: (K, C, P, Q), differentiable in ``features``.

    A bin takes every cell it touches; its gradient flows to the first maximum, row by row.

    Args:
        features: (B, C, H, W).
        rois: (K, 5): image index, then x1, y1, x2, y2 in pixels, the last pixel included.
        output_size: (P, Q), or one number for both.
        spatial_scale: cells of the map per pixel, 1 / stride.

    Raises:
        UserError: the shapes do not fit, an image index is out of range, or a box is not finite.
    """
    output_hw = as_output_hw("RoIPool", output_size)
    check_rois("RoIPool", features, rois)
    with torch.no_grad():
        _, argmax = roi_pool_forward(features, rois, output_hw, spatial_scale)
    # each bin reads the cell that won, so autograd does the rest
    cells = features.shape[2] * features.shape[3]
    winners = _planes(rois, features.shape[1], argmax.shape) * cells + argmax.clamp(min=0)
    return features.reshape(-1)[winners].masked_fill(argmax < 0, 0.0)


def roi_pool_forward(
    features: Tensor, rois: Tensor, output_hw: tuple[int, int], spatial_scale: float
) -> tuple[Tensor, Tensor]:
    """Return maxima (K, C, P, Q) and the flat cell ``y * W + x`` of each, -1 for an empty bin."""
    height, width = features.shape[2:]
    channels = features.shape[1]
    pooled = features.new_zeros(len(rois), channels, *output_hw)
    argmax = torch.full(pooled.shape, -1, dtype=torch.int64, device=features.device)
    corners = rois[:, 1:].to(torch.promote_types(rois.dtype, torch.float32))
    low, high = corners[:, :2] * spatial_scale, (corners[:, 2:] + 1) * spatial_scale
    proper = (high > low).all(dim=1).tolist()
    all_rows = _bin_cells(low[:, 1], high[:, 1], output_hw[0], height)
    all_columns = _bin_cells(low[:, 0], high[:, 0], output_hw[1], width)
    with one_thread():
        for k, image in enumerate(rois[:, 0].long().tolist()):
            if not proper[k]:
                continue
            rows, columns = _trimmed(all_rows[k]), _trimmed(all_columns[k])
            # cell indices of every bin, (P, h, Q, w), -1 where it has fewer than the largest
            cells = rows[:, :, None, None] * width + columns[None, None]
            cells = cells.masked_fill((rows < 0)[:, :, None, None] | (columns < 0)[None, None], -1)
            cells = cells.transpose(1, 2).flatten(2)  # (P, Q, h * w)
            if cells.shape[2] == 0:
                continue
            values = features[image].flatten(1)[:, cells.clamp(min=0)]  # (C, P, Q, h * w)
            best, where = values.masked_fill(cells < 0, -torch.inf).max(dim=-1)
            filled = (cells >= 0).any(dim=-1)
            pooled[k] = best.masked_fill(~filled, 0.0)
            winners = cells.expand(channels, *cells.shape).gather(-1, where[..., None]).squeeze(-1)
            argmax[k] = winners.masked_fill(~filled, -1)
    return pooled, argmax


def roi_pool_backward(grad: Tensor, rois: Tensor, argmax: Tensor, shape: torch.Size) -> Tensor:
    """Return the gradient (B, C, H, W) for ``grad`` (K, C, P, Q): it flows to the winning cells."""
    batch, channels, height, width = shape
    dtype = torch.promote_types(grad.dtype, torch.float32)
    grad_planes = grad.new_zeros(batch * channels, height * width, dtype=dtype)
    flow = grad.to(dtype).masked_fill(argmax < 0, 0.0)
    cells = argmax.long().clamp(min=0)
    grad_planes.index_put_((_planes(rois, channels, grad.shape), cells), flow, accumulate=True)
    return grad_planes.view(shape).to(grad.dtype)


def _planes(rois: Tensor, channels: int, shape: torch.Size) -> Tensor:
    """Return ``image * C + channel`` of every output value, expanded to ``shape`` (K, C, P, Q)."""
    planes = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    return planes[:, :, None, None].expand(shape)


def _bin_cells(low: Tensor, high: Tensor, bins: int, length: int) -> Tensor:
    """Return the cells of each bin along one axis, (K, bins, most), -1 where a bin has fewer."""
    size = ((high - low) / bins)[:, None]
    index = torch.arange(bins, device=low.device)
    start = (index * size + low[:, None]).floor().clamp(0, length).long()
    stop = ((index + 1) * size + low[:, None]).ceil().clamp(0, length).long()
    most = max(int((stop - start).max()), 0) if len(low) else 0
    cells = start[:, :, None] + torch.arange(most, device=low.device)
    return cells.masked_fill(cells >= stop[:, :, None], -1)


def _trimmed(cells: Tensor) -> Tensor:
    """Drop the trailing places (bins, most) that no bin of this box fills."""
    return cells[:, : int((cells >= 0).sum(dim=1).max())]
