"""The ``plugins`` option of every backbone of our own: where they stand, what they are told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import swin_dense
from swin_dense import UserError, load_pretrained
from swin_dense.registry import MODELS
from tests.backbones.zoo import ZOO, build, class_name, weighted_sum

OURS = [name for name in ZOO if class_name(name) != "TimmBackbone"]  # whose stages are timm's
ours = pytest.mark.parametrize("name", OURS)

CBAM = dict(
    cfg=dict(type="swin_dense.CBAM", ratio=4),
    stages=(False, True, True, True),
    position="after_stage",
)
RAGGED = (97, 130)


class Tilt(nn.Module):
    """Scales channels by factors from 1 to 2, which no norm takes out, and keeps what it got."""

    _abbr_ = "tilt"

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.factors = torch.linspace(1, 2, in_channels)[:, None, None]
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x * self.factors


class Halve(nn.Module):
    """Drops every other row and column: no plugin."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2, ::2]


def plugged(plain: nn.Module, name: str, kind: type[nn.Module], stage: int, **options: Any) -> Any:
    """A backbone with a plugin behind one stage and the weights of the plain one."""
    chosen = tuple(index == stage for index in range(4))
    model = build(name, plugins=[dict(cfg=dict(type=kind), stages=chosen)], **options)
    model.load_state_dict(plain.state_dict(), strict=False)
    return model.eval()


@ours
def test_the_map_that_leaves_and_the_next_stage_both_see_a_plugin(name: str) -> None:
    plain = build(name).eval()
    model = plugged(plain, name, Tilt, 1)
    inside = plugged(plain, name, Tilt, 1, out_indices=(0, 2))
    images = torch.randn(2, 3, *RAGGED)
    with torch.no_grad():
        before, after, others = plain(images), model(images), inside(images)
    (seen,) = model.plugins["1"][0].seen
    assert seen.shape == before[1].shape
    assert model.plugins["1"][0].in_channels == plain.out_channels[1]
    assert torch.equal(after[0], before[0])
    for index in (1, 2, 3):
        assert (after[index] - before[index]).abs().max() > 1e-3 * before[index].abs().max()
    assert torch.equal(others[0], after[0])
    assert torch.equal(others[1], after[2])  # the next stage sees it where the map does not leave


