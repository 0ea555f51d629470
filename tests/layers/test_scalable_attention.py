"""SSA and IWSA against the formulas written out, values and gradients, and PEG by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.errors import UserError
from swin_dense.layers.position import PEG
from swin_dense.layers.scalable_attention import InteractiveWindowAttention, ScalableSelfAttention


def strong(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return layer


def by_heads(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    """Attention head by head: (N, c), (K, c), (K, C) -> (N, C)."""
    mixed = []
    for q, k, v in zip(*(part.chunk(heads, dim=-1) for part in (query, key, value)), strict=True):
        mixed.append((scale * q @ k.T).softmax(dim=-1) @ v)
    return torch.cat(mixed, dim=-1)


def plain_ssa(layer: ScalableSelfAttention, tokens: Tensor) -> Tensor:
    """SSA of one image, (H, W, C), patch by patch."""
    height, width, channels = tokens.shape
    side = layer.spatial_ratio
    query = layer.q(tokens.view(-1, channels))
    if side == 1:
        key, value = layer.kv(tokens.view(-1, channels)).chunk(2, dim=-1)
    else:
        depthwise, pointwise = layer.reduction
        rows = []
        for top in range(0, height - side + 1, side):
            for left in range(0, width - side + 1, side):
                patch = tokens[top : top + side, left : left + side]  # (r, r, C)
                kernel = depthwise.weight[:, 0].permute(1, 2, 0)
                summed = (patch * kernel).sum(dim=(0, 1)) + depthwise.bias
                rows.append(pointwise.weight[:, :, 0, 0] @ summed + pointwise.bias)
        norm = layer.norm_act[0]
        reduced = F.layer_norm(torch.stack(rows), norm.normalized_shape, norm.weight, norm.bias)
        reduced = F.gelu(reduced)
        key, value = layer.k(reduced), layer.v(reduced)
    mixed = by_heads(query, key, value, layer.num_heads, layer.scale)
    return layer.proj(mixed).view(height, width, -1)


def plain_iwsa(layer: InteractiveWindowAttention, tokens: Tensor) -> Tensor:
    """IWSA of one image, (H, W, C), window by window."""
    height, width, channels = tokens.shape
    side = layer.window_size
    padded = torch.zeros(height + -height % side, width + -width % side, channels)
    padded = torch.cat([tokens, padded[:height, width:]], dim=1)
    padded = torch.cat([padded, padded.new_zeros(-height % side, *padded.shape[1:])], dim=0)
    rows = []
    for top in range(0, padded.shape[0], side):
        row = []
        for left in range(0, padded.shape[1], side):
            window = padded[top : top + side, left : left + side].reshape(-1, channels)
            query, key, value = layer.qkv(window).chunk(3, dim=-1)
            mixed = by_heads(query, key, value, layer.num_heads, layer.scale)
            row.append(mixed.view(side, side, channels))
        rows.append(torch.cat(row, dim=1))
    attended = torch.cat(rows, dim=0)[:height, :width]
    values = layer.qkv(tokens)[..., 2 * channels :]
    conv = layer.lim_func
    around = F.pad(values, (0, 0, 1, 1, 1, 1))
    local = conv.bias + sum(
        around[down : down + height, right : right + width] * conv.weight[:, 0, down, right]
        for down in range(3)
        for right in range(3)
    )
    return layer.proj(attended + local)


def assert_equal_in_values_and_gradients(layer: nn.Module, plain: object, tokens: Tensor) -> None:
    leaves = {"tokens": tokens.requires_grad_(), **dict(layer.named_parameters())}
    got, want = layer(tokens), torch.stack([plain(layer, image) for image in tokens])  # type: ignore[operator]
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)
    pull = torch.randn_like(want)
    gradients = torch.autograd.grad(got, list(leaves.values()), pull)
    expected = torch.autograd.grad(want, list(leaves.values()), pull)
    for name, gradient, other in zip(leaves, gradients, expected, strict=True):
        atol = 5e-5 * max(other.abs().max().item(), 1.0)
        torch.testing.assert_close(gradient, other, atol=atol, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("spatial", "channel", "hw"),
    [(2, 1.25, (5, 4)), (2, 0.25, (2, 3)), (3, 2.0, (7, 3)), (1, 1.0, (3, 4)), (1, 1.25, (1, 1))],
)
def test_ssa_is_the_formula(spatial: int, channel: float, hw: tuple[int, int]) -> None:
    layer = ScalableSelfAttention(16, num_heads=2, spatial_ratio=spatial, channel_ratio=channel)
    assert layer.scale == pytest.approx((8 * channel) ** -0.5)
    assert_equal_in_values_and_gradients(strong(layer), plain_ssa, torch.randn(2, *hw, 16))


@pytest.mark.parametrize("hw", [(3, 6), (4, 5), (1, 1), (7, 2)])
def test_iwsa_is_the_formula_on_whole_and_on_ragged_grids(hw: tuple[int, int]) -> None:
    layer = InteractiveWindowAttention(8, num_heads=2, window_size=3)
    assert_equal_in_values_and_gradients(strong(layer), plain_iwsa, torch.randn(2, *hw, 8))


def test_ssa_names_a_map_that_is_too_small() -> None:
    layer = ScalableSelfAttention(8, num_heads=1, spatial_ratio=4, channel_ratio=1.0)
    with pytest.raises(UserError, match=r"by 4 got a map of 3 x 9 tokens; expected at least 4"):
        layer(torch.zeros(1, 3, 9, 8))


def test_dropout_on_attention_drops_in_training_alone() -> None:
    options = dict(num_heads=2, attn_drop_rate=0.5)
    for layer in (
        ScalableSelfAttention(16, spatial_ratio=2, channel_ratio=0.5, **options),
        InteractiveWindowAttention(16, window_size=4, **options),
    ):
        tokens = torch.randn(1, 8, 8, 16)
        assert not torch.equal(strong(layer)(tokens), layer(tokens))
        layer.eval()
        assert torch.equal(layer(tokens), layer(tokens))


def test_peg_adds_a_depthwise_convolution_by_hand() -> None:
    peg = PEG(2)
    nn.init.zeros_(peg.proj[0].weight)
    peg.proj[0].weight.data[0, 0, 1, 2] = 3.0  # three times the right neighbour
    peg.proj[0].weight.data[1, 0, 0, 1] = -1.0  # less the neighbour above
    peg.proj[0].bias.data = torch.tensor([10.0, 0.0])
    tokens = torch.tensor([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0], [4.0, 8.0]]).view(1, 2, 2, 2)
    expected = [[[17.0, 5.0], [12.0, 6.0]], [[25.0, 2.0], [14.0, 2.0]]]
    assert peg(tokens)[0].tolist() == expected
