"""STN, self-attention, positions: values, gradients, ragged sizes, bfloat16, mmdet ResNet."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional

from swin_dense.errors import UserError
from swin_dense.layers.attention_plugins import (
    PEGPosition,
    SelfAttention,
    SinePosition,
    sine_encoding,
)
from swin_dense.layers.gates import CBAM, SE
from swin_dense.layers.spatial_transformer import STN, inverse

ALL = [SE, CBAM, STN, SelfAttention, SinePosition, PEGPosition]


def stirred(kind: Any, channels: int = 8) -> nn.Module:
    """A plugin whose every parameter matters."""
    options = {SE: dict(ratio=2), CBAM: dict(ratio=2), SelfAttention: dict(num_heads=2)}
    plugin: nn.Module = kind(channels, **options.get(kind, {}))
    for parameter in plugin.parameters():
        nn.init.normal_(parameter, std=0.2)
    return plugin.eval()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("hw", [(1, 1), (5, 7), (4, 9)])
def test_bfloat16_autocast_agrees_with_float32_on_ragged_maps(
    kind: Any, hw: tuple[int, int]
) -> None:
    plugin, x = stirred(kind), torch.randn(2, 8, *hw)
    expected = plugin(x)
    assert expected.shape == x.shape
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = plugin(x)
    torch.testing.assert_close(found.float(), expected, atol=0.06, rtol=0.03)


@pytest.mark.parametrize("kind", ALL)
def test_gradients_agree_with_finite_differences(kind: Any) -> None:
    plugin = stirred(kind).double()
    x = torch.randn(1, 8, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(plugin, (x,), atol=1e-4)


@pytest.mark.parametrize("kind", [STN, SelfAttention])
def test_stn_and_self_attention_start_exactly_as_the_identity(kind: Any) -> None:
    x = torch.randn(2, 16, 5, 7)
    assert torch.equal(kind(16)(x), x)


def test_stn_starts_with_the_identitys_theta_and_adds_gamma_times_the_warp() -> None:
    plugin, x = STN(4), torch.randn(2, 4, 5, 6)
    assert torch.equal(plugin.theta(x), torch.eye(2, 3).expand(2, 2, 3))
    nn.init.constant_(plugin.gamma, 0.5)
    torch.testing.assert_close(plugin(x), 1.5 * x)
    shift = 2 / 6 / plugin.max_change  # one column of six
    with torch.no_grad():
        plugin.localisation[-1].bias[2] = math.atanh(shift)
    moved = torch.cat([x[..., 1:], x[..., -1:]], 3)  # the border repeats
    torch.testing.assert_close(plugin(x), x + 0.5 * moved, atol=1e-5, rtol=1e-5)


def test_restoring_stn_warps_for_its_block_and_back() -> None:
    seen: list[torch.Tensor] = []

    class Watch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return 2 * x

    plugin, x = STN(4, mode="restore", block=Watch()), torch.randn(2, 4, 5, 8)
    torch.testing.assert_close(plugin(x), 2 * x)  # the identity at the start
    with torch.no_grad():  # one column of eight: 2 / 8
        plugin.localisation[-1].bias[2] = math.atanh(0.125 / plugin.max_change)
    found = plugin(x)
    between = (x[..., :-1] + x[..., 1:]) / 2  # half a column
    torch.testing.assert_close(seen[1][..., :-1], between, atol=1e-5, rtol=1e-5)
    expected = between[..., :-1] + between[..., 1:]  # twice the block's, half a column back
    torch.testing.assert_close(found[..., 1:-1], expected, atol=1e-5, rtol=1e-5)


def test_an_inverse_undoes_its_transformation() -> None:
    theta = torch.eye(2, 3) + 0.24 * torch.randn(50, 2, 3).tanh()
    last = torch.tensor([0.0, 0.0, 1.0]).expand(50, 1, 3)
    product = torch.cat([theta, last], 1) @ torch.cat([inverse(theta), last], 1)
    torch.testing.assert_close(product, torch.eye(3).expand(50, 3, 3), atol=1e-4, rtol=0)


def test_gradients_through_warp_block_and_inverse_agree_with_finite_differences() -> None:
    plugin = STN(3, mode="restore", block=nn.Conv2d(3, 3, 1))
    for parameter in plugin.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(plugin.double(), (x,), atol=1e-4)


def test_a_config_names_the_block_of_a_restoring_stn() -> None:
    import swin_dense.models  # noqa: F401  registers the plugins

    cfg = dict(type="swin_dense.STN", mode="restore", block=dict(type="swin_dense.CBAM", ratio=2))
    plugin = MODELS.build({**cfg, "in_channels": 4})
    assert type(plugin.block) is CBAM
    assert plugin(torch.randn(1, 4, 3, 5)).shape == (1, 4, 3, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "plain"},
        {"max_change": 1.5},
        {"mode": "restore"},
        {"block": nn.Identity()},
        {"max_change": 0.5, "mode": "restore", "block": nn.Identity()},
    ],
)
def test_stn_refuses_what_tears_maps_from_their_ground_truth(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        STN(4, **wrong)


def test_self_attention_equals_torchs_multi_head_attention() -> None:
    plugin, x = stirred(SelfAttention), torch.randn(2, 8, 3, 5)
    tokens = functional.group_norm(x, 1, plugin.norm.weight, plugin.norm.bias)
    tokens = tokens.flatten(2).permute(2, 0, 1)  # (B, C, H, W) -> (N, B, C)
    peer = nn.MultiheadAttention(8, 2)
    with torch.no_grad():
        peer.in_proj_weight.copy_(plugin.qkv.weight.flatten(1))
        peer.in_proj_bias.copy_(plugin.qkv.bias)
        peer.out_proj.weight.copy_(plugin.proj.weight.flatten(1))
        peer.out_proj.bias.copy_(plugin.proj.bias)
    mixed = peer(tokens, tokens, tokens)[0].permute(1, 2, 0).reshape(x.shape)
    torch.testing.assert_close(plugin(x), x + mixed, atol=1e-5, rtol=1e-5)


def test_the_sinusoids_are_those_of_mmdet() -> None:
    from mmdet.models.layers import SinePositionalEncoding

    peer = SinePositionalEncoding(num_feats=8, normalize=True)
    expected = peer(torch.zeros(1, 5, 7, dtype=torch.bool))[0]
    found = sine_encoding(16, 5, 7, device=torch.device("cpu"))
    torch.testing.assert_close(found, expected)


def test_channels_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="in_channels"):
        SinePosition(6)
    with pytest.raises(UserError, match="num_heads"):
        SelfAttention(6, num_heads=4)


@pytest.mark.parametrize("kind", ALL)
def test_mmdets_resnet_takes_it_before_the_residual_sum(kind: Any) -> None:
    import mmdet.models  # noqa: F401

    cfg = dict(type=f"swin_dense.{kind.__name__}")
    stages = (False, True, False, False)
    plugins = [dict(cfg=cfg, stages=stages, position="after_conv3")]
    resnet = MODELS.build(dict(type="mmdet.ResNet", depth=50, plugins=plugins))
    modules = resnet.named_modules()
    found = {name.split(".")[0] for name, module in modules if isinstance(module, kind)}
    assert found == {"layer2"}
    assert resnet.layer2[0].after_conv3_plugin_names == [kind._abbr_]
