"""Which token lies where in the windows of a padded, shifted grid, as indices of rows.

Letters: B batch; H, W token grid; h heads; d channels a head; M window side; N = M * M; nW windows
an image; P padded places of all images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swin_dense.ops.windows import window_partition


@dataclass(frozen=True)
class Moves:
    """How rows of d numbers move from a grid (B * H * W * parts) to windows (parts * B * nW * N).

    Attributes:
        to_windows: row of the grid for each place in the windows, any row for a padded place.
        to_grid: place in the windows for each row of the grid.
        padded: the places (parts * P,) that no token fills; None where the grid fills all.
    """

    to_windows: Tensor
    to_grid: Tensor
    padded: Tensor | None


@dataclass(frozen=True)
class WindowPlan:
    """The moves of queries, keys and values together (3h parts), and of one of them (h parts)."""

    triple: Moves
    single: Moves
    windows_hw: tuple[int, int]


@lru_cache(maxsize=16)
def window_plan(
    grid_bhw: tuple[int, int, int], window_size: int, shift: int, num_heads: int
) -> WindowPlan:
    """Return the plan for a batch of grids; that of the last few is kept."""
    batch, height, width = grid_bhw
    rows, columns = -(-height // window_size), -(-width // window_size)
    grid = torch.full((rows * window_size, columns * window_size), -1)
    grid[:height, :width] = torch.arange(height * width).view(height, width)
    grid = grid.roll((-shift, -shift), dims=(0, 1))
    one_image = window_partition(grid[None, :, :, None], window_size).flatten()
    images = torch.arange(batch)[:, None] * (height * width)
    token = (one_image + images).masked_fill(one_image < 0, -1).flatten()  # (B * nW * N,)
    filled = (token >= 0).nonzero().flatten()
    place = torch.empty(batch * height * width, dtype=torch.int64)
    place[token[filled]] = filled
    triple, single = (_moves(token, place, parts) for parts in (3 * num_heads, num_heads))
    return WindowPlan(triple, single, (rows, columns))


def _moves(token: Tensor, place: Tensor, parts: int) -> Moves:
    part = torch.arange(parts)[:, None]
    padded = (token < 0).nonzero().flatten()
    return Moves(
        to_windows=(token.clamp(min=0) * parts + part).flatten().int(),
        to_grid=(place + part * len(token)).t().flatten().int(),
        padded=(padded + part * len(token)).flatten() if len(padded) else None,
    )
