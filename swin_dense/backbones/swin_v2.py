"""Swin Transformer V2 backbone (https://arxiv.org/abs/2111.09883) for dense prediction.

Letters: B batch; H, W token grid; C channels. Tokens are (B, H, W, C) inside; maps leave as (B, C,
H, W).

The official code has V2 for classification alone. For dense use the windows and shifts are constant
and the grid is padded, as for V1. V2 has no norm before the attention, so it is the residual stream
that is padded with zeros; the attended map is cropped, then normed. Parameter names are the
official ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from swin_dense.backbones.options import activation_from_cfg, norm_from_cfg
from swin_dense.backbones.pyramid import SwinPyramid
from swin_dense.errors import UserError
from swin_dense.layers.cosine_attention import CosineWindowAttention
from swin_dense.layers.drop_path import DropPath
from swin_dense.layers.mlp import Mlp
from swin_dense.layers.patch import PatchMerging
from swin_dense.registry import MODELS


class SwinBlockV2(nn.Module):
    """Window attention and perceptron, each normed before it joins the residual path."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int,
        shifted: bool,
        pretrained_window_size: int,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        clamp_small_maps: bool,
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = CosineWindowAttention(
            dim,
            num_heads=num_heads,
            window_size=window_size,
            shift=window_size // 2 if shifted else 0,
            qkv_bias=qkv_bias,
            pretrained_window_size=pretrained_window_size,
            attn_drop_rate=attn_drop_rate,
            proj_drop_rate=drop_rate,
            clamp_small_maps=clamp_small_maps,
        )
        self.norm2 = norm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), activation=activation, drop_rate=drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C); ``mask`` is for shifted blocks."""
        dtype = tokens.dtype  # of a norm's output, under autocast too
        tokens = self.drop_path.residual(
            tokens, lambda kept: self.norm1(self.attn(kept, mask)), dtype
        )
        return self.drop_path.residual(tokens, lambda kept: self.norm2(self.mlp(kept)), dtype)


@MODELS.register_module()
class SwinTransformerV2(SwinPyramid):
    """Swin Transformer V2 that gives a pyramid of maps, each under a LayerNorm ``norm{i}`` of its
    own.

    Args:
        arch: "tiny", "small", "base" or "large" (or their first letters): sets ``embed_dims``,
            ``depths`` and ``num_heads``, each of which may also be given by itself and then wins.
        pretrain_img_size: side or (height, width) in pixels of the images that the absolute
            position embedding was trained on.
        in_channels: channels of the input images.
        embed_dims: channels of the first stage; each further stage has twice as many.
        patch_size: side of a patch in pixels.
        window_size: side of an attention window in tokens, of all stages or of each.
        pretrained_window_sizes: window of each stage in the run that the weights come from, where
            it was another one: position biases are scaled by it. 0 stands for ``window_size``. The
            published 192-pixel ImageNet-22K weights had 12, 12, 12, 6.
        mlp_ratio: hidden width of the perceptron over its input width.
        depths: blocks in each stage.
        num_heads: attention heads in each stage.
        strides: of the patch embedding and of each merging; only ``(patch_size, 2, 2, ...)``
            exists.
        out_indices: stages whose output leaves the backbone, ascending.
        qkv_bias: whether queries and values have a bias; keys never have one.
        patch_norm: whether a LayerNorm follows the patch embedding.
        drop_rate, attn_drop_rate: dropout on tokens and on attention weights.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        use_abs_pos_embed: whether a learned position embedding is added; it is resized to any
            input.
        act_cfg, norm_cfg: as in the hosts, ``dict(type="GELU")`` and ``dict(type="LN")``.
        with_cp: recompute each block in the backward pass, which saves memory and costs time.
        pretrained: a checkpoint's path or URL; short for ``init_cfg=dict(type="Pretrained", ...)``.
        frozen_stages: number of stages that do not train, as for V1.
        plugins: layers behind stages, as :mod:`swin_dense.backbones.stage_plugins` says.
        init_cfg: None, or ``dict(type="Pretrained", checkpoint=...)``.
        clamp_small_maps: attend in a map that is not larger than the window as one window of the
            map's size, unshifted, as the official classification code does.

    Attributes:
        out_channels: channels of each map that leaves.
        out_strides: pixels of the input per cell, for each map that leaves.

    Raises:
        UserError: an unknown ``arch``, or sizes that do not fit together.
    """

    def __init__(
        self,
        arch: str = "tiny",
        *,
        pretrain_img_size: int | Sequence[int] = 256,
        in_channels: int = 3,
        embed_dims: int | None = None,
        patch_size: int = 4,
        window_size: int | Sequence[int] = 8,
        pretrained_window_sizes: Sequence[int] = (0, 0, 0, 0),
        mlp_ratio: float = 4.0,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        out_indices: Sequence[int] | None = None,
        qkv_bias: bool = True,
        patch_norm: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        use_abs_pos_embed: bool = False,
        act_cfg: Mapping[str, Any] = {"type": "GELU"},
        norm_cfg: Mapping[str, Any] = {"type": "LN"},
        with_cp: bool = False,
        pretrained: str | None = None,
        frozen_stages: int = -1,
        plugins: Sequence[Mapping[str, Any]] | None = None,
        init_cfg: dict[str, Any] | None = None,
        clamp_small_maps: bool = False,
    ) -> None:
        norm, activation = norm_from_cfg(norm_cfg), activation_from_cfg(act_cfg)
        num_stages = 4 if depths is None else len(depths)
        windows = _per_stage("window_size", window_size, num_stages, least=1)
        if not any(pretrained_window_sizes):
            pretrained_window_sizes = (0,) * num_stages
        pretrained_windows = _per_stage(
            "pretrained_window_sizes", pretrained_window_sizes, num_stages, least=0
        )

        def make_block(
            stage: int, channels: int, heads: int, shifted: bool, drop_path: float
        ) -> nn.Module:
            return SwinBlockV2(
                channels,
                num_heads=heads,
                window_size=windows[stage],
                shifted=shifted,
                pretrained_window_size=pretrained_windows[stage],
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                drop_rate=drop_rate,
                attn_drop_rate=attn_drop_rate,
                drop_path_rate=drop_path,
                clamp_small_maps=clamp_small_maps,
                norm=norm,
                activation=activation,
            )

        def make_merging(channels: int) -> nn.Module:
            return PatchMerging(channels, norm=norm, norm_last=True)

        super().__init__(
            arch=arch,
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            pretrain_img_size=pretrain_img_size,
            in_channels=in_channels,
            patch_size=patch_size,
            strides=strides,
            out_indices=out_indices,
            patch_norm=patch_norm,
            use_abs_pos_embed=use_abs_pos_embed,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            with_cp=with_cp,
            frozen_stages=frozen_stages,
            pretrained=pretrained,
            plugins=plugins,
            init_cfg=init_cfg,
            norm=norm,
            make_block=make_block,
            make_merging=make_merging,
        )
        stages: Any = self.layers
        for stage in stages:
            for block in stage.blocks:
                for post_norm in (block.norm1, block.norm2):  # each block starts as the identity
                    nn.init.zeros_(post_norm.weight)
                    nn.init.zeros_(post_norm.bias)


def _per_stage(
    option: str, value: int | Sequence[int], num_stages: int, *, least: int
) -> tuple[int, ...]:
    values = (value,) * num_stages if isinstance(value, int) else tuple(value)
    if len(values) != num_stages or min(values) < least:
        raise UserError(
            f"SwinTransformerV2 got {option}={value!r}; expected one number for each of the "
            f"{num_stages} stages, each at least {least}."
        )
    return values
