"""Focal Transformer backbone (https://arxiv.org/abs/2107.00641) for dense prediction.

Letters: B batch; H, W token grid; C channels. Tokens are (B, H, W, C) inside; maps leave as
(B, C, H, W).

Its authors released the classifier alone, which pads any grid to whole windows by itself: the maps
are those of its stages, at any size. ``docs/backbones.md`` says what dense use adds. Parameter
names are the official ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
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
from swin_dense.layers.focal_attention import FocalAttention
from swin_dense.layers.mlp import Mlp
from swin_dense.ops.fused import compute_dtype
from swin_dense.ops.windows import pad_to_multiple, window_partition
from swin_dense.registry import MODELS

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "small": dict(embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "base": dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
}


class FocalPatchEmbed(nn.Module):
    """A strided convolution to the next grid, then a LayerNorm; sides are rounded up.

    Args:
        overlapping: a kernel of about twice the stride, as the official ``use_conv_embed``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        overlapping: bool,
        norm: Callable[[int], nn.Module] | None,
    ) -> None:
        super().__init__()
        self.stride = stride
        kernel, padding = (2 * stride - 1, stride // 2) if overlapping else (stride, 0)
        self.proj = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=padding)
        self.norm = norm(channels) if norm else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, ceil(H / stride), ceil(W / stride), C)."""
        height, width = maps.shape[2:]
        maps = F.pad(maps, (0, -width % self.stride, 0, -height % self.stride))
        # (B, C, H, W) -> (B, H, W, C)
        tokens: Tensor = self.norm(self.proj(maps).permute(0, 2, 3, 1))
        return tokens


class FocalBlock(nn.Module):
    """Pre-norm focal attention and perceptron, each with a residual path.

    A grid that is no multiple of the window is padded with zero tokens, and these take part like
    any other: as keys, as queries whose result is cut off, and in the pooled windows.
    """

    gamma_1: nn.Parameter | None
    gamma_2: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        *,
        attn: FocalAttention,
        mlp_ratio: float,
        drop_rate: float,
        drop_path_rate: float,
        layer_scale: float | None,
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = attn
        self.norm2 = norm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), activation=activation, drop_rate=drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        self.gamma_1 = self.gamma_2 = None
        if layer_scale is not None:
            self.gamma_1 = nn.Parameter(torch.full((dim,), layer_scale))
            self.gamma_2 = nn.Parameter(torch.full((dim,), layer_scale))
        if attn.reach:
            # official: one layer for each level of pooling, and there is one level
            self.pool_layers = nn.ModuleList([nn.Linear(attn.window_size**2, 1)])

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        dtype = compute_dtype(tokens)
        tokens = self.drop_path.residual(tokens, self._attend, dtype)
        return self.drop_path.residual(tokens, self._perceive, dtype)

    def _attend(self, tokens: Tensor) -> Tensor:
        """Return the branch of attention, (B, H, W, C) as ``tokens``."""
        height, width = tokens.shape[1:3]
        padded = pad_to_multiple(self.norm1(tokens), self.attn.window_size)
        attended: Tensor = self.attn(padded, self.pool(padded))[:, :height, :width]
        return _scaled(attended, self.gamma_1)

    def _perceive(self, tokens: Tensor) -> Tensor:
        """Return the branch of the perceptron, (B, H, W, C) as ``tokens``."""
        return _scaled(self.mlp(self.norm2(tokens)), self.gamma_2)

    def pool(self, padded: Tensor) -> Tensor | None:
        """Pool each window of (B, H, W, C) to one token, (B, H / M, W / M, C), by learned weights;
        None where there are no pooled windows.
        """
        if not self.attn.reach:
            return None
        side = self.attn.window_size
        batch, height, width, channels = padded.shape
        # (B * nW, N, C) -> (B * nW, C, N) -> (B * nW, C, 1)
        pooled = self.pool_layers[0](window_partition(padded, side).transpose(1, 2))
        return cast(Tensor, pooled.view(batch, height // side, width // side, channels))


class FocalStage(nn.Module):
    """Blocks on one grid; ``downsample`` leads to the next grid."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


