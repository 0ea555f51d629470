"""Plain vision transformers for dense prediction: ViT, DeiT and ViTDet's windowed variant.

Sources: ViT (https://arxiv.org/abs/2010.11929), DeiT (https://arxiv.org/abs/2012.12877), ViTDet
(https://arxiv.org/abs/2203.16527).
Letters: B batch; H, W token grid; T tokens that are no cell of the grid (class, distillation); L =
T + H * W; C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swin_dense.backbones.base import Backbone, run_block
from swin_dense.backbones.options import (
    activation_from_cfg,
    architecture,
    check_frozen_stages,
    check_images,
    check_out_indices,
    norm_from_cfg,
)
from swin_dense.errors import UserError
from swin_dense.layers.drop_path import DropPath, rising_rates
from swin_dense.layers.grid_attention import GridAttention
from swin_dense.layers.layer_scale import LayerScale
from swin_dense.layers.mlp import Mlp
from swin_dense.layers.patch import PatchEmbed, resize_position_grid
from swin_dense.layers.residual_convolutions import ResidualBottleneck
from swin_dense.ops.fused import compute_dtype
from swin_dense.registry import MODELS

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": dict(embed_dims=192, num_layers=12, num_heads=3),
    "small": dict(embed_dims=384, num_layers=12, num_heads=6),
    "base": dict(embed_dims=768, num_layers=12, num_heads=12),
    "large": dict(embed_dims=1024, num_layers=24, num_heads=16),
    "huge": dict(embed_dims=1280, num_layers=32, num_heads=16),
}


class ViTBlock(nn.Module):
    """Attention and a perceptron, each behind a LayerNorm and beside a shortcut."""

    def __init__(
        self,
        dim: int,
        *,
        attention: GridAttention,
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module],
        mlp_ratio: float,
        drop_rate: float,
        drop_path_rate: float,
        layer_scale: float | None,
        convolutions: bool,
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = attention
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = norm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), activation=activation, drop_rate=drop_rate)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path_rate)
        self.residual = ResidualBottleneck(dim) if convolutions else None

    def forward(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Map (B, L, C) to (B, L, C)."""
        dtype = compute_dtype(tokens)
        tokens = self.drop_path.residual(
            tokens, lambda kept: self.ls1(self.attn(self.norm1(kept), grid_hw)), dtype
        )
        tokens = self.drop_path.residual(
            tokens, lambda kept: self.ls2(self.mlp(self.norm2(kept))), dtype
        )
        if self.residual is None:
            return tokens
        return _as_tokens(self.residual(_as_map(tokens, grid_hw)))


