"""What PVT v1 and v2 share: stages of convolution, blocks and reduced attention, each on a coarser
grid.

Letters: B batch; H, W token grid; C channels. Tokens are (B, H, W, C) inside; maps leave as (B, C,
H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.backbones.base import Backbone, run_block
from swin_dense.backbones.options import (
    architecture,
    check_frozen_stages,
    check_heads,
    check_images,
    check_out_indices,
    check_per_stage,
    norm_from_cfg,
)
from swin_dense.errors import UserError
from swin_dense.layers.drop_path import DropPath, rising_rates
from swin_dense.layers.patch import ConvEmbed
from swin_dense.layers.spatial_reduction import SpatialReductionAttention
from swin_dense.ops.fused import compute_dtype

NUM_HEADS = (1, 2, 5, 8)
SR_RATIOS = (8, 4, 2, 1)
STRIDES = (4, 2, 2, 2)


class PVTBlock(nn.Module):
    """Pre-norm attention with reduced keys and values, and a perceptron, each with a residual
    path.
    """

    def __init__(
        self,
        dim: int,
        *,
        attn: SpatialReductionAttention,
        mlp: nn.Module,
        drop_path_rate: float,
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = attn
        self.norm2 = norm(dim)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        dtype = compute_dtype(tokens)
        tokens = self.drop_path.residual(tokens, lambda kept: self.attn(self.norm1(kept)), dtype)
        return self.drop_path.residual(tokens, lambda kept: self.mlp(self.norm2(kept)), dtype)


class PVTPyramid(Backbone):
    """Stages ``patch_embed{i}``, ``block{i}``, counted from 1; a subclass says how grids are cut.

    :class:`~swin_dense.backbones.pvt.PVT` says what the options mean.

    Args:
        overlapping: v2's convolutions, which overlap and round sizes up, and its norm after each
            stage; v1's patches do not, round down, and its position embeddings are added.
        linear: v2's reduction to 7x7 tokens in every stage.
        make_mlp: called with the channels and the hidden width.

    Raises:
        UserError: an unknown ``arch``, or sizes that do not fit together.
    """

    checkpoint_family = "pvt"

    def __init__(
        self,
        *,
        arch: str,
        embed_dims: int | None,
        num_layers: Sequence[int] | None,
        num_heads: Sequence[int] | None,
        sr_ratios: Sequence[int] | None,
        mlp_ratios: Sequence[float] | None,
        in_channels: int,
        out_indices: Sequence[int] | None,
        overlapping: bool,
        linear: bool,
        qkv_bias: bool,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        norm_cfg: Mapping[str, Any],
        inner_norm_eps: float,
        with_cp: bool,
        frozen_stages: int,
        pretrained: str | None,
        init_cfg: dict[str, Any] | None,
        make_mlp: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            pretrained=pretrained,
            init_cfg=init_cfg,
        )
        owner = type(self).__name__
        sizes = architecture(
            owner, self.architectures, arch, others="embed_dims, num_layers, mlp_ratios"
        )
        embed_dims = sizes["embed_dims"] if embed_dims is None else embed_dims
        num_layers = tuple(sizes["num_layers"] if num_layers is None else num_layers)
        num_heads = tuple(NUM_HEADS if num_heads is None else num_heads)
        sr_ratios = tuple(SR_RATIOS if sr_ratios is None else sr_ratios)
        mlp_ratios = tuple(sizes["mlp_ratios"] if mlp_ratios is None else mlp_ratios)
        num_stages = len(num_layers)
        out_indices = tuple(range(num_stages) if out_indices is None else out_indices)
        for option, values in (
            ("num_heads", num_heads), ("sr_ratios", sr_ratios), ("mlp_ratios", mlp_ratios)
        ):  # fmt: skip
            check_per_stage(owner, option, values, "num_layers", num_layers)
        channels = [embed_dims * heads for heads in num_heads]
        check_heads(owner, channels, num_heads)
        check_out_indices(owner, out_indices, num_stages)
        check_frozen_stages(owner, frozen_stages, num_stages)
        if min(sr_ratios) < 1:
            raise UserError(f"{owner} got sr_ratios={sr_ratios}; expected each at least 1.")

        strides = [4 * 2**index for index in range(num_stages)]
        self.num_stages = num_stages
        self.num_features = channels
        self.out_indices = out_indices
        self.out_channels = tuple(channels[index] for index in out_indices)
        self.out_strides = tuple(strides[index] for index in out_indices)
        reductions = [1] * num_stages if linear else sr_ratios
        self.least_side_px = max(
            stride * (ratio - 1) + 1 if overlapping else stride * ratio
            for stride, ratio in zip(strides, reductions, strict=True)
        )

        norm = norm_from_cfg(norm_cfg)
        inner_norm = norm_from_cfg({**norm_cfg, "eps": inner_norm_eps})
        rates = iter(rising_rates(drop_path_rate, sum(num_layers)))
        for index, (width, heads) in enumerate(zip(channels, num_heads, strict=True)):
            stride = STRIDES[min(index, 1)]
            kernel = 2 * stride - 1 if overlapping else stride
            embedding = ConvEmbed(
                channels[index - 1] if index else in_channels,
                width,
                kernel_size=kernel,
                stride=stride,
                padding=kernel // 2 if overlapping else 0,
                norm=inner_norm,
            )
            blocks = [
                PVTBlock(
                    width,
                    attn=SpatialReductionAttention(
                        width,
                        num_heads=heads,
                        sr_ratio=sr_ratios[index],
                        linear=linear,
                        qkv_bias=qkv_bias,
                        attn_drop_rate=attn_drop_rate,
                        proj_drop_rate=drop_rate,
                        norm=inner_norm,
                    ),
                    mlp=make_mlp(width, int(width * mlp_ratios[index])),
                    drop_path_rate=next(rates),
                    norm=norm,
                )
                for _ in range(num_layers[index])
            ]
            self.add_module(f"patch_embed{index + 1}", embedding)
            self.add_module(f"block{index + 1}", nn.ModuleList(blocks))
            if overlapping:
                self.add_module(f"norm{index + 1}", norm(width))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one (B, C_i, H_i, W_i) map per out index; sides are those of the image over
        ``out_strides``, rounded down by v1 and up by v2.

        Raises:
            UserError: ``images`` is not (B, in_channels, H, W), or smaller than the reductions of
                the attention allow.
        """
        check_images(images, self.in_channels)
        if min(images.shape[2:]) < self.least_side_px:
            raise UserError(
                f"{type(self).__name__} got images of {images.shape[2]}x{images.shape[3]} pixels; "
                f"expected at least {self.least_side_px} along each side, so that every stage has "
                "a token for each reduced one. Enlarge or pad them."
            )
        grid, maps = images, []
        for index in range(self.num_stages):
            tokens = self.after_stage(index, self._stage(index, grid))
            grid = tokens.permute(0, 3, 1, 2).contiguous()  # (B, H, W, C) -> (B, C, H, W)
            if index in self.out_indices:
                maps.append(grid)
        return tuple(maps)

    def _stage(self, index: int, grid: Tensor) -> Tensor:
        tokens = self._with_positions(index, getattr(self, f"patch_embed{index + 1}")(grid))
        for block in getattr(self, f"block{index + 1}"):
            tokens = run_block(block, tokens, with_cp=self.with_cp and self.training)
        norm = getattr(self, f"norm{index + 1}", None)
        return tokens if norm is None else norm(tokens)

    def _with_positions(self, index: int, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C) with position embeddings, of which v2 has none."""
        return tokens

    def frozen_parts(self, frozen_stages: int) -> Iterator[nn.Module | nn.Parameter]:
        """Yield the first embedding, and the first stages whole."""
        for index in range(max(frozen_stages, 1)):
            parts = ("patch_embed", "pos_embed", "block", "norm")
            for part in parts if index < frozen_stages else parts[:2]:
                found = getattr(self, f"{part}{index + 1}", None)
                if found is not None:
                    yield found


def initialise_linear(model: nn.Module) -> None:
    """Linear layers from a truncated normal of 0.02, their biases zero, as the official code."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_convolutions(model: nn.Module) -> None:
    """Convolutions from a normal of variance 2 over what leaves each input, as v2's code."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            area = module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(
                module.weight, std=math.sqrt(2 * module.groups / (area * module.out_channels))
            )
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def positions_on_grid(table: Tensor, side: int, grid_hw: tuple[int, int]) -> Tensor:
    """Return a (1, side * side, C) position embedding as (1, H, W, C), resized bilinearly.

    Args:
        table: positions of a square grid; one more row before them, of a class token, is left out.
        side: tokens along the sides of that grid.
        grid_hw: H and W.
    """
    square = table[:, -side * side :].reshape(1, side, side, -1)
    if grid_hw == (side, side):
        return square
    exact = square.to(torch.promote_types(table.dtype, torch.float32))
    # (1, side, side, C) -> (1, C, side, side) -> (1, C, H, W)
    resized = F.interpolate(exact.permute(0, 3, 1, 2), size=grid_hw, mode="bilinear")
    return resized.permute(0, 2, 3, 1).to(table.dtype)  # (1, C, H, W) -> (1, H, W, C)
