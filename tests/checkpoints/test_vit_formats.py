"""Weights of other projects' own ViT classes load into ours and give the same maps."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import swin_dense
from swin_dense import UserError, load_pretrained
from swin_dense.checkpoints.families.vit import resize_patches, resize_positions
from swin_dense.checkpoints.keys.vit import jax_to_official, official_to_hf, official_to_mm
from tests.checkpoints.peers import assert_close, timm_module

DIM, HEADS, LAYERS, SIDE = 32, 2, 3, 64
SIZES = dict(embed_dims=DIM, num_heads=HEADS, num_layers=LAYERS, pretrain_img_size=SIDE)


def vit(**options: Any) -> swin_dense.VisionTransformer:
    return swin_dense.VisionTransformer(**{**SIZES, "final_norm": True, **options}).eval()


def fill(peer: nn.Module, parity: ModuleType) -> Any:
    """``peer`` with values far from a fresh model's."""
    parity.fill(peer)
    peer.eval()  # mmseg's returns None
    return peer


def map_of(tokens: Tensor, grid_hw: tuple[int, int] = (4, 4)) -> Tensor:
    """(B, L, C) with any tokens first -> (B, C, H, W)."""
    cells = grid_hw[0] * grid_hw[1]
    return tokens[:, -cells:].transpose(1, 2).unflatten(2, grid_hw)


def check(ours: nn.Module, report: Any, got: Tensor, images: Tensor, layout: str) -> None:
    assert (report.format, report.coverage, report.missing) == (layout, 1.0, [])
    with torch.no_grad():
        assert_close(list(ours(images)), [got])


@pytest.mark.parametrize("scale", [None, 0.7])
def test_timm(scale: float | None, parity: ModuleType) -> None:
    peer = fill(
        timm_module("vision_transformer").VisionTransformer(
            img_size=SIDE,
            embed_dim=DIM,
            depth=LAYERS,
            num_heads=HEADS,
            num_classes=5,
            init_values=scale,
        ),
        parity,
    )
    ours, images = vit(layer_scale=scale), torch.randn(2, 3, SIDE, SIDE)
    report = load_pretrained(ours, peer.state_dict())
    assert report.unexpected == ["head.bias", "head.weight"]
    with torch.no_grad():
        got = map_of(peer.forward_features(images))
    check(ours, report, got, images, "official")


def test_distilled_deit_with_and_without_its_token(parity: ModuleType) -> None:
    peer = fill(
        timm_module("deit").VisionTransformerDistilled(
            img_size=SIDE, embed_dim=DIM, depth=LAYERS, num_heads=HEADS, num_classes=5
        ),
        parity,
    )
    ours, images = vit(with_dist_token=True), torch.randn(2, 3, SIDE, SIDE)
    report = load_pretrained(ours, {"model": peer.state_dict()})
    with torch.no_grad():
        tokens = peer.forward_features(images)
        assert_close([ours.maps_and_tokens(images)[1]], [tokens[:, :2]])
    check(ours, report, map_of(tokens), images, "official")

    plain = vit()
    report = load_pretrained(plain, {"model": peer.state_dict()})
    assert report.resized == ["pos_embed"]
    assert "dist_token" in report.unexpected
    assert report.coverage == 1.0
    assert torch.equal(plain.pos_embed[:, 0], peer.pos_embed[:, 0])
    assert torch.equal(plain.pos_embed[:, 1:], peer.pos_embed[:, 2:])


def test_deit_iii_adds_no_position_to_its_class_token(parity: ModuleType) -> None:
    peer = fill(
        timm_module("vision_transformer").VisionTransformer(
            img_size=SIDE,
            embed_dim=DIM,
            depth=LAYERS,
            num_heads=HEADS,
            init_values=1e-6,
            no_embed_class=True,
            num_classes=5,
        ),
        parity,
    )
    official = {
        name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): value
        for name, value in peer.state_dict().items()
    }
    ours = vit(layer_scale=1e-6, pretrain_use_cls_token=False)
    images = torch.randn(2, 3, SIDE, SIDE)
    report = load_pretrained(ours, {"model": official})
    with torch.no_grad():
        got = map_of(peer.forward_features(images))
    check(ours, report, got, images, "official")