@MODELS.register_module()
class VisionTransformer(Backbone):
    """ViT, DeiT or ViTDet: one grid at one stride, from the first block to the last.

    As it stands every block sees the whole image and class token, as in classification and in
    mmseg. With ``window_size`` it is ViTDet's: windows in most blocks, no class token, and with
    ``use_rel_pos`` relative positions. :class:`swin_dense.SimpleFeaturePyramid` makes a pyramid of
    its last map.

    Args:
        arch: "tiny", "small", "base", "large" or "huge" (or their first letters): sets
            ``embed_dims``, ``num_layers`` and ``num_heads``, each of which may also be given by
            itself and then wins.
        img_size: side in pixels of the square images to train on; sets how many relative positions
            the blocks without windows learn. Other sizes interpolate them.
        pretrain_img_size: side in pixels of the square images that the position embedding is for;
            it is resized to any input.
        patch_size: side of a patch in pixels, and the stride of every map.
        in_channels: channels of the input images.
        embed_dims: C.
        num_layers: number of blocks.
        num_heads: attention heads of each block.
        mlp_ratio: hidden width of the perceptron over its input width.
        qkv_bias: whether query, key and value have a bias.
        out_indices: blocks whose output leaves the backbone, ascending; negative numbers count from
            the last.
        window_size: side in tokens of the windows of windowed blocks; 0 for none.
        window_block_indexes: the windowed blocks; all but four that are evenly spread, the last
            among them, where it is None.
        residual_block_indexes: blocks that end with a bottleneck of convolutions.
        use_rel_pos: whether blocks learn relative positions, decomposed into rows and columns.
        with_cls_token: whether a class token takes part; without windows only. None stands for yes
            where there are no windows and no relative positions.
        with_dist_token: whether DeiT's distillation token takes part as well.
        pretrain_use_cls_token: whether the position embedding has rows for these tokens, or one for
            a class token that is not there (ViTDet). DeiT III has none.
        layer_scale: what the factors on each branch start from (DeiT III); None for no factors.
        final_norm: whether a LayerNorm follows the last block.
        drop_rate, attn_drop_rate: dropout on tokens and on attention weights.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        act_cfg, norm_cfg: as in the hosts, ``dict(type="GELU")`` and ``dict(type="LN", eps=1e-6)``.
        with_cp: recompute each block in the backward pass, which saves memory and costs time.
        frozen_stages: 0 freezes the embeddings and tokens, k also the first k blocks, -1 nothing.
        pretrained: a checkpoint's path or URL; short for ``init_cfg=dict(type="Pretrained", ...)``.
        init_cfg: None, or ``dict(type="Pretrained", checkpoint=...)``.

    Attributes:
        out_channels: channels of each map that leaves.
        out_strides: pixels of the input per cell, for each map that leaves.

    Raises:
        UserError: an unknown ``arch``, or options that do not fit together.
    """

    checkpoint_family = "vit"
    architectures = ARCHITECTURES
    cls_token: nn.Parameter | None
    dist_token: nn.Parameter | None

    def __init__(
        self,
        arch: str = "base",
        *,
        img_size: int = 224,
        pretrain_img_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dims: int | None = None,
        num_layers: int | None = None,
        num_heads: int | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        out_indices: int | Sequence[int] = -1,
        window_size: int = 0,
        window_block_indexes: Sequence[int] | None = None,
        residual_block_indexes: Sequence[int] = (),
        use_rel_pos: bool = False,
        with_cls_token: bool | None = None,
        with_dist_token: bool = False,
        pretrain_use_cls_token: bool = True,
        layer_scale: float | None = None,
        final_norm: bool = False,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        act_cfg: Mapping[str, Any] = {"type": "GELU"},
        norm_cfg: Mapping[str, Any] = {"type": "LN", "eps": 1e-6},
        with_cp: bool = False,
        frozen_stages: int = -1,
        pretrained: str | None = None,
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
        dims = architecture(owner, self.architectures, arch, others="embed_dims, num_layers")
        channels = dims["embed_dims"] if embed_dims is None else embed_dims
        depth = dims["num_layers"] if num_layers is None else num_layers
        heads = dims["num_heads"] if num_heads is None else num_heads
        if heads < 1 or channels % heads:
            raise UserError(
                f"{owner} got {channels} channels and num_heads={heads}, which does not divide "
                "them. Choose heads that do."
            )
        if with_cls_token is None:
            with_cls_token = not window_size and not use_rel_pos
        _check_tokens(owner, with_cls_token, with_dist_token, window_size, use_rel_pos)
        out_indices = (out_indices,) if isinstance(out_indices, int) else out_indices
        out_indices = tuple(index + depth if index < 0 else index for index in out_indices)
        check_out_indices(owner, out_indices, depth)
        check_frozen_stages(owner, frozen_stages, depth)
        windowed = _windowed(owner, depth, window_size, window_block_indexes)
        _check_blocks(owner, "residual_block_indexes", residual_block_indexes, depth)
        norm, activation = norm_from_cfg(norm_cfg), activation_from_cfg(act_cfg)

        self.embed_dims = channels
        self.patch_size = patch_size
        self.out_indices = out_indices
        self.out_channels = (channels,) * len(out_indices)
        self.out_strides = (patch_size,) * len(out_indices)
        self.num_layers = depth
        self.pretrain_grid = pretrain_img_size // patch_size

        self.patch_embed = PatchEmbed(in_channels, channels, patch_size=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels)) if with_cls_token else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, channels)) if with_dist_token else None
        extra_rows = (1 + with_dist_token) if pretrain_use_cls_token else 0
        self.pos_embed = nn.Parameter(torch.zeros(1, extra_rows + self.pretrain_grid**2, channels))
        self.pos_drop = nn.Dropout(drop_rate)
        rates = rising_rates(drop_path_rate, depth)
        side = img_size // patch_size
        self.blocks = nn.ModuleList()
        for index in range(depth):
            window = window_size if index in windowed else 0
            attention = GridAttention(
                channels,
                num_heads=heads,
                window_size=window,
                position_hw=(window or side,) * 2 if use_rel_pos else None,
                qkv_bias=qkv_bias,
                attn_drop_rate=attn_drop_rate,
                proj_drop_rate=drop_rate,
            )
            self.blocks.append(
                ViTBlock(
                    channels,
                    attention=attention,
                    norm=norm,
                    activation=activation,
                    mlp_ratio=mlp_ratio,
                    drop_rate=drop_rate,
                    drop_path_rate=rates[index],
                    layer_scale=layer_scale,
                    convolutions=index in residual_block_indexes,
                )
            )
        self.norm = norm(channels) if final_norm else None
        self._initialise()
        self.freeze()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one ``(B, C, ceil(H_px / patch), ceil(W_px / patch))`` map per out index.

        Raises:
            UserError: ``images`` is not (B, in_channels, H_px, W_px).
        """
        return self.maps_and_tokens(images)[0]

    def maps_and_tokens(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return what :meth:`forward` does, and the class and distillation tokens (B, T, C) as the
        last of the out indices leaves them.

        Raises:
            UserError: ``images`` is not (B, in_channels, H_px, W_px).
        """
        check_images(images, self.in_channels)
        grid = self.patch_embed(images)
        grid_hw = (grid.shape[1], grid.shape[2])
        tokens = self.pos_drop(self._with_positions(grid))
        extra = tokens.shape[1] - grid_hw[0] * grid_hw[1]
        maps, out = [], tokens
        for index, block in enumerate(self.blocks):
            tokens = run_block(block, tokens, grid_hw, with_cp=self.with_cp and self.training)
            if index in self.out_indices:
                is_last = index == self.num_layers - 1
                out = self.norm(tokens) if is_last and self.norm is not None else tokens
                maps.append(_as_map(out[:, extra:], grid_hw))
        return tuple(maps), out[:, :extra]

    def _with_positions(self, grid: Tensor) -> Tensor:
        """Add the position embedding to (B, H, W, C) and put the extra tokens first: (B, L, C)."""
        extra_rows = self.pos_embed.shape[1] - self.pretrain_grid**2
        # (1, S * S, C) -> (1, C, S, S)
        table = self.pos_embed[:, extra_rows:].transpose(1, 2)
        square = table.unflatten(2, (self.pretrain_grid,) * 2)  # type: ignore[no-untyped-call]
        positions = resize_position_grid(square, (grid.shape[1], grid.shape[2]))
        tokens = grid.flatten(1, 2) + _as_tokens(positions)
        extra: list[Tensor] = [
            token for token in (self.cls_token, self.dist_token) if token is not None
        ]
        if not extra:
            return tokens
        first = torch.cat(extra, dim=1)
        if extra_rows:
            first = first + self.pos_embed[:, :extra_rows]
        return torch.cat([first.to(tokens.dtype).expand(len(tokens), -1, -1), tokens], dim=1)

    def frozen_parts(self, frozen_stages: int) -> Iterator[nn.Module | nn.Parameter]:
        """Yield the embeddings and tokens, and the first blocks."""
        yield from (self.patch_embed, self.pos_drop, self.pos_embed)
        for token in (self.cls_token, self.dist_token):
            if token is not None:
                yield token
        yield from self.blocks[:frozen_stages]

    def layer_of(self, name: str) -> int:
        """Return how deep a parameter lies, for learning rates that decay by layer: 0 for the
        embeddings and tokens, k for block k - 1, ``num_layers + 1`` for the rest.
        """
        part, _, inner = name.partition(".")
        if part in ("pos_embed", "cls_token", "dist_token", "patch_embed"):
            return 0
        return int(inner.split(".")[0]) + 1 if part == "blocks" else self.num_layers + 1

    def _initialise(self) -> None:
        for parameter in (self.pos_embed, self.cls_token, self.dist_token):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _as_map(tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """(B, H * W, C) -> (B, C, H, W)."""
    unflat: Tensor = tokens.transpose(1, 2).unflatten(2, grid_hw)  # type: ignore[no-untyped-call]
    return unflat.contiguous()


def _as_tokens(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C)."""
    return maps.flatten(2).transpose(1, 2)


def _windowed(owner: str, depth: int, window_size: int, indexes: Sequence[int] | None) -> set[int]:
    """Return the windowed blocks: those given, or all but the last of each quarter."""
    if window_size < 0:
        raise UserError(
            f"{owner} got window_size={window_size}; expected at least 1, or 0 for no windows."
        )
    if indexes is None:
        if not window_size:
            return set()
        whole = {depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)}
        return set(range(depth)) - whole
    _check_blocks(owner, "window_block_indexes", indexes, depth)
    if indexes and not window_size:
        raise UserError(
            f"{owner} got window_block_indexes={tuple(indexes)} without a window; set window_size, "
            "for example to 14."
        )
    return set(indexes)


def _check_blocks(owner: str, option: str, indexes: Sequence[int], depth: int) -> None:
    if not set(indexes) <= set(range(depth)):
        raise UserError(
            f"{owner} got {option}={tuple(indexes)}; expected numbers of blocks, 0 to {depth - 1}."
        )


def _check_tokens(
    owner: str, with_cls_token: bool, with_dist_token: bool, window_size: int, use_rel_pos: bool
) -> None:
    if with_dist_token and not with_cls_token:
        raise UserError(
            f"{owner} got with_dist_token=True without a class token; DeiT has both: set "
            "with_cls_token=True."
        )
    if with_cls_token and (window_size or use_rel_pos):
        raise UserError(
            f"{owner} got with_cls_token=True with window_size={window_size} and "
            f"use_rel_pos={use_rel_pos}; expected neither: a class token lies in no window and has "
            "no place on the grid. Leave with_cls_token out, or the windows and relative positions."
        )
