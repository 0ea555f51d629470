"""ScalableViT backbone (https://arxiv.org/abs/2203.10790) for dense prediction.

Letters: B batch; H, W token grid; C channels. Tokens are (B, H, W, C) inside; maps leave as
(B, C, H, W).

Its authors released the classifier alone. Equal to it on images whose sides are multiples of 224
pixels; ``docs/backbones.md`` says what is chosen here for all other sizes. Parameter names are the
official ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from swin_dense.backbones.base import Backbone, run_block
from swin_dense.backbones.options import (
    activation_from_cfg,
    architecture,
    check_frozen_stages,
    check_heads,
    check_images,
    check_out_indices,
    check_per_stage,
    norm_from_cfg,
)
from swin_dense.backbones.out_norms import add_out_norms, leave, norms_of_stage
from swin_dense.errors import UserError
from swin_dense.layers.drop_path import DropPath, rising_rates
from swin_dense.layers.mlp import Mlp
from swin_dense.layers.position import PEG
from swin_dense.layers.scalable_attention import InteractiveWindowAttention, ScalableSelfAttention
from swin_dense.ops.fused import compute_dtype
from swin_dense.registry import MODELS

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "small": dict(
        embed_dims=64,
        depths=(2, 2, 20, 2),
        num_heads=(2, 4, 8, 16),
        spatial_ratios=(8, 4, 2, 1),
        channel_ratios=(1.25, 1.25, 1.25, 1.0),
    ),
    "base": dict(
        embed_dims=96,
        depths=(2, 2, 14, 6),
        num_heads=(3, 6, 12, 24),
        spatial_ratios=(8, 4, 2, 1),
        channel_ratios=(2.0, 1.25, 1.25, 1.0),
    ),
    "large": dict(
        embed_dims=128,
        depths=(2, 6, 12, 4),
        num_heads=(4, 8, 16, 32),
        spatial_ratios=(8, 4, 2, 1),
        channel_ratios=(0.25, 0.5, 1.0, 1.0),
    ),
}


class ConvPatchEmbed(nn.Module):
    """An overlapping convolution to the next grid, then a LayerNorm; sides are rounded up."""

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        kernel = 2 * stride - 1
        self.proj = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=stride - 1)
        self.norm = norm(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, ceil(H / stride), ceil(W / stride), C)."""
        # (B, C, H, W) -> (B, H, W, C)
        tokens: Tensor = self.norm(self.proj(maps).permute(0, 2, 3, 1))
        return tokens


class ScalableBlock(nn.Module):
    """Pre-norm attention and perceptron, each with a residual path."""

    def __init__(
        self,
        dim: int,
        *,
        attn: nn.Module,
        mlp_ratio: float,
        drop_rate: float,
        drop_path_rate: float,
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = attn
        self.norm2 = norm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), activation=activation, drop_rate=drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        dtype = compute_dtype(tokens)
        tokens = self.drop_path.residual(tokens, lambda kept: self.attn(self.norm1(kept)), dtype)
        return self.drop_path.residual(tokens, lambda kept: self.mlp(self.norm2(kept)), dtype)


