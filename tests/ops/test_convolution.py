"""Convolutions that multiply less, against torch's own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.layers.convolution import Convolution, Deconvolution, replace_convolutions
from swin_dense.ops import _winograd, convolution, fused
from swin_dense.ops._products import many_small_products, products_in_onednn
from tests.ops.twins import ROUNDING, assert_twins, awake

WIDE = 192  # enough channels for Winograd's method, and maps of 40 x 41 have tiles enough
WINOGRAD_ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-5}
MAPS = {
    "whole tiles": (2, 8, 12),
    "ragged": (2, 9, 6),
    "one tile": (1, 4, 4),
    "less than a tile": (1, 2, 3),
    "one pixel": (3, 1, 1),
    "one row": (1, 1, 13),
}


def places(share: float, *shape: int) -> Tensor:
    """1 at that share of the places, 0 elsewhere."""
    generator = torch.Generator().manual_seed(3)
    return (torch.rand(shape, generator=generator) < share).float()


def only(keep: Tensor, maps: Tensor) -> Tensor:
    return maps * keep.to(maps.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("maps", MAPS)
def test_winograds_method_is_the_convolution(maps: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(*MAPS[maps], 5, dtype=torch.float64)
    weight, bias = torch.randn(7, 5, 3, 3).double(), torch.randn(7).double()
    leaves = [inputs, weight, bias]
    for leaf in leaves:
        leaf.requires_grad_()
    expected = F.conv2d(inputs.permute(0, 3, 1, 2), weight, bias, padding=1)
    grad = torch.randn_like(expected)
    expected_maps, expected_weight, _ = torch.autograd.grad(expected, leaves, grad)
    flat, kernel, offset, flow = (each.detach().to(dtype) for each in (*leaves, grad))
    flow = flow.permute(0, 2, 3, 1).contiguous()
    found = _winograd.convolve(flat, kernel, offset)
    back = _winograd.convolve(flow, _winograd.turned(kernel), None).permute(0, 2, 3, 1)
    to_weight = _winograd.weight_gradient(flat, flow, None)
    bound = WINOGRAD_ROUNDING[dtype]
    for value, exact in (
        (found, expected),
        (back, expected_maps),
        (to_weight, expected_weight),
    ):
        assert (value.double() - exact).abs().max() <= bound * exact.abs().max()


def test_a_kernel_that_only_copies_shifts_the_map() -> None:
    inputs = torch.arange(48.0).view(1, 6, 8, 1)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, 2] = 2.0  # the place above, to the right
    out = _winograd.convolve(inputs, weight, torch.tensor([0.5]))[0, 0]
    expected = torch.full((6, 8), 0.5)
    expected[1:, :-1] += 2 * inputs[0, :-1, 1:, 0]
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("maps", ["whole tiles", "ragged"])
def test_tiles_that_are_left_out_are_zero_and_the_others_as_ever(maps: str) -> None:
    torch.manual_seed(0)
    grid = torch.randn(*MAPS[maps], 5, dtype=torch.float64)
    weight = torch.randn(7, 5, 3, 3).double()
    whole = _winograd.convolve(grid, weight, None)
    part = _winograd.convolve(grid, weight, None, torch.tensor([1, 4]))
    done = part.ne(0).any(1)
    assert 0 < done.sum() < done.numel()
    torch.testing.assert_close(*(each.permute(0, 2, 3, 1)[done] for each in (part, whole)))
    assert part.permute(0, 2, 3, 1)[~done].eq(0).all()


def test_touched_tiles_hold_every_place_and_come_in_round_numbers() -> None:
    hits = torch.zeros(1, 40, 80, dtype=torch.bool)
    hits[0, 7, 12] = True  # tile (1, 3); as an input, of the tile below and the two to the left too
    own, around = _winograd.tiles_touched(hits)
    assert 1 * 20 + 3 in own.tolist()
    assert {23, 22, 43, 42} <= set(around.tolist())
    assert len(own) == len(around) == 64
    assert len(own.unique()) == 64


@pytest.mark.parametrize("share", [1.0, 0.3, 0.02, 0.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_wide_convolution_equals_its_plain_twin(dtype: torch.dtype, share: float) -> None:
    layer = awake(Convolution(WIDE, WIDE, 3, padding=1))
    keep = places(share, 1, 1, 40, 41)
    inputs = torch.randn(1, WIDE, 40, 41)
    assert convolution._suits_winograd(inputs, layer.weight, (1, 1))
    assert_twins(layer, lambda leaf: only(keep, layer(leaf)), inputs, dtype, WINOGRAD_ROUNDING)


@pytest.mark.parametrize("share", [1.0, 0.02, 0.0])
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(
    ("kernel", "padding"), [(1, 0), (3, 1), (3, 0), ((1, 5), (0, 1)), (2, (2, 1))], ids=str
)
def test_any_convolution_of_stride_1_equals_its_plain_twin(
    kernel: Any, padding: Any, dtype: torch.dtype, share: float
) -> None:
    layer = awake(Convolution(6, 4, kernel, padding=padding))
    inputs = torch.randn(2, 6, 11, 9)
    keep = places(share, 2, 1, *layer.double()(inputs.double()).shape[2:])
    assert_twins(layer, lambda leaf: only(keep, layer(leaf)), inputs, dtype)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_very_wide_convolution_in_bfloat16_errs_no_more_than_torchs(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "has_matrix_units", lambda: False)
    layer = awake(Convolution(512, 512, 3, padding=1))
    keep = places(share, 1, 1, 40, 41)
    inputs = torch.randn(1, 512, 40, 41)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution._suits_winograd(inputs, layer.weight, (1, 1))
    bound = {torch.bfloat16: 1e-3}
    assert_twins(layer, lambda leaf: only(keep, layer(leaf)), inputs, torch.bfloat16, bound)


def test_no_place_of_a_gradient_is_lost_to_a_sum_of_zero_or_to_nan() -> None:
    from swin_dense.ops._convolution_places import places_with_gradient

    grad = torch.zeros(1, 2, 2, 3)
    grad[0, :, 0, 0] = torch.tensor([1.0, -1.0])
    grad[0, 1, 0, 2] = torch.nan
    grad[0, 0, 1, 1] = -1e-44  # the smallest there are
    expected = torch.tensor([[[True, False, True], [False, True, False]]])
    assert torch.equal(places_with_gradient(grad), expected)


def test_nan_of_a_place_reaches_its_neighbours() -> None:
    layer = Convolution(WIDE, WIDE, 3, padding=1)
    inputs = torch.randn(1, WIDE, 40, 40)
    inputs[0, 0, 10, 10] = torch.nan
    assert layer(inputs)[0, :, 9:12, 9:12].isnan().all()


def test_gradients_that_nobody_wants_are_not_computed() -> None:
    for share in (1.0, 0.02):
        layer = Convolution(WIDE, WIDE, 3, padding=1)
        layer.weight.requires_grad_(False)
        inputs = torch.randn(1, WIDE, 40, 40, requires_grad=True)
        (layer(inputs) * places(share, 1, 1, 40, 40)).sum().backward()
        assert layer.weight.grad is None
        assert layer.bias is not None
        assert layer.bias.grad is not None
        assert inputs.grad is not None


def test_a_caller_may_change_the_result_in_place() -> None:
    torch.manual_seed(0)
    for channels in (WIDE, 3):
        plain = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True))
        fast = copy.deepcopy(plain)
        replace_convolutions(fast)
        grads = []
        for model in (plain.double(), fast.double()):
            inputs = torch.ones(1, channels, 40, 40, dtype=torch.float64, requires_grad=True)
            model(inputs).square().sum().backward()
            grads.append(inputs.grad)
        torch.testing.assert_close(*grads)


def test_without_fast_paths_it_is_torchs_convolution_to_the_last_bit() -> None:
    layer = Convolution(WIDE, WIDE, 3, padding=1)
    inputs = torch.randn(1, WIDE, 40, 40)
    with fused.plain():
        assert torch.equal(layer(inputs), nn.Conv2d.forward(layer, inputs))
        assert torch.equal(layer(inputs), F.conv2d(inputs, layer.weight, layer.bias, padding=1))
    assert not torch.equal(layer(inputs), F.conv2d(inputs, layer.weight, layer.bias, padding=1))


def test_an_empty_batch_passes() -> None:
    layer = Convolution(WIDE, 4, 3, padding=1)
    inputs = torch.zeros(0, WIDE, 14, 14, requires_grad=True)
    out = layer(inputs)
    assert out.shape == (0, 4, 14, 14)
    out.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.eq(0).all()


def test_convolutions_are_replaced_where_they_can_and_keep_their_names_and_weights() -> None:
    class Own(nn.Conv2d):
        pass

    model = nn.ModuleDict(
        dict(
            three=nn.Conv2d(4, 4, 3, padding=1),
            one=nn.Conv2d(4, 4, 1),
            strided=nn.Conv2d(4, 4, 3, stride=2),
            dilated=nn.Conv2d(4, 4, 3, dilation=2),
            grouped=nn.Conv2d(4, 4, 3, groups=4),
            reflecting=nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
            same=nn.Conv2d(4, 4, 3, padding="same"),
            own=Own(4, 4, 3),
        )
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert replace_convolutions(model) == 2
    assert replace_convolutions(model) == 0
    assert [name for name, each in model.items() if type(each) is Convolution] == ["three", "one"]
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    again = pickle.loads(pickle.dumps(model["three"]))
    inputs = torch.randn(1, 4, 5, 5)
    assert torch.equal(again(inputs), model["three"](inputs))


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("kernel", [2, (1, 3), 1], ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_a_transposed_convolution_without_overlap_equals_its_plain_twin(
    biased: bool, kernel: Any, dtype: torch.dtype
) -> None:
    layer = awake(Deconvolution(6, 4, kernel, stride=kernel, bias=biased))
    assert_twins(layer, layer, torch.randn(3, 6, 5, 7), dtype)


def test_transposed_convolutions_are_replaced_where_outputs_do_not_overlap() -> None:
    from mmcv.cnn import build_upsample_layer

    mask_heads = build_upsample_layer(
        dict(type="deconv", in_channels=4, out_channels=3, kernel_size=2, stride=2)
    )
    model = nn.ModuleList(
        [
            nn.ConvTranspose2d(4, 3, 2, stride=2),
            mask_heads,
            nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1),
            nn.ConvTranspose2d(4, 2, 2, stride=2, groups=2),
            nn.ConvTranspose2d(4, 3, 2, stride=3),
            nn.ConvTranspose2d(4, 3, 2, stride=2, output_padding=1),
        ]
    )
    inputs = torch.randn(2, 4, 5, 6)
    before = [layer(inputs) for layer in model]
    assert replace_convolutions(model) == 2
    assert [type(layer) is Deconvolution for layer in model] == [True] * 2 + [False] * 4
    for layer, expected in zip(model, before, strict=True):
        torch.testing.assert_close(layer(inputs), expected)
    assert model[0](inputs, [11, 13]).shape == (2, 3, 11, 13)  # torch's way to ask for a rim
    assert model[0](inputs[:0]).shape == (0, 3, 10, 12)
    out = F.relu(model[0](inputs), inplace=True)  # a result may be changed in place
    out.sum().backward()


def test_blocks_that_choose_a_library_put_torchs_setting_back() -> None:
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    with many_small_products():
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_num_threads() == 1
    for block in (many_small_products, products_in_onednn):
        with pytest.raises(KeyError, match="inside"), block():
            raise KeyError("inside")
        assert torch.get_float32_matmul_precision() == before
        assert torch.get_num_threads() == threads
