"""RoIPool against loops, values and gradients, by symmetry, and on degenerate boxes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from swin_dense.errors import UserError
from swin_dense.ops import roi_pool
from tests.ops import loops
from tests.ops.test_roi_align import BOXES


def sample(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 9, 11, dtype=dtype), torch.tensor(BOXES, dtype=dtype)


@pytest.mark.parametrize("output_hw", [(1, 1), (3, 2), (7, 7)])
@pytest.mark.parametrize("scale", [0.5, 0.25, 1.0])
def test_values_and_gradients_are_those_of_the_loop(
    output_hw: tuple[int, int], scale: float
) -> None:
    features, rois = sample()
    features.requires_grad_()
    pooled = roi_pool(features, rois, output_hw, scale)
    grad = torch.randn_like(pooled)
    pooled.backward(grad)
    expected, expected_grad = loops.roi_pool(
        features.detach().numpy(), rois.numpy(), output_hw, scale, grad.numpy()
    )
    assert torch.equal(pooled.detach(), torch.from_numpy(expected))
    torch.testing.assert_close(features.grad, torch.from_numpy(expected_grad))


def test_first_and_second_gradients_pass_gradcheck() -> None:
    features, rois = sample()
    features = features[:, :1, :5, :6].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: roi_pool(maps, rois, 2, 0.5), (features,))
    assert torch.autograd.gradgradcheck(lambda maps: roi_pool(maps, rois, 2, 0.5), (features,))


def test_by_hand_bins_share_the_cells_they_both_touch() -> None:
    features = torch.arange(9.0).view(1, 1, 3, 3).neg()
    # three cells in two bins: each touches the middle row and column
    pooled = roi_pool(features, torch.tensor([[0, 0.0, 0, 2, 2]]), 2)
    assert pooled.flatten().tolist() == [0.0, -1.0, -3.0, -4.0]


def test_a_transposed_map_with_transposed_boxes_gives_transposed_bins() -> None:
    features, rois = sample()
    turned = roi_pool(features.transpose(2, 3), rois[:, [0, 2, 1, 4, 3]], (2, 3), 0.5)
    assert torch.equal(turned.transpose(2, 3), roi_pool(features, rois, (3, 2), 0.5))


def test_permuted_boxes_give_permuted_results() -> None:
    features, rois = sample()
    order = torch.randperm(len(rois))
    assert torch.equal(
        roi_pool(features, rois[order], 3, 0.5), roi_pool(features, rois, 3, 0.5)[order]
    )


def test_the_first_of_equal_cells_gets_the_gradient() -> None:
    features = torch.ones(1, 1, 4, 4, requires_grad=True)
    roi_pool(features, torch.tensor([[0, 1.0, 1, 3, 3]]), 1).sum().backward()
    assert features.grad is not None
    assert features.grad.nonzero().tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("rows", [[], [4], [9]])
def test_no_boxes_and_boxes_without_cells_give_zeros_and_no_gradient(rows: list[int]) -> None:
    features, rois = sample()
    features.requires_grad_()
    pooled = roi_pool(features, rois[rows], 3, 0.5)
    assert torch.equal(pooled, torch.zeros(len(rows), 3, 3, 3, dtype=torch.float64))
    pooled.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_no_copy_of_the_map_is_kept_for_each_box() -> None:
    features = torch.randn(1, 8, 64, 64, requires_grad=True)
    rois = torch.tensor([[0, 4.0, 4, 9, 9]]).repeat(50, 1)
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        pooled = roi_pool(features, rois, 2)
    assert kept
    assert max(kept) <= pooled.numel()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_maps_autocast_and_strides_change_nothing(dtype: torch.dtype) -> None:
    features, rois = sample(torch.float32)
    features = features.to(dtype)
    expected = roi_pool(features.float(), rois, 3, 0.5).to(dtype)
    strided = torch.stack([features, features], dim=-1)[..., 0]
    channels_last = features.contiguous(memory_format=torch.channels_last)
    for maps in (features, strided, channels_last):
        assert torch.equal(roi_pool(maps, rois, 3, 0.5), expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(roi_pool(maps, rois, 3, 0.5), expected)


def test_wrong_input_is_named_with_what_was_expected() -> None:
    features, rois = sample()
    with pytest.raises(UserError, match=r"RoIPool got .*rois of \(10, 4\).*expected .*\(K, 5\)"):
        roi_pool(features, rois[:, 1:], 3)
    with pytest.raises(UserError, match="RoIPool got image indices from 0 to 1 for 1 images"):
        roi_pool(features[:1], rois, 3)
    with pytest.raises(UserError, match=r"output_size=\(3, -1\); expected two positive"):
        roi_pool(features, rois, (3, -1))
