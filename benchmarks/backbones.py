"""The same Swin as several projects have it, with equal weights, as functions of images.

Each contender gives the four maps after their norms, (B, C, H, W). Classes come from PyPI; the
official one from a checkout of the official detection repository.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import swin_dense
from swin_dense.checkpoints.families.swin import LAYOUTS
from swin_dense.errors import UserError
from tests.checkpoints.peers import timm_class

SIZES = dict(
    tiny=dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    base=dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
)
DERIVED = ("relative_position_index", "relative_coords_table", "attn_mask")


def contenders(
    arch: str, image_hw: tuple[int, int], *, official: Path | None = None
) -> dict[str, nn.Module]:
    """Return ours and its peers, with the same random weights, without stochastic depth."""
    torch.manual_seed(0)
    source = _Transformers(arch)
    with torch.no_grad():
        for parameter in source.parameters():  # so that biases and tables count
            parameter.add_(torch.randn_like(parameter) * 0.02)
    ours = swin_dense.SwinTransformer(arch=arch, drop_path_rate=0.0)
    swin_dense.load_pretrained(ours, source.backbone.state_dict())
    state = dict(ours.named_parameters())
    models: dict[str, nn.Module] = {"swin_dense": ours, "mmdet": _mmdet(arch, state)}
    models["timm"] = _Timm(arch, image_hw, state)
    models["transformers"] = source
    if official is not None:
        models["official"] = _official(official, arch, state)
    return models


def _fill(model: nn.Module, state: dict[str, Tensor], layout: str) -> nn.Module:
    if layout != "official":
        state = LAYOUTS[layout].from_official(state)
    missing, unexpected = model.load_state_dict(state, strict=False)
    left = [name for name in missing if not name.endswith(DERIVED)]
    if left or unexpected:
        raise UserError(f"{type(model).__name__} did not take the weights: {left} {unexpected}")
    return model


def _mmdet(arch: str, state: dict[str, Tensor]) -> nn.Module:
    from mmdet.models.backbones import SwinTransformer

    model = SwinTransformer(**SIZES[arch], drop_path_rate=0.0)
    return _fill(model, state, "mm")


class _Timm(nn.Module):
    """timm's features have no norms on them; these are added."""

    def __init__(self, arch: str, image_hw: tuple[int, int], state: dict[str, Tensor]) -> None:
        super().__init__()
        sizes = SIZES[arch]
        swin: Any = timm_class("SwinTransformer")(
            img_size=image_hw,
            embed_dim=sizes["embed_dims"],
            depths=sizes["depths"],
            num_heads=sizes["num_heads"],
            drop_path_rate=0.0,
            num_classes=0,
            global_pool="",
            strict_img_size=False,
        )
        swin.norm = nn.Identity()
        inner = {
            n: v for n, v in state.items() if not n.startswith(("norm0", "norm1", "norm2", "norm3"))
        }
        self.swin = _fill(swin, inner, "timm")
        self.norms = nn.ModuleList(nn.LayerNorm(sizes["embed_dims"] * 2**i) for i in range(4))
        for i, norm in enumerate(self.norms):
            norm.load_state_dict({k: state[f"norm{i}.{k}"] for k in ("weight", "bias")})

    def forward(self, images: Tensor) -> list[Tensor]:
        tokens = self.swin.patch_embed(images)
        maps = []
        for stage, norm in zip(self.swin.layers, self.norms, strict=True):
            tokens = stage(tokens)
            maps.append(norm(tokens).permute(0, 3, 1, 2).contiguous())
        return maps


class _Transformers(nn.Module):
    """With torch's own fused attention (sdpa)."""

    def __init__(self, arch: str) -> None:
        super().__init__()
        from transformers import SwinBackbone, SwinConfig

        sizes: Any = SIZES[arch]
        config = SwinConfig(
            embed_dim=sizes["embed_dims"],
            depths=list(sizes["depths"]),
            num_heads=list(sizes["num_heads"]),
            drop_path_rate=0.0,
            out_features=["stage1", "stage2", "stage3", "stage4"],
            attn_implementation="sdpa",
        )
        self.backbone = SwinBackbone(config)

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.backbone(images).feature_maps)


def _official(checkout: Path, arch: str, state: dict[str, Tensor]) -> nn.Module:
    """Load the class from its file alone; what the file imports beside torch is stood in for."""
    file = checkout / "mmdet/models/backbones/swin_transformer.py"
    if not file.is_file():
        raise UserError(
            f"--official {checkout}: no {file.relative_to(checkout)} there. Give a checkout of the "
            "official Swin-Transformer-Object-Detection repository."
        )
    registry = type("Registry", (), {"register_module": lambda *_: lambda cls: cls})()
    layers = importlib.import_module("timm.layers") if timm_class("SwinTransformer") else None
    stand_ins = {
        "timm.models.layers": {
            name: getattr(layers, name) for name in ("DropPath", "to_2tuple", "trunc_normal_")
        },
        "mmcv_custom": dict(load_checkpoint=None),
        "mmdet.utils": dict(get_root_logger=None),
        "official.models.builder": dict(BACKBONES=registry),
    }
    before = {name: sys.modules.get(name) for name in stand_ins}
    try:
        for name, names in stand_ins.items():
            sys.modules[name] = ModuleType(name)
            sys.modules[name].__dict__.update(names)
        spec = importlib.util.spec_from_file_location("official.models.backbones.swin", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        for name, known in before.items():
            if known is None:
                del sys.modules[name]
            else:
                sys.modules[name] = known
    sizes: Any = SIZES[arch]
    model = module.SwinTransformer(
        embed_dim=sizes["embed_dims"],
        depths=list(sizes["depths"]),
        num_heads=list(sizes["num_heads"]),
        drop_path_rate=0.0,
    )
    return _fill(model, state, "official")
