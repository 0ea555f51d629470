"""The Swin V2 backbone against the official code's records, and its own contract."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import swin_dense
from swin_dense.layers.cosine_attention import log_spaced_offsets, unit_vectors

MINI = dict(embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), drop_path_rate=0.0)
RECORDS = {
    "swinv2_t_w8_hot": dict(arch="tiny"),
    "swinv2_mini_hot": dict(
        embed_dims=32,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
        pretrained_window_sizes=(6, 6, 6, 3),
    ),
}


def mini(**options: object) -> swin_dense.SwinTransformerV2:
    return swin_dense.SwinTransformerV2(**{"window_size": 5, **MINI, **options})


def awake(model: nn.Module) -> nn.Module:
    """Give the post norms a weight: as they start, every block is the identity."""
    for name, parameter in model.named_parameters():
        if ".norm1." in name or ".norm2." in name:
            nn.init.normal_(parameter, 0.5, 0.2)
        elif name.endswith(("q_bias", "v_bias")):
            nn.init.normal_(parameter, 0.0, 0.2)
    return model


def weighted_sum(maps: tuple[Tensor, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return sum(
        (feature.float() * torch.randn(feature.shape, generator=generator)).sum()
        for feature in maps
    )


def stage_maps(model: swin_dense.SwinTransformerV2, images: Tensor) -> list[Tensor]:
    """The maps before the output norms, which the official classification code does not have."""
    seen: list[Tensor] = []
    hooks = [
        getattr(model, f"norm{index}").register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].permute(0, 3, 1, 2))
        )
        for index in model.out_indices
    ]
    last = model(images)[-1]
    for hook in hooks:
        hook.remove()
    return [*seen, last]


@pytest.mark.parametrize("tag", RECORDS)
def test_stages_and_last_norm_equal_the_official_records(
    tag: str, parity: ModuleType, shared: Path
) -> None:
    record = json.loads((shared / "parity" / f"{tag}.json").read_text())
    model = parity.fill(swin_dense.SwinTransformerV2(clamp_small_maps=True, **RECORDS[tag]))
    with torch.no_grad():
        for leaf, parameter in model.norm3.named_parameters():  # the official code's one norm
            values = parity.fill_array(
                f"norm.{leaf}", parameter.shape, is_norm_weight=leaf == "weight"
            )
            parameter.copy_(torch.from_numpy(values))
        (name,) = record["inputs"]
        side = int(name[1:].split("x")[0])
        maps = stage_maps(model, parity.make_input((1, 3, side, side)))
    assert len(maps) == 5
    assert parity.compare(tag, name, maps) == []


def test_clamping_changes_only_maps_that_are_not_larger_than_the_window(
    parity: ModuleType,
) -> None:
    images = torch.randn(1, 3, 128, 128)  # grids of 32, 16, 8 and 4, windows of 5
    with torch.no_grad():
        constant = parity.fill(mini())(images)
        clamped = parity.fill(mini(clamp_small_maps=True))(images)
    assert [torch.equal(a, b) for a, b in zip(constant, clamped, strict=True)] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("image_hw", [(97, 130), (30, 41), (4, 4)])
def test_values_and_gradients_are_finite_on_ragged_images(
    image_hw: tuple[int, int], dtype: torch.dtype
) -> None:
    exact = awake(mini()).train()
    model = awake(mini()).to(dtype).train()
    model.load_state_dict(exact.state_dict())
    images = torch.randn(2, 3, *image_hw)
    maps, expected = model(images.to(dtype)), exact(images)
    weighted_sum(maps).backward()
    for got, want in zip(maps, expected, strict=True):
        assert got.dtype == dtype
        error = (got.float() - want).abs().mean() / want.abs().mean()
        assert error < {torch.float16: 0.01, torch.bfloat16: 0.1, torch.float32: 1e-6}[dtype]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"no gradient for {name}"
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_stays_near_fp32_with_finite_gradients(dtype: torch.dtype) -> None:
    model = awake(mini()).train()
    images = torch.randn(1, 3, 90, 70)
    exact = model(images)
    with torch.autocast("cpu", dtype):
        rounded = model(images)
    for got, want in zip(rounded, exact, strict=True):
        assert (got.float() - want).abs().mean() < 0.05 * want.abs().mean()
    weighted_sum(rounded).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_unit_vectors_have_length_one_and_a_zero_vector_stays_zero(dtype: torch.dtype) -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    units = unit_vectors(vectors)
    torch.testing.assert_close(
        units.float(), torch.tensor([[0.6, 0.8], [0.0, 0.0]]), atol=3e-3, rtol=0
    )
    units.sum().backward()
    assert vectors.grad[1].tolist() == [0.0, 0.0]
    assert vectors.grad[0].isfinite().all()


def test_offsets_are_log_spaced_by_the_pretrained_window() -> None:
    table = log_spaced_offsets(3, 0)[0]
    assert table[2, 2].tolist() == [0.0, 0.0]
    assert table[0, 2, 0].item() == pytest.approx(-math.log2(9) / 3)  # a whole window
    assert table[3, 2, 0].item() == pytest.approx(math.log2(5) / 3)  # half of it
    wider = log_spaced_offsets(3, 5)[0]
    assert wider[0, 2, 0].item() == pytest.approx(-math.log2(5) / 3)
    assert log_spaced_offsets(1, 0).tolist() == [[[[0.0, 0.0]]]]


def test_fresh_blocks_are_the_identity() -> None:
    tokens = torch.randn(1, 6, 7, 16)
    assert torch.equal(mini().layers[0](tokens), tokens)


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [("T", 27_578_154), ("small", 48_959_418), ("b", 86_893_816), ("Large", 195_202_932)],
)
def test_each_arch_has_the_official_parameter_count(arch: str, parameters: int) -> None:
    """The official figure counts one norm on stage 4; norm0 to norm2 are ours."""
    with torch.device("meta"):
        model = swin_dense.SwinTransformerV2(arch, out_indices=(3,))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
