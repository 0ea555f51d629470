"""RoIPool (https://arxiv.org/abs/1504.08083) in plain torch: the maximum of each bin's whole cells.

Letters: B images; C channels; H, W map; K boxes; P, Q output rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swin_dense.errors import UserError


def roi_pool(
    features: Tensor, rois: Tensor, output_size: int | tuple[int, int], spatial_scale: float = 1.0
) -> Tensor:
    """Pool each box to a fixed grid of bins: (K, C, P, Q), differentiable in ``features``.

    Args:
        features: (B, C, H, W).
        rois: (K, 5): image index, then x1, y1, x2, y2 in pixels, the last pixel included.
        output_size: (P, Q), or one number for both.
        spatial_scale: cells of the map per pixel, 1 / stride.

    Raises:
        UserError: the shapes do not fit.
    """
    if features.dim() != 4 or rois.dim() != 2 or rois.shape[1] != 5:
        raise UserError(
            f"RoIPool got features of shape {tuple(features.shape)} and rois of {tuple(rois.shape)}; "
            "expected (B, C, H, W) and (K, 5) with the image index first."
        )
    output_hw = (output_size, output_size) if isinstance(output_size, int) else output_size
    with torch.no_grad():
        _, argmax = roi_pool_forward(features, rois, output_hw, spatial_scale)
    # (B, C, H, W) -> (K, C, H * W): each box reads the cells that won, so autograd does the rest
    planes = features.flatten(2)[rois[:, 0].long()]
    values = planes.gather(2, argmax.flatten(2).clamp(min=0)).view(argmax.shape)
    return values.masked_fill(argmax < 0, 0.0)


def roi_pool_forward(
    features: Tensor, rois: Tensor, output_hw: tuple[int, int], spatial_scale: float
) -> tuple[Tensor, Tensor]:
    """Return maxima (K, C, P, Q) and the flat cell ``y * W + x`` each came from, -1 for an empty bin."""
    height, width = features.shape[2:]
    channels = features.shape[1]
    pooled = features.new_zeros(len(rois), channels, *output_hw)
    argmax = torch.full(pooled.shape, -1, dtype=torch.int64, device=features.device)
    low, high = rois[:, 1:3].float() * spatial_scale, (rois[:, 3:5].float() + 1) * spatial_scale
    for k, image in enumerate(rois[:, 0].long().tolist()):
        if not bool((high[k] > low[k]).all()):
            continue
        rows = _bin_cells(
            float(low[k, 1]), float(high[k, 1]), output_hw[0], height, features.device
        )
        columns = _bin_cells(
            float(low[k, 0]), float(high[k, 0]), output_hw[1], width, features.device
        )
        # cell indices of every bin, (P, h, Q, w), -1 where a bin has fewer cells than the largest
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
    """Return the gradient (B, C, H, W) for ``grad`` (K, C, P, Q): it flows to the cells that won."""
    batch, channels, height, width = shape
    grad_planes = grad.new_zeros(batch * channels, height * width)
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=grad.device)
    flow = grad.masked_fill(argmax < 0, 0.0)
    cells = argmax.long().clamp(min=0)
    grad_planes.index_put_(
        (plane[:, :, None, None].expand(grad.shape), cells), flow, accumulate=True
    )
    return grad_planes.view(shape)


def _bin_cells(low: float, high: float, bins: int, length: int, device: torch.device) -> Tensor:
    """Return the cells of each bin along one axis, (bins, most cells of a bin), -1 where it has fewer."""
    size = torch.tensor((high - low) / bins, dtype=torch.float32)
    index = torch.arange(bins, dtype=torch.float32)
    start = (index * size + low).floor().long().clamp(0, length)
    stop = ((index + 1) * size + low).ceil().long().clamp(0, length)
    most = max(int((stop - start).max()), 0)
    cells = start[:, None] + torch.arange(most)
    return cells.masked_fill(cells >= stop[:, None], -1).to(device)
