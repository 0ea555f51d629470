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
from swin_dense.errors import UserError

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


def test_mmdet_and_mmseg_resolve_to_this_very_class() -> None:
    from mmdet.registry import MODELS as DETECTION
    from mmseg.registry import MODELS as SEGMENTATION

    for registry in (DETECTION, SEGMENTATION):
        assert registry.get("swin_dense.SwinTransformer") is swin_dense.SwinTransformer
        built = registry.build(
            dict(type="swin_dense.SwinTransformer", arch="tiny", depths=(1, 1, 1, 1))
        )
        assert type(built) is swin_dense.SwinTransformer


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [("T", 27_520_698), ("small", 48_838_602), ("b", 86_745_016), ("Large", 194_998_164)],
)
def test_each_arch_has_the_published_parameter_count(arch: str, parameters: int) -> None:
    with torch.device("meta"):
        model = swin_dense.SwinTransformer(arch)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("image_hw", [(64, 96), (65, 97), (4, 4), (33, 7)])
def test_maps_have_the_declared_channels_and_strides(image_hw: tuple[int, int]) -> None:
    model = mini(out_indices=(1, 3))
    with torch.no_grad():
        maps = model(torch.randn(1, 3, *image_hw))
    assert model.out_channels == (48, 192)
    assert model.out_strides == (8, 32)
    for feature, channels, stride in zip(maps, model.out_channels, model.out_strides, strict=True):
        assert feature.shape == (1, channels, *(-(-side // stride) for side in image_hw))


def test_official_parameter_names_are_frozen() -> None:
    names = list(mini(depths=(1, 1), num_heads=(1, 2), use_abs_pos_embed=True).state_dict())
    block = [
        "norm1.weight", "norm1.bias", "attn.relative_position_bias_table", "attn.qkv.weight",
        "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias", "norm2.weight", "norm2.bias",
        "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
    ]  # fmt: skip
    assert names == [
        "absolute_pos_embed",
        *(
            f"patch_embed.{leaf}"
            for leaf in ("proj.weight", "proj.bias", "norm.weight", "norm.bias")
        ),
        *(f"layers.0.blocks.0.{leaf}" for leaf in block),
        *(
            f"layers.0.downsample.{leaf}"
            for leaf in ("norm.weight", "norm.bias", "reduction.weight")
        ),
        *(f"layers.1.blocks.0.{leaf}" for leaf in block),
        *("norm0.weight", "norm0.bias", "norm1.weight", "norm1.bias"),
    ]


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


def test_checkpointing_changes_neither_values_nor_gradients() -> None:
    plain = mini(drop_path_rate=0.3).train()
    saving = mini(drop_path_rate=0.3, with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 70, 90)
    results = []
    for model in (plain, saving):
        torch.manual_seed(5)
        maps = model(images)
        weighted_sum(maps).backward()
        results.append((maps, [p.grad for p in model.parameters()]))
    for got, want in zip(results[1][0], results[0][0], strict=True):
        assert torch.equal(got, want)
    for got, want in zip(results[1][1], results[0][1], strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("image_hw", [(224, 224), (160, 96), (61, 250)])
def test_absolute_position_embedding_fits_any_image_size(image_hw: tuple[int, int]) -> None:
    model = mini(use_abs_pos_embed=True).train()
    weighted_sum(model(torch.randn(1, 3, *image_hw))).backward()
    assert model.absolute_pos_embed.grad.abs().sum() > 0


def test_bf16_autocast_stays_near_fp32() -> None:
    model = mini().eval()
    images = torch.randn(1, 3, 90, 70)
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(images)
    for got, want in zip(rounded, exact, strict=True):
        assert (got.float() - want).abs().mean() < 0.02 * want.abs().mean() + 0.01


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(arch="tyni"), ["tyni", "did you mean 'tiny'", "small"]),
        (dict(num_heads=(5, 2, 3, 4)), ["24 channels", "num_heads[0]=5"]),
        (dict(num_heads=(1, 2)), ["4 stages", "(1, 2)"]),
        (dict(strides=(4, 2, 2, 1)), ["(4, 2, 2, 1)", "(4, 2, 2, 2)"]),
        (dict(out_indices=(0, 4)), ["(0, 4)", "0 to 3"]),
        (dict(frozen_stages=5), ["frozen_stages=5", "4 (all)"]),
        (dict(norm_cfg=dict(type="BN")), ["'BN'", "'LN'"]),
        (dict(act_cfg=dict(type="Gelu")), ["'Gelu'", "GELU"]),
        (dict(pretrained="a.pth", init_cfg=dict(type="Pretrained", checkpoint="b")), ["both"]),
    ],
)
def test_wrong_options_say_what_was_got_and_expected(
    options: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        mini(**options)
    for word in words:
        assert word in str(caught.value)


def test_a_misspelt_option_fails_at_build() -> None:
    with pytest.raises(TypeError, match="drop_path_ratio"):
        mini(drop_path_ratio=0.1)


def test_images_of_the_wrong_shape_are_named() -> None:
    with pytest.raises(UserError, match=r"\(1, 4, 32, 32\).*\(B, 3, H, W\)"):
        mini()(torch.zeros(1, 4, 32, 32))