@MODELS.register_module()
class ScalableViT(Backbone):
    """ScalableViT that gives a pyramid of maps.

    In each stage blocks of window attention (IWSA) and of attention to a reduced map (SSA) take
    turns, IWSA first; after the first block a position encoding is added.

    Args:
        arch: "small", "base" or "large" (or their first letters): sets ``embed_dims``, ``depths``,
            ``num_heads``, ``spatial_ratios`` and ``channel_ratios``, each of which may also be
            given by itself and then wins.
        in_channels: channels of the input images.
        embed_dims: channels of the first stage; each further stage has twice as many.
        depths: blocks in each stage.
        num_heads: attention heads in each stage.
        spatial_ratios: for each stage, the side in tokens of the patches that SSA attends to.
        channel_ratios: for each stage, channels of SSA's queries and keys over those of the stage;
            without effect on parameters where the spatial ratio is 1.
        window_size: side of IWSA's windows in tokens.
        mlp_ratio: hidden width of the perceptron over its input width.
        qkv_bias: whether query, key and value have a bias.
        drop_rate, attn_drop_rate: dropout on tokens and on attention weights.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        out_indices: stages whose output leaves the backbone, ascending.
        out_norm: "none", the stages' outputs as they are; "last", the classifier's final norm on
            the last stage's map; "each", a new norm for each map.
        act_cfg, norm_cfg: as in the hosts, ``dict(type="GELU")`` and ``dict(type="LN", eps=1e-6)``.
        with_cp: recompute each block in the backward pass, which saves memory and costs time.
        frozen_stages: number of stages that do not train, as mmdet counts: 0 freezes the first
            embedding alone, k the first k stages with embeddings and output norms, -1 nothing.
        pretrained: a checkpoint's path or URL; short for ``init_cfg=dict(type="Pretrained", ...)``.
        plugins: layers behind stages, as :mod:`swin_dense.backbones.stage_plugins` says.
        init_cfg: None, or ``dict(type="swin_dense.Pretrained", checkpoint=...)``.

    Attributes:
        out_channels: channels of each map that leaves.
        out_strides: pixels of the input per cell, for each map that leaves.

    Raises:
        UserError: an unknown ``arch``, or sizes that do not fit together.
    """

    checkpoint_family = "scalable_vit"
    architectures = ARCHITECTURES

    def __init__(
        self,
        arch: str = "small",
        *,
        in_channels: int = 3,
        embed_dims: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        spatial_ratios: Sequence[int] | None = None,
        channel_ratios: Sequence[float] | None = None,
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        out_indices: Sequence[int] | None = None,
        out_norm: str = "none",
        act_cfg: Mapping[str, Any] = {"type": "GELU"},
        norm_cfg: Mapping[str, Any] = {"type": "LN", "eps": 1e-6},
        with_cp: bool = False,
        frozen_stages: int = -1,
        pretrained: str | None = None,
        plugins: Sequence[Mapping[str, Any]] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            pretrained=pretrained,
            init_cfg=init_cfg,
        )
        owner = type(self).__name__
        published = architecture(
            owner, self.architectures, arch, others="embed_dims, depths, ratios"
        )
        given = dict(
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            spatial_ratios=spatial_ratios,
            channel_ratios=channel_ratios,
        )
        chosen = {name: value for name, value in given.items() if value is not None}
        sizes: dict[str, Any] = {**published, **chosen}
        depths, num_heads = tuple(sizes["depths"]), tuple(sizes["num_heads"])
        stages = len(depths)
        channels = [sizes["embed_dims"] * 2**index for index in range(stages)]
        out_indices = tuple(range(stages) if out_indices is None else out_indices)
        _check_sizes(owner, sizes, channels, window_size)
        check_out_indices(owner, out_indices, stages)
        check_frozen_stages(owner, frozen_stages, stages)
        norm, activation = norm_from_cfg(norm_cfg), activation_from_cfg(act_cfg)

        def make_attention(stage: int, block: int) -> nn.Module:
            options: dict[str, Any] = dict(
                num_heads=num_heads[stage],
                qkv_bias=qkv_bias,
                attn_drop_rate=attn_drop_rate,
                proj_drop_rate=drop_rate,
            )
            if block % 2 == 0:
                return InteractiveWindowAttention(
                    channels[stage], window_size=window_size, **options
                )
            return ScalableSelfAttention(
                channels[stage],
                spatial_ratio=sizes["spatial_ratios"][stage],
                channel_ratio=sizes["channel_ratios"][stage],
                **options,
            )

        self.out_indices = out_indices
        self.out_channels = tuple(channels[index] for index in out_indices)
        self.out_strides = tuple(4 * 2**index for index in out_indices)
        self.patch_embeds = nn.ModuleList()
        self.pos_block = nn.ModuleList()
        self.pos_drop = nn.Dropout(drop_rate)
        self.stages = nn.ModuleList()
        rates = iter(rising_rates(drop_path_rate, sum(depths)))
        for stage, width in enumerate(channels):
            self.patch_embeds.append(
                ConvPatchEmbed(
                    channels[stage - 1] if stage else in_channels,
                    width,
                    stride=2 if stage else 4,
                    norm=norm,
                )
            )
            self.pos_block.append(PEG(width))
            self.stages.append(
                nn.ModuleList(
                    ScalableBlock(
                        width,
                        attn=make_attention(stage, block),
                        mlp_ratio=mlp_ratio,
                        drop_rate=drop_rate,
                        drop_path_rate=next(rates),
                        norm=norm,
                        activation=activation,
                    )
                    for block in range(depths[stage])
                )
            )
        add_out_norms(self, out_norm, channels, out_indices, norm)
        _initialise(self)
        self.add_plugins(plugins, channels)
        self.freeze()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one ``(B, C_i, ceil(H / stride_i), ceil(W / stride_i))`` map per out index.

        Raises:
            UserError: ``images`` is not (B, in_channels, H, W), or smaller than what the spatial
                ratios need: 29 pixels on each side for the published sizes.
        """
        check_images(images, self.in_channels)
        grid, maps = images, []
        for index, blocks in enumerate(self.stages):
            tokens = self.pos_drop(self.patch_embeds[index](grid))
            for number, block in enumerate(cast(nn.ModuleList, blocks)):
                tokens = run_block(block, tokens, with_cp=self.with_cp and self.training)
                if number == 0:
                    tokens = self.pos_block[index](tokens)
            tokens = self.after_stage(index, tokens)
            is_last = index == len(self.stages) - 1
            if index in self.out_indices:
                maps.append(leave(self, index, tokens, is_last=is_last))
            grid = tokens.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
        return tuple(maps)

    def frozen_parts(self, frozen_stages: int) -> Iterator[nn.Module | nn.Parameter]:
        """Yield the first embedding, and the first stages with embeddings and output norms."""
        yield self.patch_embeds[0]
        if frozen_stages:
            yield self.pos_drop
        for index in range(frozen_stages):
            yield from (self.patch_embeds[index], self.pos_block[index], self.stages[index])
            yield from norms_of_stage(self, index, is_last=index == len(self.stages) - 1)


def _initialise(model: nn.Module) -> None:
    """Linear layers from a truncated normal of 0.02; convolutions by their fan-out, as official."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d):
            side_h, side_w = module.kernel_size
            fan_out = side_h * side_w * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_sizes(
    owner: str, sizes: Mapping[str, Any], channels: Sequence[int], window_size: int
) -> None:
    depths, num_heads = sizes["depths"], sizes["num_heads"]
    for option in ("num_heads", "spatial_ratios", "channel_ratios"):
        check_per_stage(owner, option, sizes[option], "depths", depths)
    check_heads(owner, channels, num_heads)
    if min(depths) < 1 or window_size < 1 or min(sizes["spatial_ratios"]) < 1:
        raise UserError(
            f"{owner} got depths={tuple(depths)}, spatial_ratios={tuple(sizes['spatial_ratios'])}, "
            f"window_size={window_size}; expected each at least 1."
        )
    for index, (width, heads, ratio) in enumerate(
        zip(channels, num_heads, sizes["channel_ratios"], strict=True)
    ):
        narrow = int(width * ratio)
        if narrow < 1 or narrow % heads:
            raise UserError(
                f"{owner}: channel_ratios[{index}]={ratio} of {width} channels are {narrow}, which "
                f"num_heads[{index}]={heads} does not divide. Choose another ratio."
            )