@pytest.mark.parametrize(
    "name", ["ViTModel", "ViTForImageClassification", "DeiTModel", "ViTMAEModel"]
)
def test_transformers(name: str, parity: ModuleType, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="run `make setup`")
    kind = "DeiT" if name.startswith("DeiT") else "ViTMAE" if "MAE" in name else "ViT"
    options = dict(
        hidden_size=DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * DIM,
        image_size=SIDE,
        layer_norm_eps=1e-6,
    )
    if kind == "ViTMAE":
        options["mask_ratio"] = 0.0
    peer = fill(
        getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**options)), parity
    )
    images = torch.randn(2, 3, SIDE, SIDE)
    inner = getattr(peer, "vit", peer)
    with torch.no_grad():
        if kind == "ViTMAE":  # which shuffles its patches
            order = torch.arange(16.0).expand(2, -1)
            got = map_of(inner(images, noise=order).last_hidden_state)
        else:
            got = map_of(inner(images).last_hidden_state)
    peer.save_pretrained(tmp_path)
    from_memory, from_file = (vit(with_dist_token=kind == "DeiT") for _ in range(2))
    check(from_memory, load_pretrained(from_memory, peer.state_dict()), got, images, "hf")
    report = load_pretrained(from_file, tmp_path / "model.safetensors")
    check(from_file, report, got, images, "hf")


def test_transformers_vitdet_with_windows_and_relative_positions(parity: ModuleType) -> None:
    transformers = pytest.importorskip("transformers", reason="run `make setup`")
    config = transformers.VitDetConfig(
        hidden_size=DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=SIDE,
        pretrain_image_size=SIDE,
        window_size=3,
        window_block_indices=[0, 2],
        residual_block_indices=[1],
        use_relative_position_embeddings=True,
        layer_norm_eps=1e-6,
        out_features=["stage3"],
    )
    peer = fill(transformers.VitDetBackbone(config), parity)
    ours = vit(
        final_norm=False,
        img_size=SIDE,
        window_size=3,
        window_block_indexes=(0, 2),
        residual_block_indexes=(1,),
        use_rel_pos=True,
    )
    images = torch.randn(1, 3, SIDE, SIDE)
    report = load_pretrained(ours, peer.state_dict())
    with torch.no_grad():
        (got,) = peer(images).feature_maps
    check(ours, report, got, images, "hf")


def test_mmseg_at_a_ragged_size(parity: ModuleType) -> None:
    from mmseg.models.backbones import VisionTransformer

    peer = fill(
        VisionTransformer(
            img_size=SIDE,
            embed_dims=DIM,
            num_layers=LAYERS,
            num_heads=HEADS,
            out_indices=(0, 2),
            norm_cfg=dict(type="LN", eps=1e-6),
            final_norm=True,
        ),
        parity,
    )
    ours = vit(out_indices=(0, 2))
    report = load_pretrained(ours, peer.state_dict())
    assert (report.format, report.coverage, report.unexpected) == ("mm", 1.0, [])
    for side_h, side_w in ((64, 64), (97, 130), (16, 40)):
        images = torch.randn(2, 3, side_h, side_w)
        with torch.no_grad():
            assert_close(list(ours(images)), list(peer(images)))


def test_names_go_there_and_back() -> None:
    state = vit(with_dist_token=True).state_dict()
    for there, layout in ((official_to_mm, "mm"), (official_to_hf, "hf")):
        fresh = vit(with_dist_token=True)
        report = load_pretrained(fresh, there(state))
        assert (report.format, report.coverage) == (layout, 1.0)
        for name, value in fresh.state_dict().items():
            assert torch.equal(value, state[name]), name


