"""What every backbone promises. ``zoo.py`` says how one joins."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import swin_dense
from swin_dense import UserError, load_pretrained
from swin_dense.backbones.base import Backbone
from swin_dense.layers.drop_path import DropPath
from swin_dense.registry import MODELS
from tests.backbones.zoo import NAMES, ZOO, build, class_name, weighted_sum

every_backbone = pytest.mark.parametrize("name", ZOO)
CASES = [(name, size) for name, entry in ZOO.items() for size in entry.sizes]
RAGGED = (97, 130)


def test_every_registered_backbone_is_in_the_zoo() -> None:
    import swin_dense.backbones  # noqa: F401

    registered = {
        name
        for name, kind in MODELS.module_dict.items()
        if isinstance(kind, type) and issubclass(kind, Backbone)
    }
    assert registered == {class_name(name) for name in ZOO}


@every_backbone
def test_parameter_names_are_frozen(name: str) -> None:
    expected = (NAMES / f"{name}.txt").read_text().split()
    assert sorted(build(name).state_dict()) == sorted(expected)


@pytest.mark.parametrize(("name", "image_hw"), CASES)
def test_maps_are_as_declared_at_divisible_and_ragged_sizes(
    name: str, image_hw: tuple[int, int]
) -> None:
    model, cells = build(name), ZOO[name].cells
    maps = model(torch.randn(2, 3, *image_hw))
    assert isinstance(maps, tuple)
    assert [tuple(feature.shape) for feature in maps] == [
        (2, channels, *(cells(side, stride) for side in image_hw))
        for channels, stride in zip(model.out_channels, model.out_strides, strict=True)
    ]
    assert all(feature.isfinite().all() for feature in maps)


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if entry.subset])
def test_chosen_maps_equal_those_among_all(name: str) -> None:
    subset = ZOO[name].subset
    assert subset is not None
    whole, part = build(name).eval(), build(name, out_indices=subset).eval()
    part.load_state_dict(whole.state_dict(), strict=False)
    assert part.out_channels == tuple(whole.out_channels[index] for index in subset)
    assert part.out_strides == tuple(whole.out_strides[index] for index in subset)
    images = torch.randn(1, 3, *RAGGED)
    with torch.no_grad():
        expected = [whole(images)[index] for index in subset]
        for got, want in zip(part(images), expected, strict=True):
            assert torch.equal(got, want)


@every_backbone
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = build(name)
    weighted_sum(model(torch.randn(2, 3, *RAGGED))).backward()
    for key, parameter in model.named_parameters():
        if key.startswith(ZOO[name].unused):
            assert parameter.grad is None, f"{key} is used after all"
        else:
            assert parameter.grad is not None, f"no gradient for {key}"
            assert parameter.grad.isfinite().all(), f"gradient of {key} is not finite"
            assert parameter.grad.abs().sum() > 0, f"no gradient for {key}: it is zero"


OURS = [name for name in ZOO if class_name(name) != "TimmBackbone"]  # whose names are timm's


@pytest.mark.parametrize("name", OURS)
def test_every_published_arch_builds_and_another_name_is_refused(name: str) -> None:
    kind = getattr(swin_dense, class_name(name))
    assert kind.architectures
    for arch in kind.architectures:
        with torch.device("meta"):
            model = kind(arch)
        assert len(model.out_channels) == len(model.out_strides)
    with pytest.raises(UserError, match=r"arch='no_such_arch'.*expected one of"):
        kind("no_such_arch")


@every_backbone
def test_a_step_in_which_every_branch_is_dropped_still_counts(name: str) -> None:
    model = build(name, drop_path_rate=0.999)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.999
    maps = model(torch.randn(2, 3, *RAGGED))
    assert all(feature.isfinite().all() for feature in maps)
    weighted_sum(maps).backward()
    for key, parameter in model.named_parameters():
        if not key.startswith(ZOO[name].unused):
            assert parameter.grad is not None, f"no gradient for {key}"


FREEZING = [(name, count) for name, entry in ZOO.items() for count in entry.frozen]


@pytest.mark.parametrize(("name", "frozen_stages"), FREEZING)
def test_frozen_stages_freeze_exactly_what_they_say(name: str, frozen_stages: int) -> None:
    model = build(name, frozen_stages=frozen_stages)
    assert model.train() is model
    assert model.eval() is model
    model.train()
    frozen = {key for key, value in model.named_parameters() if not value.requires_grad}
    begin = ZOO[name].frozen[frozen_stages]
    assert frozen == {key for key, _ in model.named_parameters() if key.startswith(begin)}
    assert frozen
    for key, module in model.named_modules():
        owned = {f"{key}.{inner}" for inner, _ in module.named_parameters()}
        if owned and isinstance(module, (nn.LayerNorm, nn.Conv2d, nn.BatchNorm2d)):
            assert module.training == (not owned <= frozen), key


@every_backbone
def test_nothing_is_frozen_unless_asked(name: str) -> None:
    assert all(parameter.requires_grad for parameter in build(name).parameters())


@every_backbone
def test_checkpointing_changes_neither_values_nor_gradients(name: str) -> None:
    plain = build(name, drop_path_rate=0.3)
    saving = build(name, drop_path_rate=0.3, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, *RAGGED)
    results: list[list[Any]] = []
    for model in (plain, saving):
        torch.manual_seed(5)
        maps = model(images)
        weighted_sum(maps).backward()
        results.append([*maps, *(parameter.grad for parameter in model.parameters())])
    for got, want in zip(*results, strict=True):
        assert (got is None and want is None) or torch.equal(got, want)


@every_backbone
def test_weights_under_official_names_fill_everything(name: str) -> None:
    source = build(name, init_cfg=None)
    fresh = build(name)
    report = load_pretrained(fresh, {"model": source.state_dict()})
    assert (report.format, report.scope, report.coverage) == ("official", "backbone", 1.0)
    assert (report.missing, report.unexpected, report.resized) == ([], [], [])
    for key, value in source.named_parameters():
        assert torch.equal(fresh.get_parameter(key), value), key


@every_backbone
def test_a_detectors_weights_fill_the_backbone_through_init_cfg(name: str, tmp_path: Any) -> None:
    source = build(name)
    path = tmp_path / "detector.pth"
    state = {f"backbone.{key}": value for key, value in source.state_dict().items()}
    torch.save({"state_dict": state}, path)
    fresh = build(name, init_cfg=dict(type="swin_dense.Pretrained", checkpoint=str(path)))
    fresh.init_weights()
    for key, value in source.named_parameters():
        assert torch.equal(fresh.get_parameter(key), value), key


@every_backbone
def test_weights_of_other_architectures_are_one_clear_error(name: str) -> None:
    model = build(name)
    own = type(model).checkpoint_family
    strangers = {other: build(other) for other in ZOO}
    foreign: dict[str, dict[str, torch.Tensor]] = {
        "a ResNet": {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(9)},
        **{
            other: stranger.state_dict()
            for other, stranger in strangers.items()
            if type(stranger).checkpoint_family != own
        },
    }
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for what, state in foreign.items():
        with pytest.raises(UserError, match=r"holds no .* that is known here") as caught:
            load_pretrained(model, state)
        assert next(iter(state)) in str(caught.value), what
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@every_backbone
def test_both_hosts_build_this_very_class(name: str) -> None:
    from mmdet.registry import MODELS as DETECTION
    from mmseg.registry import MODELS as SEGMENTATION

    for registry in (DETECTION, SEGMENTATION):
        built = registry.build(dict(type=f"swin_dense.{class_name(name)}", **ZOO[name].options))
        assert type(built) is getattr(swin_dense, class_name(name))


@every_backbone
def test_a_misspelt_option_is_named_with_the_one_that_was_meant(name: str) -> None:
    with pytest.raises(UserError, match=r"'drop_path_ratio' \(did you mean 'drop_path_rate'"):
        build(name, drop_path_ratio=0.1)


MISTAKES = [
    pytest.param(name, options, words, id=f"{name}-{re.sub('[^a-z_]+', '-', str(options))}")
    for name, entry in ZOO.items()
    for options, words in [*entry.mistakes, *entry.bad]
]


@pytest.mark.parametrize(("name", "options", "words"), MISTAKES)
def test_wrong_options_say_what_was_got_and_expected(
    name: str, options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        build(name, **options)
    for word in words:
        assert word in str(caught.value)


@every_backbone
@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (3, 64, 64), (1, 3, 0, 64)])
def test_images_of_the_wrong_shape_are_named(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=re.escape(str(shape)) + r".*\(B, 3, H, W\)"):
        build(name)(torch.zeros(shape))


@every_backbone
def test_bf16_autocast_stays_near_fp32_with_finite_gradients(name: str) -> None:
    model = build(name)
    images = torch.randn(2, 3, *RAGGED)
    exact = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(images)
    for got, want in zip(rounded, exact, strict=True):
        assert (got.float() - want).abs().mean() < 0.05 * want.abs().mean()
    weighted_sum(rounded).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
