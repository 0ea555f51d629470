"""Fit a pretrained tensor to a model of another window, image size or number of input channels."""

from __future__ import annotations

import torch
from torch import Tensor

from swin_dense.layers.patch import resize_position_grid


def resize_bias_table(table: Tensor, rows: int) -> Tensor:
    """Resize a ((2M-1)^2, heads) position table to ``rows`` rows, bicubic as the official code."""
    old, new = round(table.shape[0] ** 0.5), round(rows**0.5)
    grid = table.float().t().reshape(1, -1, old, old)
    resized = torch.nn.functional.interpolate(grid, size=(new, new), mode="bicubic")
    return resized.reshape(-1, rows).t().to(table.dtype).contiguous()


def resize_input_channels(weight: Tensor, channels: int) -> Tensor:
    """Fit a (C, in, P, P) patch convolution to another number of input channels.

    One channel gets the sum of the kernels, so that a grey image gives what its RGB copy gave. More
    channels get the kernels in turn, scaled by their number: 6 equal channels give what 3 gave.
    """
    given = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-channels // given)
    return weight.repeat(1, repeats, 1, 1)[:, :channels] * (given / channels)


def fit(name: str, value: Tensor, target: Tensor) -> Tensor:
    """Return ``value`` in the target's shape where that is defined for this name, else unchanged.

    Args:
        name: the official name.
        value: what the checkpoint has.
        target: the model's own parameter; only its shape counts.
    """
    if value.shape == target.shape or value.dim() != target.dim():
        return value
    if name.endswith("relative_position_bias_table") and value.shape[1] == target.shape[1]:
        return resize_bias_table(value, target.shape[0])
    if name.endswith("absolute_pos_embed") and value.shape[:2] == target.shape[:2]:
        return resize_position_grid(value, (target.shape[2], target.shape[3]))
    if (
        name.endswith("patch_embed.proj.weight")
        and value.shape[0] == target.shape[0]
        and value.shape[2:] == target.shape[2:]
    ):
        return resize_input_channels(value, target.shape[1])
    return value