@ours
def test_a_plugin_stands_before_the_norm_of_the_map_that_leaves(name: str) -> None:
    plain = build(name).eval()
    model = plugged(plain, name, Tilt, 3)
    plugin = model.plugins["3"][0]
    images = torch.randn(1, 3, *RAGGED)
    with torch.no_grad():
        before, after = plain(images), model(images)
        tilted = plugin.seen[0] * plugin.factors
        if name.startswith("PVT"):  # v2's norm is part of the stage, before the plugin
            assert torch.equal(plugin.seen[0], before[3])
        else:
            norm = model.norm3
            tilted = norm(tilted.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(after[3], tilted)
    for index in range(3):
        assert torch.equal(after[index], before[index])


@ours
def test_names_of_the_plain_model_stay_and_plugins_have_their_stages_width(name: str) -> None:
    model, plain = build(name, plugins=[CBAM]), build(name)
    added = [key for key in model.state_dict() if key not in plain.state_dict()]
    assert set(plain.state_dict()) == set(model.state_dict()) - set(added)
    assert {key.split(".")[:3][1] for key in added} == {"1", "2", "3"}
    assert all(key.startswith("plugins.") for key in added)
    widths = [model.plugins[str(i)][0].ChannelGate.mlp[1].in_features for i in (1, 2, 3)]
    assert tuple(widths) == model.out_channels[1:]


@ours
def test_every_parameter_of_a_plugin_gets_a_gradient(name: str) -> None:
    model = build(name, plugins=[CBAM])
    weighted_sum(model(torch.randn(2, 3, *RAGGED))).backward()
    for key, parameter in model.named_parameters():
        if key.startswith("plugins."):
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
    assert model.plugins["2"][0].SpatialGate.spatial["conv"].weight.grad.abs().sum() > 0


@ours
def test_a_plugin_that_starts_as_the_identity_changes_nothing_after_initialisation(
    name: str,
) -> None:
    plugin = dict(cfg=dict(type="swin_dense.SelfAttention", num_heads=1))
    plain, model = build(name).eval(), build(name, plugins=[plugin]).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    assert sorted(model.plugins) == ["0", "1", "2", "3"]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for got, want in zip(model(images), plain(images), strict=True):
            assert torch.equal(got, want)


@ours
def test_plugins_of_frozen_stages_are_frozen(name: str) -> None:
    plugin = dict(cfg=dict(type="swin_dense.CBAM", ratio=4))
    model = build(name, plugins=[plugin], frozen_stages=2).train()
    for stage in range(4):
        gates = model.plugins[str(stage)]
        assert all(each.requires_grad == (stage >= 2) for each in gates.parameters())
        assert gates[0].SpatialGate.spatial["bn"].training == (stage >= 2)


@ours
def test_pretrained_weights_leave_plugins_fresh_and_say_so(name: str) -> None:
    source, model = build(name), build(name, plugins=[CBAM])
    fresh = {key: value.clone() for key, value in model.plugins.state_dict().items()}
    report = load_pretrained(model, {"model": source.state_dict()})
    names = {f"plugins.{key}" for key in fresh}
    assert set(report.missing) == names == set(report.missing_expected)
    assert report.missing_suspicious == report.unexpected == []
    assert "missing, as expected" in str(report)
    for key, value in model.plugins.state_dict().items():
        assert torch.equal(value, fresh[key])
    for key, value in source.named_parameters():
        assert torch.equal(model.get_parameter(key), value), key
    again = load_pretrained(build(name, plugins=[CBAM]), model.state_dict())
    assert (again.coverage, again.missing) == (1.0, [])


@ours
def test_a_host_builds_plugins_from_its_config(name: str) -> None:
    from mmdet.registry import MODELS as DETECTION
    from mmengine.config import ConfigDict

    cfg = ConfigDict(
        type=f"swin_dense.{class_name(name)}",
        **ZOO[name].options,
        plugins=[
            CBAM,
            dict(cfg=dict(type="ContextBlock", ratio=0.25), stages=[True, *[False] * 3]),
        ],
    )
    model = DETECTION.build(cfg)
    kinds = {stage: [type(layer).__name__ for layer in model.plugins[stage]] for stage in "0123"}
    assert kinds == {"0": ["ContextBlock"], "1": ["CBAM"], "2": ["CBAM"], "3": ["CBAM"]}
    maps = model(torch.randn(1, 3, *RAGGED))
    assert tuple(each.shape[1] for each in maps) == model.out_channels


def test_plugins_stand_in_the_order_given() -> None:
    entries = [dict(cfg=dict(type=f"swin_dense.{kind}")) for kind in ("PEGPosition", "SE")]
    model = build("SwinTransformer", plugins=entries)
    assert [type(layer).__name__ for layer in model.plugins["0"]] == ["PEGPosition", "SE"]


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ([dict(type="swin_dense.SE")], ["plugins[0] is {'type'", "dict(cfg="]),
        (["swin_dense.SE"], ["plugins[0] is 'swin_dense.SE'"]),
        ([CBAM, dict(cfg=dict(type="swin_dense.CBAN"))], ["plugins[1]", "mean 'swin_dense.CBAM'"]),
        ([dict(cfg=dict(ratio=4))], ["expected a type"]),
        ([dict(cfg=dict(type="swin_dense.SE", in_channels=9))], ["no in_channels"]),
        ([dict(cfg=dict(type="swin_dense.SE", ration=4))], ["unexpected keyword", "ration"]),
        ([dict(cfg=dict(type="swin_dense.SE", ratio=999))], ["`ratio` (=999)"]),
        ([{**CBAM, "stages": (True, True)}], ["stages=(True, True)", "each of 4 stages"]),
        ([{**CBAM, "stages": (1, 2, 3)}], ["stages=(1, 2, 3)", "True or False"]),
        ([{**CBAM, "stages": "last"}], ["stages='last'"]),
        ([{**CBAM, "position": "after_conv3"}], ["'after_conv3'", "'after_stage'"]),
        ([{**CBAM, "stage": (True,)}], ["stage=(True,)", "did you mean 'stages'"]),
    ],
)
def test_a_wrong_entry_says_what_was_got_and_expected(plugins: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        build("SwinTransformer", plugins=plugins)
    for word in words:
        assert word in str(caught.value)


@ours
def test_a_plugin_that_changes_the_shape_is_named(name: str) -> None:
    model = plugged(build(name), name, Halve, 2)
    with pytest.raises(UserError, match=r"plugin Halve makes \(1, .*expected the shape it takes"):
        model(torch.randn(1, 3, 64, 64))


def test_a_plugin_of_ones_own_by_name() -> None:
    MODELS.register_module(name="TiltOfTheTest", module=Tilt)
    try:
        model = swin_dense.SwinTransformer(
            **ZOO["SwinTransformer"].options,
            plugins=[dict(cfg=dict(type="swin_dense.TiltOfTheTest"))],
        )
        assert [model.plugins[stage][0].in_channels for stage in "0123"] == [16, 32, 64, 128]
    finally:
        MODELS.module_dict.pop("TiltOfTheTest")
