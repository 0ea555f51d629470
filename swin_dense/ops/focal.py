"""Keys of focal attention: a window, the ring around it, and the pooled windows further out.

Source: Focal Transformer (https://arxiv.org/abs/2107.00641), section 3.2, and its code.
Letters: B batch; H, W token grid, multiples of M; C channels; M window side; e tokens that a window
is expanded by on each side; E = M + 2e; F odd side of the neighbourhood of pooled windows; h heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.ops.windows import MASK_VALUE

ROLLS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
"""Directions (rows, columns) in which the official code rolls the map to get at the neighbours."""


def expanded_windows(grid: Tensor, window_size: int, expand: int) -> Tensor:
    """Return each window with its ring of neighbours, beyond a border those of the opposite one.

    Args:
        grid: (B, H, W, C).

    Returns:
        A view (B, H / M, W / M, C, E, E) of the grid, or of the grid with ``expand`` tokens more on
        each side: overlaps are held once.
    """
    if expand:
        # (B, H, W, C) -> (B, C, H + 2e, W + 2e) -> (B, H + 2e, W + 2e, C)
        wrapped = F.pad(grid.permute(0, 3, 1, 2), (expand,) * 4, mode="circular")
        grid = wrapped.permute(0, 2, 3, 1)
    side = window_size + 2 * expand
    return grid.unfold(1, side, window_size).unfold(2, side, window_size)


def pooled_neighbourhoods(grid: Tensor, reach: int) -> Tensor:
    """Return the ``reach`` x ``reach`` (F x F) pooled windows around each; zeros beyond the border.

    Args:
        grid: (B, H / M, W / M, C).

    Returns:
        A view (B, H / M, W / M, C, F, F) of the padded grid.
    """
    border = reach // 2
    padded = F.pad(grid, (0, 0, border, border, border, border))
    return padded.unfold(1, reach, 1).unfold(2, reach, 1)


def pooled_mask(grid_hw: tuple[int, int], reach: int, *, device: torch.device) -> Tensor:
    """Return the (H / M * W / M, F * F) mask of those neighbourhoods: -100 beyond the border.

    ``grid_hw`` is (H / M, W / M).
    """
    inside = torch.ones(1, *grid_hw, 1, device=device)
    return (1.0 - pooled_neighbourhoods(inside, reach)).reshape(-1, reach * reach) * MASK_VALUE


def neighbours(window_size: int, expand: int) -> list[tuple[int, int]]:
    """Return (row, column) of every neighbour in the official order, counted from the window's
    first token.

    Four copies of the map are rolled by ``expand`` tokens, top left first, and of each the tokens
    that lie outside the window are kept, row by row. Some neighbours lie in two of the copies.
    """
    inside = range(window_size)
    return [
        (row - down * expand, column - right * expand)
        for down, right in ROLLS
        for row in inside
        for column in inside
        if row - down * expand not in inside or column - right * expand not in inside
    ]


def bias_sources(window_size: int, expand: int) -> Tensor:
    """Return where the biases of each key of an expanded window stand, (2, E * E) int64.

    They count along the official order: the window's own M * M tokens, then :func:`neighbours`,
    then one column that stands for "none". The second row is "none" but for a neighbour that lies
    in two of the copies.
    """
    side = window_size + 2 * expand
    around = neighbours(window_size, expand)
    none = window_size**2 + len(around)
    first, second = [none] * side**2, [none] * side**2
    own = [(row, column) for row in range(window_size) for column in range(window_size)]
    for place, (row, column) in enumerate(own + around):
        key = (row + expand) * side + column + expand
        (first if first[key] == none else second)[key] = place
    return torch.tensor([first, second])


def join_biases(own: Tensor, around: Tensor, sources: Tensor) -> Tensor:
    """Return the bias (h, M * M, E * E) of each query and each key of an expanded window.

    A neighbour that the official code lists twice, with biases a and b, is listed once here with
    log(exp(a) + exp(b)): the softmax then gives it the sum of both weights.

    Args:
        own: (h, M * M, M * M), for the window's own tokens.
        around: (h, M * M, number of :func:`neighbours`).
        sources: from :func:`bias_sources`.
    """
    none = own.new_full((*own.shape[:2], 1), float("-inf"))
    listed = torch.cat([own, around, none], dim=-1)
    return torch.logaddexp(listed[..., sources[0]], listed[..., sources[1]])


def pooled_bias_index(window_size: int, reach: int) -> Tensor:
    """Return the (M * M, F * F) int64 column of the table for each token and pooled window."""
    side = window_size + reach - 1
    tokens, pooled = torch.arange(window_size), torch.arange(reach)
    offset = tokens[:, None] - pooled[None, :] + reach - 1  # (M, F)
    rows, columns = offset[:, None, :, None], offset[None, :, None, :]
    return (rows * side + columns).reshape(window_size**2, reach**2)
