"""The Swin backbone against the official code's records, mmdet's class, and its own contract."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import swin_dense
from swin_dense.checkpoints.keys.mm import merging_columns_mm_to_official, to_official

MINI = dict(embed_dims=24, depths=(2, 2, 2, 2), num_heads=(1, 2, 3, 4), drop_path_rate=0.0)
RECORDS = {
    "swin_t_det_hot": dict(arch="tiny"),
    "swin_ape_mini_det_hot": dict(
        embed_dims=32,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
        window_size=5,
        use_abs_pos_embed=True,
        patch_norm=False,
    ),
}


def mini(**options: object) -> swin_dense.SwinTransformer:
    return swin_dense.SwinTransformer(**{**MINI, **options})


def mmdet_twin(model: swin_dense.SwinTransformer, **options: object) -> nn.Module:
    """mmdet's own class with the weights of ``model``, renamed by hand."""
    from mmdet.models.backbones.swin import SwinTransformer, swin_converter

    twin = SwinTransformer(**{**MINI, **options})
    state = swin_converter(model.state_dict())
    state = {key.removeprefix("backbone."): value for key, value in state.items()}
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("relative_position_index") for key in missing)
    return twin


def weighted_sum(maps: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """A scalar that weighs every cell differently, so that its gradient sees each."""
    generator = torch.Generator().manual_seed(1)
    return sum(
        (feature * torch.randn(feature.shape, generator=generator)).sum() for feature in maps
    )


@pytest.mark.parametrize("tag", RECORDS)
def test_maps_equal_the_official_records(tag: str, parity: ModuleType, shared: Path) -> None:
    record = json.loads((shared / "parity" / f"{tag}.json").read_text())
    model = parity.fill(swin_dense.SwinTransformer(**RECORDS[tag]))
    assert sum(parameter.numel() for parameter in model.parameters()) == record["params"]
    for name, outputs in record["inputs"].items():
        side_h, side_w = map(int, name[1:].split("x"))
        images = parity.make_input((outputs["out0"]["shape"][0], 3, side_h, side_w))
        with torch.no_grad():
            assert parity.compare(tag, name, model(images)) == []


@pytest.mark.parametrize("image_hw", [(224, 224), (97, 130), (30, 41)])
def test_values_and_every_gradient_equal_mmdets_class(
    image_hw: tuple[int, int], parity: ModuleType
) -> None:
    ours = parity.fill(mini())
    theirs = mmdet_twin(ours)
    ours.train(), theirs.train()
    images = torch.randn(2, 3, *image_hw)
    maps, expected = ours(images), theirs(images)
    for got, want in zip(maps, expected, strict=True):
        torch.testing.assert_close(got, want, atol=2e-5 * want.abs().max().item(), rtol=0)
    weighted_sum(maps).backward()
    weighted_sum(expected).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    expected_gradients = to_official(gradients)
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, f"no gradient for {name}"
        want = expected_gradients.pop(name)
        torch.testing.assert_close(
            parameter.grad,
            want,
            atol=1e-4 * want.abs().max().item(),
            rtol=0,
            msg=lambda m, n=name: f"{n}: {m}",
        )
    assert expected_gradients == {}


def test_same_seed_drops_the_same_branches_as_mmdet(parity: ModuleType) -> None:
    ours = parity.fill(mini(drop_path_rate=0.5))
    theirs = mmdet_twin(ours, drop_path_rate=0.5)
    ours.train(), theirs.train()
    images = torch.randn(4, 3, 64, 64)
    torch.manual_seed(3)
    maps = ours(images)
    torch.manual_seed(3)
    for got, want in zip(maps, theirs(images), strict=True):
        torch.testing.assert_close(got, want, atol=2e-5 * want.abs().max().item(), rtol=0)


def test_a_state_dict_of_mmdet_loads_strictly() -> None:
    ours = mini()
    theirs = mmdet_twin(ours)
    fresh = mini()
    fresh.load_state_dict(theirs.state_dict(), strict=True)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


def test_a_whole_model_with_the_mm_layout_loads_strictly() -> None:
    class Detector(nn.Module):
        def __init__(self, backbone: nn.Module) -> None:
            super().__init__()
            self.backbone = backbone
            self.head = nn.Linear(2, 2)

    ours = mini()
    theirs = Detector(mmdet_twin(ours))
    fresh = Detector(mini())
    fresh.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(fresh.head.weight, theirs.head.weight)
    assert torch.equal(
        fresh.backbone.state_dict()["layers.0.downsample.norm.bias"],
        ours.layers[0].downsample.norm.bias,
    )


def test_merging_columns_by_hand() -> None:
    mm = torch.tensor(
        [10 * c + 2 * row + col for c in range(3) for row in (0, 1) for col in (0, 1)]
    )
    official = [10 * c + 2 * row + col for col in (0, 1) for row in (0, 1) for c in range(3)]
    assert merging_columns_mm_to_official(mm).tolist() == official


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [("T", 27_520_698), ("small", 48_838_602), ("b", 86_745_016), ("Large", 194_998_164)],
)
def test_each_arch_has_the_published_parameter_count(arch: str, parameters: int) -> None:
    with torch.device("meta"):
        model = swin_dense.SwinTransformer(arch)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 2, 4])
def test_frozen_stages_freeze_what_mmdet_freezes(frozen_stages: int) -> None:
    options = dict(frozen_stages=frozen_stages, use_abs_pos_embed=False)
    ours = mini(**options)
    assert ours.train() is ours
    theirs = mmdet_twin(ours, **options)
    theirs.train()
    flags = {name: torch.tensor(p.requires_grad) for name, p in theirs.named_parameters()}
    expected = to_official({name: flag.expand(4) for name, flag in flags.items()})
    for name, parameter in ours.named_parameters():
        assert parameter.requires_grad == bool(expected[name][0]), name
    assert [stage.training for stage in ours.layers] == [stage.training for stage in theirs.stages]


def test_eval_returns_the_model_and_drops_nothing() -> None:
    model = mini(drop_path_rate=0.9, drop_rate=0.5).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(images), model(images), strict=True))


@pytest.mark.parametrize("image_hw", [(224, 224), (160, 96), (61, 250)])
def test_absolute_position_embedding_fits_any_image_size(image_hw: tuple[int, int]) -> None:
    model = mini(use_abs_pos_embed=True).train()
    weighted_sum(model(torch.randn(1, 3, *image_hw))).backward()
    assert model.absolute_pos_embed.grad.abs().sum() > 0
