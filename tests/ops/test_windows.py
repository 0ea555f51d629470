"""Windows against index loops: partition, relative positions, and the mask of shifted windows."""

from __future__ import annotations

import pytest
import torch

from swin_dense.ops.windows import (
    MASK_VALUE,
    pad_to_multiple,
    relative_position_index,
    shifted_window_mask,
    window_partition,
    window_reverse,
)


@pytest.mark.parametrize(("grid_hw", "side"), [((6, 9), 3), ((4, 4), 4), ((7, 14), 7), ((2, 3), 1)])
def test_window_partition_puts_each_token_where_the_loop_does(
    grid_hw: tuple[int, int], side: int
) -> None:
    height, width = grid_hw
    tokens = torch.randn(2, height, width, 3)
    windows = window_partition(tokens, side)
    assert windows.shape == (2 * (height // side) * (width // side), side * side, 3)
    for batch in range(2):
        for row in range(height):
            for column in range(width):
                index = row // side * (width // side) + column // side
                window = batch * (height // side) * (width // side) + index
                place = row % side * side + column % side
                assert torch.equal(windows[window, place], tokens[batch, row, column])
    assert torch.equal(window_reverse(windows, side, grid_hw), tokens)


@pytest.mark.parametrize("grid_hw", [(6, 6), (5, 7), (1, 1), (6, 4), (3, 8)])
def test_padding_adds_zeros_at_the_bottom_and_right_up_to_the_next_multiple(
    grid_hw: tuple[int, int],
) -> None:
    tokens = torch.randn(2, *grid_hw, 4)
    padded = pad_to_multiple(tokens, 3)
    height, width = grid_hw
    assert padded.shape == (2, (height + 2) // 3 * 3, (width + 2) // 3 * 3, 4)
    assert torch.equal(padded[:, :height, :width], tokens)
    padded[:, :height, :width] = 0
    assert torch.equal(padded, torch.zeros_like(padded))


def test_window_reverse_undoes_window_partition_on_a_ragged_padded_grid() -> None:
    tokens = torch.randn(2, 5, 8, 4)
    padded = pad_to_multiple(tokens, 3)
    restored = window_reverse(window_partition(padded, 3), 3, (6, 9))
    assert torch.equal(restored[:, :5, :8], tokens)


def test_window_partition_passes_gradients_through_and_takes_strided_windows() -> None:
    tokens = torch.randn(2, 3, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: window_partition(pad_to_multiple(x, 4), 4), (tokens,))
    windows = window_partition(tokens.detach(), 3)
    strided = windows.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(window_reverse(strided, 3, (3, 6)), tokens.detach())


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_relative_position_index_is_one_number_for_each_displacement(side: int) -> None:
    index = relative_position_index(side)
    assert index.dtype == torch.int64
    for query in range(side * side):
        for key in range(side * side):
            down = query // side - key // side + side - 1
            right = query % side - key % side + side - 1
            assert int(index[query, key]) == down * (2 * side - 1) + right


def test_relative_position_index_mirrors_when_query_and_key_swap() -> None:
    index = relative_position_index(4)
    assert torch.equal(index + index.t(), torch.full_like(index, 7 * 7 - 1))


@pytest.mark.parametrize(
    ("grid_hw", "side", "shift"), [((6, 9), 3, 1), ((8, 8), 4, 2), ((7, 7), 7, 3), ((4, 12), 4, 3)]
)
def test_the_mask_parts_exactly_the_pairs_that_the_roll_brought_together(
    grid_hw: tuple[int, int], side: int, shift: int
) -> None:
    """A token that came around the end never meets one that did not, even on a one-window grid."""
    height, width = grid_hw
    wrapped_rows = (torch.arange(height) < shift)[:, None].expand(grid_hw)
    wrapped_columns = (torch.arange(width) < shift)[None, :].expand(grid_hw)
    wrapped = torch.stack([wrapped_rows, wrapped_columns], dim=-1).roll((-shift, -shift), (0, 1))
    windows = window_partition(wrapped[None], side)
    mask = shifted_window_mask(grid_hw, side, shift)
    for window in range(len(windows)):
        for query in range(side * side):
            for key in range(side * side):
                apart = not torch.equal(windows[window, query], windows[window, key])
                assert float(mask[window, query, key]) == (MASK_VALUE if apart else 0.0)


def test_the_mask_is_symmetric_and_takes_a_type() -> None:
    mask = shifted_window_mask((6, 9), 3, 2, dtype=torch.bfloat16)
    assert mask.dtype == torch.bfloat16
    assert torch.equal(mask, mask.transpose(1, 2))
    assert torch.equal(mask.diagonal(dim1=1, dim2=2), torch.zeros(6, 9, dtype=torch.bfloat16))
