"""Gradients of a convolution whose output has a gradient at few places only.

A region proposal network draws 256 anchors of some 70,000 for its loss, so all but one place in
two hundred have a gradient of exactly 0, and what is computed from them is 0 too. Here only the
others are: for each its inputs under the kernel are gathered, and one product gives the gradient.

Letters: B images; H, W map; C, O input and output channels; n places with a gradient, as rows of
B * H * W; k = kh * kw taps of the kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor


def places_with_gradient(grad: Tensor) -> Tensor:
    """Return which places of (B, O, H, W) hold anything but zeros, (B, H, W) bool."""
    # torch's fastest reductions; NaN is not 0
    return grad.amax(1).ne(0).logical_or_(grad.amin(1).ne(0))


def gradients_of_places(
    maps: Tensor,
    weight: Tensor,
    grad: Tensor,
    rows: Tensor,
    padding: tuple[int, int],
    *,
    to_maps: bool,
    to_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of maps, (B, C, H, W), and weight, (O, C, kh, kw); those not asked for
    are None.

    Args:
        maps: (B, H, W, C), contiguous: what was convolved, with stride 1.
        weight: (O, C, kh, kw).
        grad: (B, H', W', O), contiguous: the gradient of the outputs.
        rows: (n,) rows of ``grad`` that hold anything but zeros.
        padding: zeros around the map, of its height and width.
    """
    channels = maps.shape[-1]
    outputs, _, *kernel_hw = weight.shape
    exact = torch.promote_types(maps.dtype, torch.float32)  # there are few numbers, and many meet
    flow = grad.reshape(-1, outputs).index_select(0, rows).to(exact)  # (n, O)
    below, inside = _rows_below(maps.shape, grad.shape, rows, kernel_hw, padding)
    taps = weight.permute(0, 2, 3, 1).reshape(outputs, -1).to(exact)  # (O, k * C)
    flat = maps.view(-1, channels)
    grad_maps = grad_weight = None
    if to_maps:
        back = (flow @ taps).view(-1, channels).mul_(inside[:, None])  # (n * k, C)
        reached, place = torch.unique(below, return_inverse=True)
        sums = back.new_zeros(len(reached), channels).index_add_(0, place, back)
        grad_maps = torch.zeros_like(flat).index_copy_(0, reached, sums.to(flat.dtype))
        grad_maps = grad_maps.view_as(maps).permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
    if to_weight:
        seen = flat.index_select(0, below).to(exact).mul_(inside[:, None])
        by_tap = flow.t() @ seen.view(len(rows), taps.shape[1])  # (O, k * C)
        grad_weight = by_tap.view(outputs, *kernel_hw, channels).permute(0, 3, 1, 2)
        grad_weight = grad_weight.to(weight.dtype).contiguous()
    return grad_maps, grad_weight


def _rows_below(
    maps_shape: torch.Size,
    grad_shape: torch.Size,
    rows: Tensor,
    kernel_hw: list[int],
    padding: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Return for each of ``rows`` and each tap the row of the maps below it, (n * k,), and whether
    it lies inside the map; where not, the row is any."""
    height, width = maps_shape[1:3]
    out_width, out_area = grad_shape[2], grad_shape[1] * grad_shape[2]
    image, place = rows // out_area, rows % out_area
    tap_y, tap_x = torch.meshgrid(*(torch.arange(side) for side in kernel_hw), indexing="ij")
    y = (place // out_width - padding[0])[:, None] + tap_y.flatten()  # (n, k)
    x = (place % out_width - padding[1])[:, None] + tap_x.flatten()
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    below = (image[:, None] * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
    return below.flatten(), inside.flatten()
