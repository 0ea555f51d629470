"""Swin Transformer backbone (https://arxiv.org/abs/2103.14030) for dense prediction.

Letters: B batch; H, W token grid; C channels. Tokens are (B, H, W, C) inside; maps leave as
(B, C, H, W).

The semantics are those of the official detection and segmentation code, which the published COCO
and ADE20K figures were made with: constant window and shift, zero padding to window multiples, a
LayerNorm on each output before merging. Parameter names are the official ones; checkpoints in the
mm hosts' layout load as well, because the state dict is renamed on the way in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from swin_dense.backbones.options import activation_from_cfg, norm_from_cfg
from swin_dense.backbones.pyramid import SwinPyramid
from swin_dense.layers.drop_path import DropPath
from swin_dense.layers.mlp import Mlp
from swin_dense.layers.patch import PatchMerging
from swin_dense.layers.window_attention import WindowAttention
from swin_dense.ops.fused import compute_dtype
from swin_dense.registry import MODELS


class SwinBlock(nn.Module):
    """Pre-norm window attention and perceptron, each with a residual path."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int,
        shifted: bool,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        clamp_small_maps: bool,
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = WindowAttention(
            dim,
            num_heads=num_heads,
            window_size=window_size,
            shift=window_size // 2 if shifted else 0,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop_rate=attn_drop_rate,
            proj_drop_rate=drop_rate,
            clamp_small_maps=clamp_small_maps,
        )
        self.norm2 = norm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), activation=activation, drop_rate=drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C); ``mask`` is for shifted blocks."""
        dtype = compute_dtype(tokens)
        mask = mask if self.attn.shift else None
        tokens = self.drop_path.residual(
            tokens, lambda kept: self.attn(self.norm1(kept), mask), dtype
        )
        return self.drop_path.residual(tokens, lambda kept: self.mlp(self.norm2(kept)), dtype)


@MODELS.register_module()
class SwinTransformer(SwinPyramid):
    """Swin Transformer that gives a pyramid of maps.

    The arguments bear the names that mmdet's and mmseg's classes give them, so in a config of
    theirs only ``type`` changes to ``"swin_dense.SwinTransformer"``.

    Args:
        arch: "tiny", "small", "base" or "large" (or their first letters): sets ``embed_dims``,
            ``depths`` and ``num_heads``, each of which may also be given by itself and then wins.
        pretrain_img_size: side or (height, width) in pixels of the images that the absolute
            position embedding was trained on.
        in_channels: channels of the input images.
        embed_dims: channels of the first stage; each further stage has twice as many.
        patch_size: side of a patch in pixels.
        window_size: side of an attention window in tokens.
        mlp_ratio: hidden width of the perceptron over its input width.
        depths: blocks in each stage.
        num_heads: attention heads in each stage.
        strides: of the patch embedding and of each merging; only ``(patch_size, 2, 2, ...)``
            exists.
        out_indices: stages whose output leaves the backbone, ascending.
        qkv_bias: whether query, key and value have a bias.
        qk_scale: factor on the queries; ``head_dim ** -0.5`` where it is None.
        patch_norm: whether a LayerNorm follows the patch embedding.
        drop_rate, attn_drop_rate: dropout on tokens and on attention weights.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        use_abs_pos_embed: whether a learned position embedding is added; it is resized to any
            input.
        act_cfg, norm_cfg: as in the hosts, ``dict(type="GELU")`` and ``dict(type="LN")``.
        with_cp: recompute each block in the backward pass, which saves memory and costs time.
        pretrained: a checkpoint's path or URL; short for ``init_cfg=dict(type="Pretrained", ...)``.
        convert_weights: accepted because the hosts' configs have it; the layout of a checkpoint is
            recognised by its content, so it makes no difference.
        frozen_stages: number of stages that do not train, as mmdet counts: 0 freezes the embedding
            alone, k also the first k stages with their output norms, -1 nothing.
        plugins: layers behind stages, as :mod:`swin_dense.backbones.stage_plugins` says.
        init_cfg: None, or ``dict(type="Pretrained", checkpoint=...)``.
        clamp_small_maps: attend in a map that is not larger than the window as one window of the
            map's size, unshifted, as classification code does; off for the published detectors.

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
        pretrain_img_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        embed_dims: int | None = None,
        patch_size: int = 4,
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        out_indices: Sequence[int] | None = None,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        patch_norm: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        use_abs_pos_embed: bool = False,
        act_cfg: Mapping[str, Any] = {"type": "GELU"},
        norm_cfg: Mapping[str, Any] = {"type": "LN"},
        with_cp: bool = False,
        pretrained: str | None = None,
        convert_weights: bool = False,
        frozen_stages: int = -1,
        plugins: Sequence[Mapping[str, Any]] | None = None,
        init_cfg: dict[str, Any] | None = None,
        clamp_small_maps: bool = False,
    ) -> None:
        norm, activation = norm_from_cfg(norm_cfg), activation_from_cfg(act_cfg)

        def make_block(
            stage: int, channels: int, heads: int, shifted: bool, drop_path: float
        ) -> nn.Module:
            return SwinBlock(
                channels,
                num_heads=heads,
                window_size=window_size,
                shifted=shifted,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                drop_rate=drop_rate,
                attn_drop_rate=attn_drop_rate,
                drop_path_rate=drop_path,
                clamp_small_maps=clamp_small_maps,
                norm=norm,
                activation=activation,
            )

        def make_merging(channels: int) -> nn.Module:
            return PatchMerging(channels, norm=norm)

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
