"""Deformable operations: multi-scale attention and modulated convolution, differentiable in every input.

Both sample maps bilinearly at learned places; a place outside the map reads zeros. Sources: Deformable DETR
(https://arxiv.org/abs/2010.04159) and Deformable ConvNets v2 (https://arxiv.org/abs/1811.11168).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.errors import UserError


def multi_scale_deformable_attention(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Mix values sampled from several maps: (B, queries, heads * channels).

    Args:
        value: (B, cells of all levels, heads, channels), levels one after another.
        spatial_shapes: (levels, 2) int64 height and width of each level.
        sampling_locations: (B, queries, heads, levels, points, 2) as x, y from 0 to 1 of the level.
        attention_weights: (B, queries, heads, levels, points).

    Raises:
        UserError: the levels' cells do not add up to those of ``value``.
    """
    batch, cells, heads, channels = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    level_hw = [tuple(shape) for shape in spatial_shapes.tolist()]
    if sum(height * width for height, width in level_hw) != cells:
        raise UserError(
            f"deformable attention got {cells} cells and levels of {level_hw}; expected their products to "
            "add up to the cells."
        )
    levels = value.split([height * width for height, width in level_hw], dim=1)
    grids = 2 * sampling_locations - 1
    mixed = value.new_zeros(batch * heads, channels, queries)
    for level, (height, width) in enumerate(level_hw):
        # (B, H * W, heads, C) -> (B * heads, C, H, W)
        maps = levels[level].permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        # (B, queries, heads, points, 2) -> (B * heads, queries, points, 2)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        sampled = F.grid_sample(
            maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )
        weights = attention_weights[:, :, :, level].transpose(1, 2)
        mixed = mixed + (sampled * weights.reshape(batch * heads, 1, queries, points)).sum(dim=-1)
    # (B * heads, C, queries) -> (B, queries, heads * C)
    return mixed.view(batch, heads * channels, queries).transpose(1, 2).contiguous()


def modulated_deform_conv2d(
    images: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Convolve with each kernel tap moved by ``offset`` and weighed by ``mask``: (B, C_out, H_out, W_out).

    Args:
        images: (B, C_in, H, W).
        offset: (B, deform_groups * taps * 2, H_out, W_out): a row and a column shift for each tap.
        mask: (B, deform_groups * taps, H_out, W_out).
        weight: (C_out, C_in / groups, kernel_h, kernel_w).
        bias: (C_out,) or None.
        stride, padding, dilation: as for a convolution, (vertical, horizontal).
        groups: of channels in ``weight``.
        deform_groups: of channels that share their offsets.

    Raises:
        UserError: the shapes do not fit.
    """
    batch, channels, height, width = images.shape
    kernel_h, kernel_w = weight.shape[2:]
    taps = kernel_h * kernel_w
    out_h = (height + 2 * padding[0] - dilation[0] * (kernel_h - 1) - 1) // stride[0] + 1
    out_w = (width + 2 * padding[1] - dilation[1] * (kernel_w - 1) - 1) // stride[1] + 1
    if offset.shape != (batch, deform_groups * taps * 2, out_h, out_w) or mask.shape != (
        batch,
        deform_groups * taps,
        out_h,
        out_w,
    ):
        raise UserError(
            f"deformable convolution got offset {tuple(offset.shape)} and mask {tuple(mask.shape)}; expected "
            f"{(batch, deform_groups * taps * 2, out_h, out_w)} and "
            f"{(batch, deform_groups * taps, out_h, out_w)}."
        )
    shifts = offset.view(batch, deform_groups, taps, 2, out_h, out_w)
    tap = torch.arange(taps, device=images.device)
    tap_y = (tap // kernel_w * dilation[0] - padding[0])[:, None, None]
    tap_x = (tap % kernel_w * dilation[1] - padding[1])[:, None, None]
    out_y = (torch.arange(out_h, device=images.device) * stride[0])[:, None]
    out_x = torch.arange(out_w, device=images.device) * stride[1]
    y, x = shifts[:, :, :, 0] + tap_y + out_y, shifts[:, :, :, 1] + tap_x + out_x
    # cells to grid_sample's units, where -1 and 1 are the map's outer edges
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    maps = images.reshape(batch * deform_groups, channels // deform_groups, height, width)
    grid = grid.view(batch * deform_groups, taps, out_h * out_w, 2)
    columns = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    columns = columns * mask.reshape(batch * deform_groups, 1, taps, out_h * out_w)
    columns = columns.view(batch, groups, channels // groups * taps, out_h * out_w)
    kernels = weight.view(groups, -1, channels // groups * taps)
    result = (kernels @ columns).view(batch, -1, out_h, out_w)
    return result if bias is None else result + bias.view(-1, 1, 1)
