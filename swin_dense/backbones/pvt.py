"""Pyramid Vision Transformer backbone (https://arxiv.org/abs/2102.12122) for dense prediction.

Letters: B batch; H, W token grid; C channels. Tokens are (B, H, W, C) inside; maps leave as (B, C,
H, W).

The semantics are those of the official detection and segmentation code: sizes are rounded down,
maps leave without a norm, position embeddings are resized bilinearly. Parameter names are the
official ones; the last position embedding keeps the row of the class token, which is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swin_dense.backbones.options import activation_from_cfg
from swin_dense.backbones.pvt_pyramid import PVTPyramid, initialise_linear, positions_on_grid
from swin_dense.errors import UserError
from swin_dense.layers.mlp import Mlp
from swin_dense.registry import MODELS

_COMMON = dict(embed_dims=64, mlp_ratios=(8, 8, 4, 4))
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": dict(_COMMON, num_layers=(2, 2, 2, 2)),
    "small": dict(_COMMON, num_layers=(3, 4, 6, 3)),
    "medium": dict(_COMMON, num_layers=(3, 4, 18, 3)),
    "large": dict(_COMMON, num_layers=(3, 8, 27, 3)),
}


@MODELS.register_module()
class PVT(PVTPyramid):
    """PVT v1 that gives a pyramid of maps from images of at least 32 pixels along each side.

    The arguments bear the names that mmdet's ``PyramidVisionTransformer`` gives them.

    Args:
        arch: "tiny", "small", "medium" or "large" (or their first letters): sets ``num_layers``,
            ``embed_dims`` and ``mlp_ratios``, each of which may also be given and then wins.
        pretrain_img_size: side in pixels of the square images that the position embeddings were
            trained on.
        in_channels: channels of the input images.
        embed_dims: channels a head; a stage has this times its ``num_heads``.
        num_layers: blocks in each stage.
        num_heads: attention heads in each stage; (1, 2, 5, 8) where it is None.
        sr_ratios: by how much keys and values are reduced in each stage, in height and width;
            (8, 4, 2, 1) where it is None.
        mlp_ratios: hidden width of the perceptrons over their input width, in each stage.
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
        frozen_stages: 0 freezes the first patch and position embedding, k the first k stages whole,
            -1 nothing.
        plugins: layers behind stages, as :mod:`swin_dense.backbones.stage_plugins` says.
        init_cfg: None, or ``dict(type="swin_dense.Pretrained", checkpoint=...)``.

    Attributes:
        out_channels: channels of each map that leaves.
        out_strides: pixels of the input per cell, for each map that leaves; rounded down.

    Raises:
        UserError: an unknown ``arch``, or sizes that do not fit together.
    """

    architectures = ARCHITECTURES

    def __init__(
        self,
        arch: str = "small",
        *,
        pretrain_img_size: int = 224,
        in_channels: int = 3,
        embed_dims: int | None = None,
        num_layers: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        sr_ratios: Sequence[int] | None = None,
        mlp_ratios: Sequence[float] | None = None,
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

        def make_mlp(channels: int, hidden: int) -> nn.Module:
            return Mlp(channels, hidden, activation=activation, drop_rate=drop_rate)

        super().__init__(
            arch=arch,
            embed_dims=embed_dims,
            num_layers=num_layers,
            num_heads=num_heads,
            sr_ratios=sr_ratios,
            mlp_ratios=mlp_ratios,
            in_channels=in_channels,
            out_indices=out_indices,
            overlapping=False,
            linear=False,
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
        coarsest = 4 * 2 ** (self.num_stages - 1)
        if not isinstance(pretrain_img_size, int) or pretrain_img_size < coarsest:
            raise UserError(
                f"PVT got pretrain_img_size={pretrain_img_size!r}; expected the side of square "
                f"images in pixels, at least {coarsest}."
            )
        self.pos_drop = nn.Dropout(drop_rate)
        self.position_sides = [pretrain_img_size // (4 * 2**i) for i in range(self.num_stages)]
        for index, (side, width) in enumerate(
            zip(self.position_sides, self.num_features, strict=True)
        ):
            rows = side * side + (index == self.num_stages - 1)  # the last has the class token's
            table = nn.Parameter(torch.zeros(1, rows, width))
            nn.init.trunc_normal_(table, std=0.02)
            self.register_parameter(f"pos_embed{index + 1}", table)
        initialise_linear(self)
        self.add_plugins(plugins, self.num_features)
        self.freeze()

    def _with_positions(self, index: int, tokens: Tensor) -> Tensor:
        table = getattr(self, f"pos_embed{index + 1}")
        height, width = tokens.shape[1:3]
        positions = positions_on_grid(table, self.position_sides[index], (height, width))
        dropped: Tensor = self.pos_drop(tokens + positions)
        return dropped
