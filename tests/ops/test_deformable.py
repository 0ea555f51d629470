"""Deformable attention and modulated deformable convolution against loops and plain convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.errors import UserError
from swin_dense.ops import modulated_deform_conv2d, multi_scale_deformable_attention
from tests.ops import loops

EXACT = dict(rtol=1e-11, atol=1e-11)
LEVELS = [(4, 5), (3, 2), (1, 1)]


def attention_sample(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two images, three queries, two heads, three levels, two points, some of them outside."""
    value = torch.randn(2, 27, 2, 3, dtype=dtype)
    locations = torch.rand(2, 3, 2, 3, 2, 2, dtype=dtype) * 1.6 - 0.3
    weights = torch.rand(2, 3, 2, 3, 2, dtype=dtype)
    return value, torch.tensor(LEVELS), locations, weights


CONVOLUTIONS: list[dict[str, Any]] = [
    dict(),
    dict(stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    dict(padding=(1, 1), groups=2),
    dict(padding=(1, 1), deform_groups=2),
    dict(stride=(2, 2), padding=(1, 1), groups=2, deform_groups=4),
]


def convolution_sample(
    options: dict[str, Any], dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Images (2, 4, 6, 7) for a kernel of 3 x 2, with offsets that reach outside."""
    weight = torch.randn(4, 4 // options.get("groups", 1), 3, 2, dtype=dtype)
    images = torch.randn(2, 4, 6, 7, dtype=dtype)
    plain = {key: options[key] for key in ("stride", "padding", "dilation") if key in options}
    out_hw = F.conv2d(images[:, :1], weight[:1, :1], **plain).shape[2:]
    taps = 6 * options.get("deform_groups", 1)
    return {
        "images": images,
        "offset": 2 * torch.randn(2, 2 * taps, *out_hw, dtype=dtype),
        "mask": torch.rand(2, taps, *out_hw, dtype=dtype),
        "weight": weight,
        "bias": torch.randn(4, dtype=dtype),
    }


def test_attention_and_its_gradients_are_those_of_the_loop() -> None:
    value, shapes, locations, weights = attention_sample()
    leaves = [leaf.requires_grad_() for leaf in (value, locations, weights)]
    mixed = multi_scale_deformable_attention(value, shapes, locations, weights)
    grad = torch.randn_like(mixed)
    grads = torch.autograd.grad(mixed, leaves, grad)
    arrays = [leaf.detach().numpy() for leaf in leaves]
    expected = loops.deformable_attention(arrays[0], LEVELS, arrays[1], arrays[2], grad.numpy())
    for ours, theirs in zip((mixed.detach(), *grads), expected, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(theirs), **EXACT)


def test_attention_passes_gradcheck_in_every_input() -> None:
    value, shapes, locations, weights = attention_sample()
    leaves = [leaf.requires_grad_() for leaf in (value, locations, weights)]
    assert torch.autograd.gradcheck(
        lambda v, at, w: multi_scale_deformable_attention(v, shapes, at, w), leaves
    )


def test_attention_by_hand_on_a_cell_centre_between_two_and_outside() -> None:
    value = torch.tensor([1.0, 2, 4, 8]).view(1, 4, 1, 1)
    places = torch.tensor([[0.25, 0.25], [0.5, 0.75], [1.5, 0.5]]).view(1, 3, 1, 1, 1, 2)
    weights = torch.full((1, 3, 1, 1, 1), 3.0)
    mixed = multi_scale_deformable_attention(value, torch.tensor([[2, 2]]), places, weights)
    assert mixed.flatten().tolist() == [3.0, 18.0, 0.0]


def test_attention_does_not_mind_the_order_of_points_and_mirrors_with_its_maps() -> None:
    value, shapes, locations, weights = attention_sample()
    mixed = multi_scale_deformable_attention(value, shapes, locations, weights)
    swapped = multi_scale_deformable_attention(value, shapes, locations.flip(4), weights.flip(4))
    torch.testing.assert_close(swapped, mixed)
    parts = value.split([20, 6, 1], dim=1)
    mirrored = torch.cat(
        [
            part.unflatten(1, level_hw).flip(2).flatten(1, 2)
            for part, level_hw in zip(parts, LEVELS, strict=True)
        ],
        dim=1,
    )
    places = torch.stack([1 - locations[..., 0], locations[..., 1]], dim=-1)
    torch.testing.assert_close(
        multi_scale_deformable_attention(mirrored, shapes, places, weights), mixed
    )


@pytest.mark.parametrize(("batch", "queries"), [(0, 3), (2, 0)])
def test_attention_of_no_images_or_no_queries_is_empty(batch: int, queries: int) -> None:
    value, shapes, locations, weights = attention_sample()
    value.requires_grad_()
    mixed = multi_scale_deformable_attention(
        value[:batch], shapes, locations[:batch, :queries], weights[:batch, :queries]
    )
    assert mixed.shape == (batch, queries, 6)
    mixed.sum().backward()
    assert torch.equal(value.grad, torch.zeros_like(value))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_on_half_values_keeps_float32_locations(dtype: torch.dtype) -> None:
    value, shapes, locations, weights = attention_sample(torch.float32)
    half = value.to(dtype)
    expected = multi_scale_deformable_attention(half.float(), shapes, locations, weights).to(dtype)
    assert torch.equal(multi_scale_deformable_attention(half, shapes, locations, weights), expected)
    with torch.autocast("cpu", torch.bfloat16):
        strided = half.transpose(1, 3).contiguous().transpose(1, 3)
        mixed = multi_scale_deformable_attention(strided, shapes, locations, weights)
    assert torch.equal(mixed, expected)


@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_convolution_and_its_gradients_are_those_of_the_loop(options: dict[str, Any]) -> None:
    inputs = convolution_sample(options)
    for leaf in inputs.values():
        leaf.requires_grad_()
    result = modulated_deform_conv2d(**inputs, **options)
    grad = torch.randn_like(result)
    grads = torch.autograd.grad(result, list(inputs.values()), grad)
    geometry = dict(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, deform_groups=1)
    expected, expected_grads = loops.modulated_deform_conv(
        **{name: leaf.detach().numpy() for name, leaf in inputs.items()},
        **{**geometry, **options},
        grad=grad.numpy(),
    )
    torch.testing.assert_close(result.detach(), torch.from_numpy(expected), **EXACT)
    for name, ours in zip(inputs, grads, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(expected_grads[name]), **EXACT, msg=name)


def test_convolution_passes_gradcheck_in_every_input() -> None:
    options = CONVOLUTIONS[4]
    inputs = convolution_sample(options)
    leaves = [leaf.requires_grad_() for leaf in inputs.values()]
    assert torch.autograd.gradcheck(
        lambda *leaves: modulated_deform_conv2d(*leaves, **options), leaves, fast_mode=True
    )


@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_with_no_offset_and_a_full_mask_it_is_a_convolution(options: dict[str, Any]) -> None:
    inputs = convolution_sample(options)
    inputs["offset"] = torch.zeros_like(inputs["offset"])
    inputs["mask"] = torch.ones_like(inputs["mask"])
    plain = {key: value for key, value in options.items() if key != "deform_groups"}
    expected = F.conv2d(inputs["images"], inputs["weight"], inputs["bias"], **plain)
    torch.testing.assert_close(modulated_deform_conv2d(**inputs, **options), expected)


def test_an_offset_of_whole_cells_moves_the_image() -> None:
    inputs = convolution_sample({})
    inputs["mask"] = torch.ones_like(inputs["mask"])
    whole = torch.tensor([1.0, -2.0], dtype=torch.float64).repeat(6)[:, None, None]
    inputs["offset"] = whole.expand_as(inputs["offset"])
    moved = F.pad(inputs["images"], (2, -2, -1, 1))
    expected = F.conv2d(moved, inputs["weight"], inputs["bias"])
    torch.testing.assert_close(modulated_deform_conv2d(**inputs), expected)


@pytest.mark.parametrize("side", [5, 7, 11, 50, 100, 333])
def test_at_an_offset_of_zero_the_slope_is_that_to_the_next_cell(side: int) -> None:
    """Training starts there; a rounding error of a cell would give the slope to the cell before."""
    images = torch.arange(side * side).float().view(1, 1, side, side).square() / side**2
    offset = torch.zeros(1, 2, side, side, requires_grad=True)
    mask, weight = torch.ones(1, 1, side, side), torch.ones(1, 1, 1, 1)
    modulated_deform_conv2d(images, offset, mask, weight).sum().backward()
    padded = F.pad(images, (0, 1, 0, 1))
    expected = torch.cat([padded[..., 1:, :-1] - images, padded[..., :-1, 1:] - images], dim=1)
    torch.testing.assert_close(offset.grad, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_at_an_offset_of_zero_the_gradients_are_those_of_the_loop_up_to_the_padding(
    options: dict[str, Any],
) -> None:
    inputs = convolution_sample(options, torch.float32)
    inputs["offset"] = torch.zeros_like(inputs["offset"])
    leaves = [leaf.requires_grad_() for leaf in inputs.values()]
    result = modulated_deform_conv2d(**inputs, **options)
    grads = torch.autograd.grad(result.sum(), leaves)
    geometry = dict(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, deform_groups=1)
    _, expected = loops.modulated_deform_conv(
        **{name: leaf.detach().double().numpy() for name, leaf in inputs.items()},
        **{**geometry, **options},
        grad=torch.ones(result.shape).double().numpy(),
    )
    for name, ours in zip(inputs, grads, strict=True):
        loop = torch.from_numpy(expected[name]).float()
        torch.testing.assert_close(ours, loop, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_convolution_of_half_types_computes_in_float32_and_rounds_once(dtype: torch.dtype) -> None:
    options = CONVOLUTIONS[3]
    half = {k: v.to(dtype) for k, v in convolution_sample(options, torch.float32).items()}
    wide = {name: leaf.float() for name, leaf in half.items()}
    expected = modulated_deform_conv2d(**wide, **options).to(dtype)
    assert torch.equal(modulated_deform_conv2d(**half, **options), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(modulated_deform_conv2d(**half, **options), expected)


def test_convolution_takes_channels_last_images_offsets_and_weights() -> None:
    options = CONVOLUTIONS[2]
    inputs = convolution_sample(options)
    expected = modulated_deform_conv2d(**inputs, **options)
    last = {
        name: leaf.contiguous(memory_format=torch.channels_last) if leaf.dim() == 4 else leaf
        for name, leaf in inputs.items()
    }
    torch.testing.assert_close(modulated_deform_conv2d(**last, **options), expected)


def test_convolution_of_no_images_is_empty() -> None:
    inputs = convolution_sample({})
    for name in ("images", "offset", "mask"):
        inputs[name] = inputs[name][:0]
    inputs["weight"].requires_grad_()
    result = modulated_deform_conv2d(**inputs)
    assert result.shape == (0, 4, 4, 6)
    result.sum().backward()
    assert torch.equal(inputs["weight"].grad, torch.zeros(4, 4, 3, 2))


def test_wrong_input_is_named_with_what_was_expected() -> None:
    value, shapes, locations, weights = attention_sample()
    with pytest.raises(UserError, match=r"got 27 cells and levels of .*expected their products"):
        multi_scale_deformable_attention(value, shapes + 1, locations, weights)
    with pytest.raises(UserError, match=r"attention_weights \(2, 3, 2, 3, 1\); expected .*3, 2\)"):
        multi_scale_deformable_attention(value, shapes, locations, weights[..., :1])
    with pytest.raises(UserError, match=r"got value \(2, 27, 6\)"):
        multi_scale_deformable_attention(value.flatten(2), shapes, locations, weights)
    inputs = convolution_sample({})
    with pytest.raises(UserError, match=r"got offset \(2, 12, 4, 6\).*expected \(2, 12, 6, 8\)"):
        modulated_deform_conv2d(**inputs, padding=(1, 1))
    with pytest.raises(UserError, match=r"weight \(4, 4, 3, 2\) for 4 channels in 2 groups"):
        modulated_deform_conv2d(**inputs, groups=2)
    with pytest.raises(UserError, match="4 channels and deform_groups=3"):
        modulated_deform_conv2d(**inputs, deform_groups=3)
    with pytest.raises(UserError, match=r"bias \(3,\); expected \(4,\)"):
        modulated_deform_conv2d(**{**inputs, "bias": inputs["bias"][1:]})
    with pytest.raises(UserError, match="output of at least one cell"):
        modulated_deform_conv2d(**inputs, dilation=(9, 9))
