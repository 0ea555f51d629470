"""Keys of focal attention by hand, by symmetry, and against the official way of rolling."""

from __future__ import annotations

import math

import pytest
import torch

from swin_dense.ops.focal import (
    bias_sources,
    expanded_windows,
    join_biases,
    neighbours,
    pooled_bias_index,
    pooled_mask,
    pooled_neighbourhoods,
)


def test_a_window_of_two_expanded_by_one_has_these_neighbours_in_this_order() -> None:
    # by hand: the copy rolled to the top left shows rows and columns 1 and 2, and so on
    top_left = [(1, 2), (2, 1), (2, 2)]
    top_right = [(1, -1), (2, -1), (2, 0)]
    bottom_left = [(-1, 1), (-1, 2), (0, 2)]
    bottom_right = [(-1, -1), (-1, 0), (0, -1)]
    assert neighbours(2, 1) == top_left + top_right + bottom_left + bottom_right


def test_the_published_window_has_132_neighbours_and_12_of_them_twice() -> None:
    around = neighbours(7, 3)
    assert (len(around), len(set(around))) == (132, 120)
    first, second = bias_sources(7, 3).tolist()
    none = 49 + 132
    assert none not in first
    assert sum(source != none for source in second) == 12
    assert sorted(first + [source for source in second if source != none]) == list(range(none))


@pytest.mark.parametrize(("window", "expand"), [(7, 3), (4, 2), (5, 1), (3, 0)])
def test_every_expanded_key_has_a_bias(window: int, expand: int) -> None:
    listed = window**2 + len(neighbours(window, expand))
    first, second = bias_sources(window, expand)
    assert (first < listed).all()
    assert first.numel() == (window + 2 * expand) ** 2
    assert (second >= first).all()


def test_joined_biases_by_hand() -> None:
    # one token, no ring of its own size: a key listed once keeps its bias, one listed twice has
    # the logarithm of the sum of exponentials
    own = torch.tensor([[[1.0]]])
    around = torch.tensor([[[2.0, 0.5]]])
    sources = torch.tensor([[0, 1], [3, 2]])
    expected = [1.0, math.log(math.exp(2.0) + math.exp(0.5))]
    torch.testing.assert_close(join_biases(own, around, sources), torch.tensor([[expected]]))


def test_expanded_windows_go_on_at_the_opposite_border() -> None:
    grid = torch.arange(4 * 6).view(1, 4, 6, 1).float()
    first = expanded_windows(grid, 2, 1)[0, 0, 0, 0]
    assert first.tolist() == [[23, 18, 19, 20], [5, 0, 1, 2], [11, 6, 7, 8], [17, 12, 13, 14]]
    assert expanded_windows(grid, 2, 1).shape == (1, 2, 3, 1, 4, 4)


def test_expanded_windows_share_the_grids_memory() -> None:
    grid = torch.zeros(1, 70, 70, 8)
    bytes_held = expanded_windows(grid, 7, 3).untyped_storage().nbytes()
    assert bytes_held == 76 * 76 * 8 * 4
    assert expanded_windows(grid, 7, 0).data_ptr() == grid.data_ptr()


def test_pooled_windows_beyond_the_border_are_zero_and_masked() -> None:
    grid = torch.tensor([[1.0, 2.0, 3.0]]).view(1, 1, 3, 1)
    around = pooled_neighbourhoods(grid, 3).reshape(3, 9)
    assert around[0].tolist() == [0, 0, 0, 0, 1, 2, 0, 0, 0]
    assert around[1].tolist() == [0, 0, 0, 1, 2, 3, 0, 0, 0]
    mask = pooled_mask((1, 3), 3, device=grid.device)
    assert mask.tolist() == torch.where(around == 0, -100.0, 0.0).tolist()
    assert pooled_mask((1, 1), 1, device=grid.device).tolist() == [[0.0]]


def test_pooled_bias_columns_by_hand() -> None:
    # tokens at 0 and 1, pooled windows at 0, 1, 2 along each axis: offsets -2 to 1 shifted by 2
    index = pooled_bias_index(2, 3)
    assert index[0].tolist() == [10, 9, 8, 6, 5, 4, 2, 1, 0]
    assert (index[3] - index[0] == 4 + 1).all()
    assert pooled_bias_index(7, 7).max().item() == 13**2 - 1
