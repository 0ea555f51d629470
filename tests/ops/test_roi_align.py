"""RoIAlign against loops, values and gradients, by symmetry, and on degenerate boxes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from swin_dense.errors import UserError
from swin_dense.ops import roi_align
from tests.ops import loops

EXACT = dict(rtol=1e-12, atol=1e-12)
SETTINGS = list(itertools.product(["avg", "max"], [0, 1, 3], [True, False]))

# image, x1, y1, x2, y2: inside, over every border, whole map, outside, tiny, without area, turned
BOXES = [
    [0, 3.1, 2.2, 15.7, 12.9],
    [1, -9.3, -5.1, 8.2, 7.7],
    [0, 10.4, 9.6, 40.3, 31.8],
    [1, -50.0, -40.0, 80.0, 60.0],
    [0, 60.0, 60.0, 90.0, 80.0],
    [1, -90.0, -70.0, -40.0, -30.0],
    [1, 5.25, 5.5, 5.75, 5.9],
    [0, 6.0, 4.0, 6.0, 9.0],
    [0, 8.0, 8.0, 8.0, 8.0],
    [1, 9.0, 7.0, 4.0, 3.0],
]


def sample(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 9, 11, dtype=dtype), torch.tensor(BOXES, dtype=dtype)


@pytest.mark.parametrize(("mode", "ratio", "aligned"), SETTINGS)
def test_values_and_gradients_are_those_of_the_loop(mode: str, ratio: int, aligned: bool) -> None:
    features, rois = sample()
    features.requires_grad_()
    pooled = roi_align(features, rois, (3, 2), 0.5, ratio, aligned, pool_mode=mode)  # type: ignore[arg-type]
    grad = torch.randn_like(pooled)
    pooled.backward(grad)
    expected, expected_grad = loops.roi_align(
        features.detach().numpy(), rois.numpy(), (3, 2), 0.5, ratio, aligned, mode, grad.numpy()
    )
    torch.testing.assert_close(pooled.detach(), torch.from_numpy(expected), **EXACT)
    assert features.grad is not None
    torch.testing.assert_close(features.grad, torch.from_numpy(expected_grad), **EXACT)


@pytest.mark.parametrize(("mode", "ratio", "aligned"), SETTINGS)
def test_first_and_second_gradients_pass_gradcheck(mode: str, ratio: int, aligned: bool) -> None:
    features = torch.randn(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor(BOXES, dtype=torch.float64)[[0, 1, 3, 8]]

    def pool(maps: Tensor) -> Tensor:
        return roi_align(maps, rois, 2, 0.4, ratio, aligned, pool_mode=mode)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(pool, (features,))
    assert torch.autograd.gradgradcheck(pool, (features,))


def test_by_hand_a_bin_on_a_cell_centre_reads_that_cell() -> None:
    features = torch.arange(16.0).view(1, 1, 4, 4)
    # with half-cell shift, the box from 1 to 2 has its centre on cell 1
    pooled = roi_align(features, torch.tensor([[0, 1.0, 2, 2, 3]]), 1)
    assert pooled.item() == 9.0
    # on a plane a mean of samples is the value in the middle
    assert roi_align(features, torch.tensor([[0, 0.5, 0.5, 3.5, 3.5]]), 1).item() == 7.5


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_a_mirrored_map_with_mirrored_boxes_gives_mirrored_bins(mode: str) -> None:
    features, rois = sample()
    rois = rois[:7]
    mirrored = rois.clone()
    mirrored[:, 1], mirrored[:, 3] = 22 - rois[:, 3], 22 - rois[:, 1]
    pooled = roi_align(features, rois, (3, 2), 0.5, 0, pool_mode=mode)  # type: ignore[arg-type]
    turned = roi_align(features.flip(3), mirrored, (3, 2), 0.5, 0, pool_mode=mode)  # type: ignore[arg-type]
    torch.testing.assert_close(turned.flip(3), pooled)


def test_a_transposed_map_with_transposed_boxes_gives_transposed_bins() -> None:
    features, rois = sample()
    pooled = roi_align(features, rois, (3, 2), 0.5)
    turned = roi_align(features.transpose(2, 3), rois[:, [0, 2, 1, 4, 3]], (2, 3), 0.5)
    torch.testing.assert_close(turned.transpose(2, 3), pooled)


def test_a_moved_map_with_moved_boxes_and_permuted_boxes_change_nothing() -> None:
    features, rois = sample()
    inside = rois[[0, 6]]
    moved = torch.nn.functional.pad(features, (4, 4, 4, 4))
    torch.testing.assert_close(
        roi_align(moved, inside + torch.tensor([0.0, 8, 8, 8, 8]), 3, 0.5),
        roi_align(features, inside, 3, 0.5),
    )
    order = torch.randperm(len(rois))
    torch.testing.assert_close(
        roi_align(features, rois[order], 3, 0.5), roi_align(features, rois, 3, 0.5)[order]
    )


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("rows", [[], [8], [8, 9]])
def test_no_boxes_and_only_boxes_without_area_give_zeros_and_no_gradient(
    rows: list[int], mode: str
) -> None:
    features, rois = sample()
    features.requires_grad_()
    pooled = roi_align(features, rois[rows], 3, 0.5, pool_mode=mode)  # type: ignore[arg-type]
    assert torch.equal(pooled, torch.zeros(len(rows), 3, 3, 3, dtype=torch.float64))
    pooled.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_in_max_mode_the_first_of_equal_samples_gets_the_gradient() -> None:
    features = torch.full((1, 1, 12, 12), 0.7, requires_grad=True)
    rois = torch.tensor([[0, 1.0, 1, 9, 9]])
    roi_align(features, rois, 1, 1.0, 4, pool_mode="max").sum().backward()
    first = torch.zeros(1, 1, 12, 12)
    first[0, 0, 1:3, 1:3] = 0.25  # the sample at (1.5, 1.5)
    torch.testing.assert_close(features.grad, first)


def test_in_max_mode_a_sample_on_the_outermost_line_keeps_its_gradient() -> None:
    features = torch.ones(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, -1.0, -1.0, -1.0, -1.0]], dtype=torch.float64)
    pooled = roi_align(features, rois - torch.tensor([0, 0.5, 0.5, -0.5, -0.5]), 1, 1.0, 1, False)
    same = roi_align(
        features,
        rois - torch.tensor([0, 0.5, 0.5, -0.5, -0.5]),
        1,
        1.0,
        1,
        False,
        pool_mode="max",
    )
    assert pooled.item() == same.item() == 1.0
    (grad,) = torch.autograd.grad(same, features)
    assert grad[0, 0, 0, 0] == grad.sum() == 1.0


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_maps_are_pooled_in_float32_and_rounded_once(mode: str, dtype: torch.dtype) -> None:
    features, rois = sample(torch.float32)
    half = features.to(dtype).requires_grad_()
    wide = half.detach().float().requires_grad_()
    pooled = roi_align(half, rois, 3, 0.5, pool_mode=mode)  # type: ignore[arg-type]
    expected = roi_align(wide, rois, 3, 0.5, pool_mode=mode)  # type: ignore[arg-type]
    assert torch.equal(pooled, expected.to(dtype))
    grad = torch.randn_like(pooled)
    pooled.backward(grad)
    expected.backward(grad.float())
    assert half.grad is not None
    assert wide.grad is not None
    assert torch.equal(half.grad, wide.grad.to(dtype))


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_autocast_channels_last_and_strided_maps_change_no_value_and_no_gradient(mode: str) -> None:
    features, rois = sample(torch.float32)

    def both(maps: Tensor) -> tuple[Tensor, Tensor]:
        maps = maps.detach().requires_grad_()
        pooled = roi_align(maps, rois, 3, 0.5, pool_mode=mode)  # type: ignore[arg-type]
        return pooled, torch.autograd.grad(pooled.square().sum(), maps)[0]

    pooled, grad = both(features)
    strided = torch.stack([features, features], dim=-1)[..., 0]
    for other in (features.contiguous(memory_format=torch.channels_last), strided):
        assert torch.equal(both(other)[0], pooled)
        assert torch.equal(both(other)[1], grad)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(both(features)[0], pooled)
        assert torch.equal(both(features)[1], grad)


def test_wrong_input_is_named_with_what_was_expected() -> None:
    features, rois = sample(torch.float32)
    with pytest.raises(UserError, match=r"rois of \(10, 4\).*expected \(B, C, H, W\) and \(K, 5\)"):
        roi_align(features, rois[:, 1:], 3)
    with pytest.raises(UserError, match="image indices from 0 to 1 for 1 images; expected 0 to 0"):
        roi_align(features[:1], rois, 3)
    with pytest.raises(UserError, match="output_size=0; expected two positive numbers"):
        roi_align(features, rois, 0)
    with pytest.raises(UserError, match="pool_mode='mean'; expected 'avg' or 'max'"):
        roi_align(features, rois, 3, pool_mode="mean")  # type: ignore[arg-type]
    rois[4, 2] = torch.nan
    with pytest.raises(UserError, match=r"roi 4 = \[0.0, 60.0, nan.*expected finite numbers"):
        roi_align(features, rois, 3)
    with pytest.raises(UserError, match=r"\(2, 3, 0, 11\).*expected a map of at least one cell"):
        roi_align(features[:, :, :0], rois[:1], 3)


@pytest.mark.parametrize("aligned", [True, False])
def test_boxes_in_groups_of_similar_size_pool_as_all_together(
    aligned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = torch.randn(2, 3, 12, 15, dtype=torch.float64)
    corners = 40 * torch.rand(30, 2, dtype=torch.float64)
    sides = 60 * torch.rand(30, 2, dtype=torch.float64)
    image = torch.arange(30, dtype=torch.float64)[:, None] % 2
    rois = torch.cat([image, corners, corners + sides], dim=1)
    results = []
    for budget in (2**17, 40, 1):
        monkeypatch.setattr("swin_dense.ops._roi_align._PADDED_SAMPLES", budget)
        leaf = features.clone().requires_grad_()
        pooled = roi_align(leaf, rois, (3, 2), 0.5, 0, aligned)
        pooled.square().sum().backward()
        results.append((pooled.detach(), leaf.grad))
    for pooled, grad in results[1:]:
        torch.testing.assert_close(pooled, results[0][0])
        torch.testing.assert_close(grad, results[0][1])


def test_one_giant_box_among_many_costs_little_memory() -> None:
    import resource

    features = torch.ones(1, 2, 20, 20)
    rois = torch.tensor([[0.0, 2.0, 2.0, 12.0, 12.0]]).repeat(300, 1)
    rois[17] = torch.tensor([0.0, -1e6, -1e6, 1e6, 1e6])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pooled = roi_align(features, rois, 7, 0.25)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 600
    torch.testing.assert_close(pooled[16], torch.ones_like(pooled[16]))
    assert 0 < float(pooled[17].max()) < 1e-3  # nearly all of its samples are outside