def test_googles_arrays(parity: ModuleType, tmp_path: Path) -> None:
    """timm's own reader of these files is the reference."""
    vision_transformer = timm_module("vision_transformer")
    peer = vision_transformer.VisionTransformer(
        img_size=SIDE, embed_dim=DIM, depth=LAYERS, num_heads=HEADS, num_classes=5
    )
    rng = np.random.default_rng(0)
    head = DIM // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "embedding/kernel": (16, 16, 3, DIM),
        "embedding/bias": (DIM,),
        "cls": (1, 1, DIM),
        "head/kernel": (DIM, 5),
        "head/bias": (5,),
        "Transformer/posembed_input/pos_embedding": (1, 17, DIM),
        "Transformer/encoder_norm/scale": (DIM,),
        "Transformer/encoder_norm/bias": (DIM,),
    }
    for index in range(LAYERS):
        block = f"Transformer/encoderblock_{index}/"
        attention = block + "MultiHeadDotProductAttention_1/"
        for part in ("query", "key", "value"):
            shapes |= {f"{attention}{part}/kernel": (DIM, HEADS, head)}
            shapes |= {f"{attention}{part}/bias": (HEADS, head)}
        shapes |= {f"{attention}out/kernel": (HEADS, head, DIM), f"{attention}out/bias": (DIM,)}
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}{norm}/scale": (DIM,), f"{block}{norm}/bias": (DIM,)}
        for layer, (width, out) in enumerate(((DIM, 4 * DIM), (4 * DIM, DIM))):
            shapes |= {f"{block}MlpBlock_3/Dense_{layer}/kernel": (width, out)}
            shapes |= {f"{block}MlpBlock_3/Dense_{layer}/bias": (out,)}
    arrays = {key: rng.normal(size=shape).astype(np.float32) * 0.3 for key, shape in shapes.items()}
    path = tmp_path / "ViT.npz"
    np.savez(path, **arrays)
    peer.load_pretrained(str(path))
    official = jax_to_official({key: torch.from_numpy(value) for key, value in arrays.items()})
    for name, value in peer.state_dict().items():
        if not name.startswith("head"):
            assert torch.equal(value, official[name]), name
    ours = vit()
    report = load_pretrained(ours, path)
    assert (report.format, report.coverage) == ("jax", 1.0)
    assert torch.equal(
        ours.state_dict()["blocks.1.attn.qkv.weight"], official["blocks.1.attn.qkv.weight"]
    )


def test_detectron2_from_a_whole_detector(tmp_path: Path) -> None:
    options = dict(final_norm=False, img_size=SIDE, window_size=3, use_rel_pos=True, num_layers=4)
    source, ours = vit(**options), vit(**options)
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    state = {f"backbone.net.{name}": value.numpy() for name, value in source.state_dict().items()}
    state["backbone.simfp_2.0.weight"] = np.zeros((8, 8, 2, 2), np.float32)
    report = load_pretrained(ours, {"model": state})
    assert (report.format, report.coverage) == ("official", 1.0)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_a_classifier_fills_vitdet_but_its_relative_positions() -> None:
    source = vit()
    state = {
        **source.state_dict(),
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_embed.weight": torch.zeros(8, 8),
    }
    ours = vit(final_norm=False, img_size=96, window_size=3, use_rel_pos=True)
    report = load_pretrained(ours, {"model": state})
    assert all(".rel_pos_" in name for name in report.missing)
    assert report.missing == report.missing_expected
    assert set(report.unexpected) == {
        "cls_token",
        "decoder_embed.weight",
        "mask_token",
        "norm.bias",
        "norm.weight",
    }


@pytest.mark.parametrize(
    "stranger", ["norm_pre.weight", "reg_token", "blocks.0.attn.relative_position_bias_table"]
)
def test_relatives_that_compute_something_else_are_refused(stranger: str) -> None:
    state = {**vit().state_dict(), stranger: torch.zeros(4)}
    with pytest.raises(UserError, match=r"holds no ViT that is known here"):
        load_pretrained(vit(), state)


def test_rows_of_tokens_stay_and_new_ones_begin_from_the_class_token() -> None:
    table = torch.arange(1.0, 6.0).view(1, 5, 1)  # a class token's row, and a grid of 2 x 2
    assert resize_positions(table, 4).flatten().tolist() == [2.0, 3.0, 4.0, 5.0]
    assert resize_positions(table, 6).flatten().tolist() == [1.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert resize_positions(table[:, 1:], 5).flatten().tolist() == [0.0, 2.0, 3.0, 4.0, 5.0]
    larger = resize_positions(table, 10)
    assert larger.shape == (1, 10, 1)
    assert larger[0, 0] == 1.0
    assert torch.allclose(larger[0, 1:].mean(), torch.tensor(3.5))


def test_patches_of_another_side_see_a_plain_colour_alike() -> None:
    weight = torch.rand(8, 3, 14, 14)
    resized = resize_patches(weight, torch.empty(8, 3, 16, 16))
    assert resized.shape == (8, 3, 16, 16)
    torch.testing.assert_close(resized.sum((1, 2, 3)), weight.sum((1, 2, 3)), rtol=0.02, atol=0)
