"""Focal attention against the official procedure written out, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from swin_dense.layers.focal_attention import FocalAttention
from swin_dense.ops.windows import relative_position_index, window_partition, window_reverse


def rolled_twin(layer: FocalAttention, tokens: Tensor, pooled: Tensor | None) -> Tensor:
    """The official procedure: four rolled copies cut into windows, masked, and one by one an unfold
    of the pooled map; every key that is listed twice is there twice."""
    side, expand, heads = layer.window_size, layer.expand, layer.num_heads
    batch, height, width, channels = tokens.shape

    def heads_first(windows: Tensor) -> Tensor:
        return windows.view(*windows.shape[:2], heads, -1).transpose(1, 2)

    query, key, value = layer.qkv(tokens).chunk(3, dim=-1)
    index = relative_position_index(side)
    own = layer.relative_position_bias_table[index.view(-1)].view(side**2, side**2, heads)
    biases = [own.permute(2, 0, 1)]
    keys, values = [window_partition(key, side)], [window_partition(value, side)]
    if expand:
        for down, right in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            keep = torch.ones(side, side, dtype=torch.bool)
            rows = slice(None, -expand) if down < 0 else slice(expand, None)
            columns = slice(None, -expand) if right < 0 else slice(expand, None)
            keep[rows, columns] = False
            for source, collected in ((key, keys), (value, values)):
                rolled = torch.roll(source, (down * expand, right * expand), dims=(1, 2))
                collected.append(window_partition(rolled, side)[:, keep.flatten()])
        biases.append(layer.relative_position_bias_table_to_neighbors[0])
    masks = [torch.zeros(keys[0].shape[0], sum(part.shape[1] for part in keys))]
    if pooled is not None:
        reach, (rows, columns) = layer.reach, pooled.shape[1:3]
        unfold = nn.Unfold(reach, padding=reach // 2)
        inside = unfold(torch.ones(1, 1, rows, columns))[0].T.repeat(batch, 1)
        masks.append(torch.where(inside == 0, -100.0, 0.0))
        for source, collected in zip(
            layer.qkv(pooled).chunk(3, dim=-1)[1:], (keys, values), strict=True
        ):
            columns_of_windows = unfold(source.permute(0, 3, 1, 2))
            cut = columns_of_windows.view(batch, channels, reach**2, rows * columns)
            collected.append(cut.permute(0, 3, 2, 1).flatten(0, 1))
        table = layer.relative_position_bias_table_to_windows[0]
        span = side + reach - 1
        bias = torch.empty(heads, side**2, reach**2)
        for token in range(side**2):
            for window in range(reach**2):
                row = token // side - window // reach + reach - 1
                column = token % side - window % reach + reach - 1
                bias[:, token, window] = table[:, row * span + column]
        biases.append(bias)
    logits = heads_first(window_partition(query, side)) * layer.scale
    logits = logits @ heads_first(torch.cat(keys, dim=1)).transpose(-2, -1)
    logits = logits + torch.cat(biases, dim=-1) + torch.cat(masks, dim=1)[:, None, None]
    mixed = logits.softmax(dim=-1) @ heads_first(torch.cat(values, dim=1))
    mixed = mixed.transpose(1, 2).reshape(-1, side**2, channels)
    return layer.proj(window_reverse(mixed, side, (height, width)))


def strong(layer: FocalAttention) -> FocalAttention:
    """Give the layer weights under which every bias shows."""
    for name, parameter in layer.named_parameters():
        nn.init.normal_(parameter, std=1.0 if "table" in name else 0.4)
    return layer


CASES = [(7, 3, 7), (7, 3, 1), (7, 0, 3), (7, 3, 0), (4, 2, 5), (5, 1, 3)]


@pytest.mark.parametrize(("window", "expand", "reach"), CASES)
@pytest.mark.parametrize("windows_hw", [(1, 1), (2, 3)])
def test_values_and_gradients_are_those_of_the_official_procedure(
    window: int, expand: int, reach: int, windows_hw: tuple[int, int]
) -> None:
    layer = strong(FocalAttention(12, num_heads=3, window_size=window, expand=expand, reach=reach))
    tokens = torch.randn(2, windows_hw[0] * window, windows_hw[1] * window, 12, requires_grad=True)
    pooled = torch.randn(2, *windows_hw, 12, requires_grad=True) if reach else None
    leaves = {"tokens": tokens, **dict(layer.named_parameters())}
    if pooled is not None:
        leaves["pooled"] = pooled
    got, want = layer(tokens, pooled), rolled_twin(layer, tokens, pooled)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)
    pull = torch.randn_like(want)
    gradients = torch.autograd.grad(got, list(leaves.values()), pull)
    expected = torch.autograd.grad(want, list(leaves.values()), pull)
    for name, gradient, other in zip(leaves, gradients, expected, strict=True):
        scale = other.abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(gradient, other, atol=2e-5 * scale, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("expand", "reach"), [(3, 7), (3, 0)])
def test_the_fused_path_without_a_record_gives_the_same_values(expand: int, reach: int) -> None:
    layer = strong(FocalAttention(16, num_heads=2, window_size=7, expand=expand, reach=reach))
    tokens = torch.randn(2, 7 * 9, 7 * 8, 16)  # 144 windows: more than are fused at once
    pooled = torch.randn(2, 9, 8, 16) if reach else None
    recorded = layer(tokens, pooled)
    assert recorded.requires_grad
    with torch.no_grad():
        fused = layer(tokens, pooled)
    torch.testing.assert_close(fused, recorded.detach(), atol=1e-5, rtol=1e-5)


def test_without_pooled_windows_the_map_is_a_torus() -> None:
    layer = strong(FocalAttention(8, num_heads=2, window_size=4, expand=2, reach=0))
    tokens = torch.randn(1, 12, 8, 8)
    moved = layer(torch.roll(tokens, (4, 4), dims=(1, 2)), None)
    torch.testing.assert_close(moved, torch.roll(layer(tokens, None), (4, 4), dims=(1, 2)))


def test_dropout_on_attention_drops_in_training_alone() -> None:
    layer = strong(
        FocalAttention(8, num_heads=2, window_size=4, expand=2, reach=1, attn_drop_rate=0.5)
    )
    tokens, pooled = torch.randn(1, 8, 8, 8), torch.randn(1, 2, 2, 8)
    with torch.no_grad():
        assert not torch.equal(layer(tokens, pooled), layer(tokens, pooled))
        layer.eval()
        assert torch.equal(layer(tokens, pooled), layer(tokens, pooled))
