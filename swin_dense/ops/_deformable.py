"""Multi-scale deformable attention and modulated deformable convolution, in plain torch.

Both sample maps bilinearly at learned places; a place outside the map reads zeros. Both are
differentiable in every input, and compute in at least float32, since a half type cannot tell
neighbouring cells of a large map apart. Sources: Deformable DETR
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
        UserError: the shapes do not fit, or the levels' cells do not add up to those of ``value``.
    """
    _check_attention(value, spatial_shapes, sampling_locations, attention_weights)
    batch, _, heads, channels = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    if batch * queries == 0:  # grid_sample refuses an empty grid
        return value.new_zeros(batch, queries, heads * channels) + 0 * value.sum()
    dtype = torch.promote_types(value.dtype, torch.float32)
    level_hw = spatial_shapes.tolist()
    level_cells = [height * width for height, width in level_hw]
    levels = torch.split(value.to(dtype), level_cells, dim=1)
    grids = 2 * sampling_locations.to(dtype) - 1
    attention_weights = attention_weights.to(dtype)
    mixed = value.new_zeros(batch * heads, channels, queries, dtype=dtype)
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
    mixed = mixed.view(batch, heads * channels, queries).transpose(1, 2).contiguous()
    return mixed.to(value.dtype)


def _check_attention(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> None:
    if value.dim() != 4 or sampling_locations.dim() != 6 or spatial_shapes.dim() != 2:
        raise UserError(
            f"deformable attention got value {tuple(value.shape)}, spatial_shapes "
            f"{tuple(spatial_shapes.shape)} and sampling_locations "
            f"{tuple(sampling_locations.shape)}; expected (B, cells, heads, channels), (levels, 2) "
            "and (B, queries, heads, levels, points, 2)."
        )
    batch, cells, heads, _ = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    weights = (batch, queries, heads, len(spatial_shapes), points)
    if sampling_locations.shape != (*weights, 2) or attention_weights.shape != weights:
        raise UserError(
            f"deformable attention got sampling_locations {tuple(sampling_locations.shape)} and "
            f"attention_weights {tuple(attention_weights.shape)}; expected {(*weights, 2)} and "
            f"{weights}."
        )
    level_hw = [tuple(shape) for shape in spatial_shapes.tolist()]
    if sum(height * width for height, width in level_hw) != cells:
        raise UserError(
            f"deformable attention got {cells} cells and levels of {level_hw}; expected their "
            "products to add up to the cells."
        )


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
    """Convolve, each tap moved by ``offset`` and weighed by ``mask``: (B, C_out, H_out, W_out).

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
    geometry = (stride, padding, dilation)
    _check_convolution(images, offset, mask, weight, bias, geometry, groups, deform_groups)
    batch, channels, height, width = images.shape
    kernel_w, taps = weight.shape[3], weight.shape[2] * weight.shape[3]
    out_h, out_w = offset.shape[2:]
    if batch == 0:  # grid_sample refuses an empty batch
        return images.new_zeros(0, len(weight), out_h, out_w) + 0 * weight.sum()
    dtype = torch.promote_types(images.dtype, torch.float32)
    shifts = offset.to(dtype).reshape(batch, deform_groups, taps, 2, out_h, out_w)
    tap = torch.arange(taps, device=images.device)
    tap_y = (tap // kernel_w * dilation[0] - padding[0])[:, None, None]
    tap_x = (tap % kernel_w * dilation[1] - padding[1])[:, None, None]
    out_y = (torch.arange(out_h, device=images.device) * stride[0])[:, None]
    out_x = torch.arange(out_w, device=images.device) * stride[1]
    y, x = shifts[:, :, :, 0] + tap_y + out_y, shifts[:, :, :, 1] + tap_x + out_x
    # a place a whole cell outside reads zero and has no slope, not even towards the border
    inside = (y > -1) & (x > -1) & (y < height) & (x < width)
    y, x = y.where(inside, -2.0), x.where(inside, -2.0)
    # Whole cells must survive grid_sample's units: at an offset of 0, where training starts, the
    # slope to the next cell is meant, not to the one before. With sides of a power of two they do,
    # and the padding reads as the zeros outside.
    padded_w, padded_h = _power_of_two(width), _power_of_two(height)
    grid = torch.stack([(2 * x + 1) / padded_w - 1, (2 * y + 1) / padded_h - 1], dim=-1)
    maps = images.to(dtype).reshape(batch * deform_groups, channels // deform_groups, height, width)
    maps = F.pad(maps, (0, padded_w - width, 0, padded_h - height))
    grid = grid.view(batch * deform_groups, taps, out_h * out_w, 2)
    columns = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    columns = columns * mask.to(dtype).reshape(batch * deform_groups, 1, taps, out_h * out_w)
    columns = columns.reshape(batch, groups, channels // groups * taps, out_h * out_w)
    kernels = weight.to(dtype).reshape(groups, -1, channels // groups * taps)
    with torch.autocast(images.device.type, enabled=False):
        result = (kernels @ columns).view(batch, -1, out_h, out_w)
    if bias is not None:
        result = result + bias.to(dtype).view(-1, 1, 1)
    return result.to(images.dtype)


def _power_of_two(side: int) -> int:
    """Return the least power of two that is not below ``side``."""
    return 1 << (side - 1).bit_length()


def _check_convolution(
    images: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
    groups: int,
    deform_groups: int,
) -> None:
    if images.dim() != 4 or weight.dim() != 4:
        raise UserError(
            f"deformable convolution got images {tuple(images.shape)} and weight "
            f"{tuple(weight.shape)}; expected (B, C_in, H, W) and "
            "(C_out, C_in / groups, kernel_h, kernel_w)."
        )
    batch, channels = images.shape[:2]
    if channels % groups or len(weight) % groups or weight.shape[1] != channels // groups:
        raise UserError(
            f"deformable convolution got weight {tuple(weight.shape)} for {channels} channels in "
            f"{groups} groups; expected (C_out, {channels} / {groups}, kernel_h, kernel_w) with "
            "both channel counts divisible by the groups."
        )
    if channels % deform_groups:
        raise UserError(
            f"deformable convolution got {channels} channels and deform_groups={deform_groups}; "
            "expected the channels to be divisible by deform_groups."
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise UserError(
            f"deformable convolution got bias {tuple(bias.shape)}; expected ({len(weight)},)."
        )
    out_hw = tuple(
        (side + 2 * pad - spread * (kernel - 1) - 1) // step + 1
        for side, kernel, step, pad, spread in zip(
            images.shape[2:], weight.shape[2:], *geometry, strict=True
        )
    )
    taps = weight.shape[2] * weight.shape[3]
    offset_shape = (batch, deform_groups * taps * 2, *out_hw)
    mask_shape = (batch, deform_groups * taps, *out_hw)
    if min(out_hw) < 1 or offset.shape != offset_shape or mask.shape != mask_shape:
        raise UserError(
            f"deformable convolution got offset {tuple(offset.shape)} and mask "
            f"{tuple(mask.shape)}; expected {offset_shape} and {mask_shape}, with an output of at "
            "least one cell."
        )
