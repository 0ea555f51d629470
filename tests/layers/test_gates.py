"""SE and CBAM: against a record, a case by hand, finite differences, and mmdet's ResNet."""

from __future__ import annotations

import math
import re
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from swin_dense.errors import UserError
from swin_dense.layers.gates import CBAM, SE


def test_cbam_and_its_channel_gate_equal_the_official_record(parity: ModuleType) -> None:
    model = parity.fill(CBAM(64))
    image = parity.make_input((2, 64, 13, 17))
    maps = [model(image), model.ChannelGate(image)]
    assert parity.compare("cbam64_hot", "i2x64x13x17", maps) == []


def test_se_of_two_channels_worked_by_hand() -> None:
    layer = SE(2, ratio=2)
    with torch.no_grad():
        layer.fc1.weight.copy_(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1))
        layer.fc1.bias.fill_(1.0)
        layer.fc2.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        layer.fc2.bias.zero_()
    image = torch.tensor([[[[2.0, 4.0]], [[1.0, 3.0]]]])  # means 3 and 2: hidden 3 - 2 + 1 = 2
    gates = 1 / (1 + torch.exp(torch.tensor([-2.0, 2.0])))
    torch.testing.assert_close(layer(image), image * gates.view(1, 2, 1, 1))


POOLED = {"avg": 3.5, "max": 4.0, "lp": 5.0, "lse": 4.3132617 + 0.6931472}
"""Of the channels (3, 4) and (0, 0), summed: root of 9 + 16; 4 + ln(1 + 1 / e) and ln 2."""


@pytest.mark.parametrize(
    "pool_types", [("avg", "max"), ("lp",), ("lse",), ("avg", "max", "lp", "lse")]
)
def test_cbams_poolings_worked_by_hand(pool_types: tuple[str, ...]) -> None:
    gate = CBAM(2, ratio=2, pool_types=pool_types, no_spatial=True)
    mlp = gate.ChannelGate.mlp
    with torch.no_grad():
        mlp[1].weight.copy_(torch.tensor([[1.0, 1.0]]))  # the hidden channel sums the two
        mlp[1].bias.zero_()
        mlp[3].weight.copy_(torch.tensor([[0.1], [-0.1]]))
        mlp[3].bias.copy_(torch.tensor([0.05, 0.0]))  # counts once for each pooling
    image = torch.tensor([[[[3.0, 4.0]], [[0.0, 0.0]]]], requires_grad=True)
    total = sum(POOLED[kind] for kind in pool_types)
    first = 1 / (1 + math.exp(-(0.1 * total + 0.05 * len(pool_types))))
    got = gate(image)
    torch.testing.assert_close(got, torch.tensor([[[[3 * first, 4 * first]], [[0.0, 0.0]]]]))
    got.sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()  # the root at 0 too


def test_an_exponential_of_large_values_does_not_overflow() -> None:
    gate = CBAM(2, ratio=2, pool_types=("lse",))
    assert gate(torch.full((1, 2, 3, 3), 1e4)).isfinite().all()


@pytest.mark.parametrize(
    ("pool_types", "words"),
    [
        (("avg", "maks"), "'maks' (did you mean 'max'?); expected avg, max, lp, lse"),
        ((), "`pool_types` is (); expected one or more"),
        (("avg", "avg"), "each once"),
        ("avg", "`pool_types` is 'avg'; expected one or more"),
    ],
)
def test_wrong_poolings_are_named(pool_types: Any, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        CBAM(16, pool_types=pool_types)


def test_the_parameter_names_are_frozen() -> None:
    assert [name for name, _ in SE(16).named_parameters()] == [
        "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias",
    ]  # fmt: skip
    assert [name for name, _ in CBAM(16).named_parameters()] == [
        "ChannelGate.mlp.1.weight", "ChannelGate.mlp.1.bias",
        "ChannelGate.mlp.3.weight", "ChannelGate.mlp.3.bias",
        "SpatialGate.spatial.conv.weight",
        "SpatialGate.spatial.bn.weight", "SpatialGate.spatial.bn.bias",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [SE, CBAM])
def test_gradients_equal_finite_differences_on_a_ragged_map(kind: type[nn.Module]) -> None:
    layer = kind(4, ratio=2).double().eval()
    image = torch.randn(2, 4, 3, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (image,))


@pytest.mark.parametrize("kind", [SE, CBAM])
def test_bfloat16_autocast_stays_near_float32(kind: type[nn.Module]) -> None:
    layer, image = kind(32).eval(), torch.randn(1, 32, 7, 9)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(image)
    torch.testing.assert_close(low.float(), layer(image), atol=0.03, rtol=0.03)


def test_a_ratio_that_leaves_no_hidden_channel_is_refused() -> None:
    with pytest.raises(UserError, match=r"`ratio` \(=16\).*`in_channels` \(=8\)"):
        SE(8)


@pytest.mark.parametrize(("name", "kind"), [("SE", SE), ("CBAM", CBAM)])
def test_mmdet_resnet_builds_it_as_a_plugin(name: str, kind: type[nn.Module]) -> None:
    from mmdet.models.backbones.resnet import ResNet

    plugin = dict(
        cfg=dict(type=f"swin_dense.{name}"),
        stages=(False, True, False, False),
        position="after_conv3",
    )
    found = [n for n, m in ResNet(50, plugins=[plugin]).named_modules() if type(m) is kind]
    assert found == [f"layer2.{block}.{name.lower()}" for block in range(4)]