def _scaled(branch: Tensor, gamma: Tensor | None) -> Tensor:
    return branch if gamma is None else gamma.to(branch.dtype) * branch


@MODELS.register_module()
class FocalTransformer(Backbone):
    """Focal Transformer (the first version) that gives a pyramid of maps.

    Args:
        arch: "tiny", "small" or "base" (or their first letters): sets ``embed_dims``, ``depths``
            and ``num_heads``, each of which may also be given by itself and then wins.
        in_channels: channels of the input images.
        embed_dims: channels of the first stage; each further stage has twice as many.
        depths: blocks in each stage.
        num_heads: attention heads in each stage.
        window_size: side of a window in tokens.
        expand_sizes: for each stage, tokens that a window is expanded by on each side; 0 for none.
            The classifiers have none in the last stage, because their map there is one window;
            ``(3, 3, 3, 3)`` expands it too, with a table that no classifier has.
        focal_windows: for each stage, the odd side of the neighbourhood of pooled windows; 0 for no
            pooled windows.
        mlp_ratio: hidden width of the perceptron over its input width.
        qkv_bias: whether query, key and value have a bias.
        qk_scale: factor on the queries; ``head_dim ** -0.5`` where it is None.
        patch_norm: whether a LayerNorm follows the embedding and each downsampling.
        use_conv_embed: overlapping embedding and downsampling, as in the released "conv" model.
        layer_scale: start of a learned factor for each channel of both branches; None for none.
        drop_rate, attn_drop_rate: dropout on tokens and on attention weights.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        out_indices: stages whose output leaves the backbone, ascending.
        out_norm: "each", a new norm for each map, as Swin has it; "last", the classifier's final
            norm on the last stage's map; "none", the stages' outputs as they are.
        act_cfg, norm_cfg: as in the hosts, ``dict(type="GELU")`` and ``dict(type="LN")``.
        with_cp: recompute each block in the backward pass, which saves memory and costs time.
        frozen_stages: number of stages that do not train, as mmdet counts: 0 freezes the embedding
            alone, k also the first k stages with their output norms, -1 nothing.
        pretrained: a checkpoint's path or URL; short for ``init_cfg=dict(type="Pretrained", ...)``.
        plugins: layers behind stages, as :mod:`swin_dense.backbones.stage_plugins` says.
        init_cfg: None, or ``dict(type="swin_dense.Pretrained", checkpoint=...)``.

    Attributes:
        out_channels: channels of each map that leaves.
        out_strides: pixels of the input per cell, for each map that leaves.

    Raises:
        UserError: an unknown ``arch``, or sizes that do not fit together.
    """

    checkpoint_family = "focal"
    architectures = ARCHITECTURES

    def __init__(
        self,
        arch: str = "tiny",
        *,
        in_channels: int = 3,
        embed_dims: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        window_size: int = 7,
        expand_sizes: Sequence[int] = (3, 3, 3, 0),
        focal_windows: Sequence[int] = (7, 5, 3, 1),
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        patch_norm: bool = True,
        use_conv_embed: bool = False,
        layer_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        out_indices: Sequence[int] | None = None,
        out_norm: str = "each",
        act_cfg: Mapping[str, Any] = {"type": "GELU"},
        norm_cfg: Mapping[str, Any] = {"type": "LN"},
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
        sizes = architecture(owner, self.architectures, arch, others="embed_dims, depths")
        embed_dims = sizes["embed_dims"] if embed_dims is None else embed_dims
        depths = tuple(sizes["depths"] if depths is None else depths)
        num_heads = tuple(sizes["num_heads"] if num_heads is None else num_heads)
        stages = len(depths)
        channels = [embed_dims * 2**index for index in range(stages)]
        out_indices = tuple(range(stages) if out_indices is None else out_indices)
        check_per_stage(owner, "num_heads", num_heads, "depths", depths)
        check_per_stage(owner, "expand_sizes", expand_sizes, "depths", depths)
        check_per_stage(owner, "focal_windows", focal_windows, "depths", depths)
        check_heads(owner, channels, num_heads)
        check_out_indices(owner, out_indices, stages)
        check_frozen_stages(owner, frozen_stages, stages)
        _check_windows(owner, window_size, expand_sizes, focal_windows)
        norm, activation = norm_from_cfg(norm_cfg), activation_from_cfg(act_cfg)

        def make_block(stage: int, rate: float) -> FocalBlock:
            attention = FocalAttention(
                channels[stage],
                num_heads=num_heads[stage],
                window_size=window_size,
                expand=expand_sizes[stage],
                reach=focal_windows[stage],
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop_rate=attn_drop_rate,
                proj_drop_rate=drop_rate,
            )
            return FocalBlock(
                channels[stage],
                attn=attention,
                mlp_ratio=mlp_ratio,
                drop_rate=drop_rate,
                drop_path_rate=rate,
                layer_scale=layer_scale,
                norm=norm,
                activation=activation,
            )

        def make_embedding(inputs: int, outputs: int, stride: int) -> FocalPatchEmbed:
            return FocalPatchEmbed(
                inputs,
                outputs,
                stride=stride,
                overlapping=use_conv_embed,
                norm=norm if patch_norm else None,
            )

        self.out_indices = out_indices
        self.out_channels = tuple(channels[index] for index in out_indices)
        self.out_strides = tuple(4 * 2**index for index in out_indices)
        self.patch_embed = make_embedding(in_channels, embed_dims, 4)
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList()
        rates = iter(rising_rates(drop_path_rate, sum(depths)))
        for stage, depth in enumerate(depths):
            blocks = [make_block(stage, next(rates)) for _ in range(depth)]
            last = stage == stages - 1
            downsample = None if last else make_embedding(channels[stage], channels[stage + 1], 2)
            self.layers.append(FocalStage(blocks, downsample))
        add_out_norms(self, out_norm, channels, out_indices, norm)
        _initialise(self)
        self.add_plugins(plugins, channels)
        self.freeze()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one ``(B, C_i, ceil(H / stride_i), ceil(W / stride_i))`` map per out index.

        Raises:
            UserError: ``images`` is not (B, in_channels, H, W).
        """
        check_images(images, self.in_channels)
        tokens = self.pos_drop(self.patch_embed(images))
        maps = []
        stages: Any = self.layers
        for index, stage in enumerate(stages):
            for block in stage.blocks:
                tokens = run_block(block, tokens, with_cp=self.with_cp and self.training)
            tokens = self.after_stage(index, tokens)
            if index in self.out_indices:
                maps.append(leave(self, index, tokens, is_last=stage.downsample is None))
            if stage.downsample is not None:
                tokens = stage.downsample(tokens.permute(0, 3, 1, 2))  # -> (B, C, H, W)
        return tuple(maps)

    def frozen_parts(self, frozen_stages: int) -> Iterator[nn.Module | nn.Parameter]:
        """Yield the embedding, and the first stages with their output norms."""
        yield from (self.patch_embed, self.pos_drop)
        for index in range(frozen_stages):
            yield self.layers[index]
            yield from norms_of_stage(self, index, is_last=index == len(self.layers) - 1)


def _initialise(model: FocalTransformer) -> None:
    """Linear layers from a truncated normal of 0.02, convolutions as torch has them.

    Pooling starts as a mean. So does the official constructor, but a later step overwrites it with
    the truncated normal.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if "pool_layers" in name:
                nn.init.constant_(module.weight, 1.0 / module.in_features)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _check_windows(
    owner: str, window_size: int, expand_sizes: Sequence[int], focal_windows: Sequence[int]
) -> None:
    if window_size < 1 or not all(0 <= 2 * expand <= window_size for expand in expand_sizes):
        raise UserError(
            f"{owner} got window_size={window_size}, expand_sizes={tuple(expand_sizes)}; expected "
            "a window of at least 1 and expansions from 0 to half of it: a wider ring would have "
            "holes."
        )
    if not all(reach == 0 or (reach > 0 and reach % 2) for reach in focal_windows):
        raise UserError(
            f"{owner} got focal_windows={tuple(focal_windows)}; expected odd numbers, or 0 for no "
            "pooled windows: a neighbourhood has its window in the middle."
        )
