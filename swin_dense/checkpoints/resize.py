"""Fit a pretrained tensor to a model of another window, image size or number of input channels."""

from __future__ import annotations

import torch
from torch import Tensor


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


def resize_patch_convolution(weight: Tensor, target: Tensor) -> Tensor:
    """Fit a (C, in, P, P) patch convolution to the input channels of ``target``; where anything
    else differs it comes back unchanged.
    """
    if weight.shape[0] != target.shape[0] or weight.shape[2:] != target.shape[2:]:
        return weight
    return resize_input_channels(weight, target.shape[1])
