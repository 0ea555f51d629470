"""Pyramid Vision Transformer v2 backbone (https://arxiv.org/abs/2106.13797) for dense prediction.

Letters: B batch; H, W token grid; C channels. Tokens are (B, H, W, C) inside; maps leave as (B, C,
H, W).

Against v1 patches overlap, so that sizes are rounded up; there are no position embeddings, since a
depthwise convolution in each perceptron sees where a token is; and a norm ends each stage, before
its map leaves and the next stage reads it. Parameter names are the official ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from swin_dense.backbones.options import activation_from_cfg, architecture
from swin_dense.backbones.pvt_pyramid import (
    PVTPyramid,
    initialise_convolutions,
    initialise_linear,
)
from swin_dense.layers.conv_mlp import ConvMlp
from swin_dense.registry import MODELS

_COMMON = dict(embed_dims=64, mlp_ratios=(8, 8, 4, 4), linear=False)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "b0": dict(_COMMON, embed_dims=32, num_layers=(2, 2, 2, 2)),
    "b1": dict(_COMMON, num_layers=(2, 2, 2, 2)),
    "b2": dict(_COMMON, num_layers=(3, 4, 6, 3)),
    "b2_li": dict(_COMMON, num_layers=(3, 4, 6, 3), linear=True),
    "b3": dict(_COMMON, num_layers=(3, 4, 18, 3)),
    "b4": dict(_COMMON, num_layers=(3, 8, 27, 3)),
    "b5": dict(_COMMON, num_layers=(3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4)),
}
ARCHITECTURES["b2_linear"] = ARCHITECTURES["b2_li"]


@MODELS.register_module()
class PVTv2(PVTPyramid):
    """PVT v2 that gives a pyramid of maps, from images of at least 29 pixels along each side.

    The arguments bear the names that mmdet's ``PyramidVisionTransformerV2`` gives them; the linear
    kind, which mmdet does not have, takes images of any size.

    Args:
        arch: "b0" to "b5", or "b2_li": sets ``num_layers``, ``embed_dims``, ``mlp_ratios`` and
            ``linear``, each of which may also be given and then wins. "b2_linear" is "b2_li".
        in_channels: channels of the input images.
        embed_dims: channels a head; a stage has this times its ``num_heads``.
        num_layers: blocks in each stage.
        num_heads: attention heads in each stage; (1, 2, 5, 8) where it is None.
        sr_ratios: by how much keys and values are reduced in each stage, in height and width;
            (8, 4, 2, 1) where it is None.
        mlp_ratios: hidden width of the perceptrons over their input width, in each stage.
        linear: whether keys and values come from 7x7 pooled tokens in every stage, whatever the
            image; ``sr_ratios`` then say nothing, and any image size goes.
        out_indices: stages whose output leaves the backbone, ascending.
        qkv_bias: whether queries, keys and values have a bias.
        drop_rate, attn_drop_rate: dropout on tokens and on attention weights.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        act_cfg, norm_cfg: as in the hosts.
        inner_norm_eps: epsilon of the norms after each patch embedding and each reduction, where
            the official code has another one than in its blocks; mmdet has 1e-6 everywhere.
        with_cp: recompute each block in the backward pass, which saves memory and costs time.
        pretrained: a checkpoint's path or URL; short for ``init_cfg=dict(type="Pretrained", ...)``.
        convert_weights: accepted because the hosts' configs have it; the layout of a checkpoint is
            recognised by its content, so it makes no difference.
        frozen_stages: 0 freezes the first patch embedding, k the first k stages whole,
            -1 nothing.
        plugins: layers behind stages, as :mod:`swin_dense.backbones.stage_plugins` says.
        init_cfg: None, or ``dict(type="swin_dense.Pretrained", checkpoint=...)``.

    Attributes:
        out_channels: channels of each map that leaves.
        out_strides: pixels of the input per cell, for each map that leaves; rounded up.

    Raises:
        UserError: an unknown ``arch``, or sizes that do not fit together.
    """

    architectures = ARCHITECTURES

    def __init__(
        self,
        arch: str = "b2",
        *,
        in_channels: int = 3,
        embed_dims: int | None = None,
        num_layers: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        sr_ratios: Sequence[int] | None = None,
        mlp_ratios: Sequence[float] | None = None,
        linear: bool | None = None,
        out_indices: Sequence[int] | None = None,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        act_cfg: Mapping[str, Any] = {"type": "GELU"},
        norm_cfg: Mapping[str, Any] = {"type": "LN", "eps": 1e-6},
        inner_norm_eps: float = 1e-5,
        with_cp: bool = False,
        pretrained: str | None = None,
        convert_weights: bool = True,
        frozen_stages: int = -1,
        plugins: Sequence[Mapping[str, Any]] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        activation = activation_from_cfg(act_cfg)
        if linear is None:
            linear = architecture(type(self).__name__, self.architectures, arch)["linear"]
        relu_first = linear

        def make_mlp(channels: int, hidden: int) -> nn.Module:
            return ConvMlp(
                channels,
                hidden,
                activation=activation,
                drop_rate=drop_rate,
                relu_first=relu_first,
            )

        super().__init__(
            arch=arch,
            embed_dims=embed_dims,
            num_layers=num_layers,
            num_heads=num_heads,
            sr_ratios=sr_ratios,
            mlp_ratios=mlp_ratios,
            in_channels=in_channels,
            out_indices=out_indices,
            overlapping=True,
            linear=linear,
            qkv_bias=qkv_bias,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            norm_cfg=norm_cfg,
            inner_norm_eps=inner_norm_eps,
            with_cp=with_cp,
            frozen_stages=frozen_stages,
            pretrained=pretrained,
            init_cfg=init_cfg,
            make_mlp=make_mlp,
        )
        initialise_linear(self)
        initialise_convolutions(self)
        self.add_plugins(plugins, self.num_features)
        self.freeze()
