"""Windows on a token grid, and the relative positions inside one.

Source: Swin Transformer (https://arxiv.org/abs/2103.14030), section 3.2.
Letters: B batch; H, W token grid, multiples of the window; C channels; M window side; nW windows an
image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MASK_VALUE = -100.0
"""Added to the logit of a pair that was not adjacent before the shift; official, not -inf."""


def pad_to_multiple(tokens: Tensor, multiple: int, *, dims: tuple[int, int] = (1, 2)) -> Tensor:
    """Zero-pad the height and width ``dims``, of (B, H, W, C) or (B, C, H, W), at their ends to
    multiples of ``multiple``."""
    bottom, right = (_missing(tokens.shape[dim], multiple) for dim in dims)
    # a compiler gets one graph for all sizes
    if torch.compiler.is_compiling() or bottom or right:
        after = (0, 0) if dims == (1, 2) else ()
        tokens = F.pad(tokens, (*after, 0, right, 0, bottom))
    return tokens


def _missing(length: int, multiple: int) -> int:
    # written so that a compiler finds the padded length a multiple
    return (length + multiple - 1) // multiple * multiple - length


def window_partition(tokens: Tensor, window_size: int) -> Tensor:
    """Cut (B, H, W, C) into windows (B * nW, M * M, C), row by row; H and W are multiples of M."""
    batch, height, width, channels = tokens.shape
    grid = tokens.view(
        batch, height // window_size, window_size, width // window_size, window_size, channels
    )
    # (B, H/M, M, W/M, M, C) -> (B, H/M, W/M, M, M, C)
    return grid.transpose(2, 3).reshape(-1, window_size * window_size, channels)


def window_reverse(windows: Tensor, window_size: int, grid_hw: tuple[int, int]) -> Tensor:
    """Undo :func:`window_partition`: (B * nW, M * M, C) -> (B, H, W, C)."""
    height, width = grid_hw
    rows, columns = height // window_size, width // window_size
    grid = windows.view(-1, rows, columns, window_size, window_size, windows.shape[-1])
    # (B, H/M, W/M, M, M, C) -> (B, H/M, M, W/M, M, C)
    return grid.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def relative_position_index(window_size: int, *, table_window: int | None = None) -> Tensor:
    """Return the (M * M, M * M) int64 row of the bias table for each (query, key) pair.

    ``table_window`` is the window that the table was made for, at least M; M where it is None.
    """
    reach = (table_window or window_size) - 1
    axis = torch.arange(window_size)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    row_offset = rows[:, None] - rows[None, :] + reach
    column_offset = columns[:, None] - columns[None, :] + reach
    return row_offset * (2 * reach + 1) + column_offset


def shifted_window_mask(
    grid_hw: tuple[int, int],
    window_size: int,
    shift: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the (nW, M * M, M * M) mask of shifted windows: 0 inside a region, -100 across
    regions.

    ``grid_hw`` is the padded grid. A region is what stays connected when the grid is rolled by
    ``-shift``.
    """
    axes = []
    for side in grid_hw:
        region = torch.zeros(side, dtype=torch.int64, device=device)
        region[side - window_size :] = 1
        region[side - shift :] = 2
        axes.append(region)
    regions = axes[0][:, None] * 3 + axes[1][None, :]
    windows = window_partition(regions[None, :, :, None], window_size).squeeze(-1)
    across = windows[:, :, None] != windows[:, None, :]
    return torch.zeros(across.shape, dtype=dtype, device=device).masked_fill_(across, MASK_VALUE)
