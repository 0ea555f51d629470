"""Swin Transformer backbone (https://arxiv.org/abs/2103.14030) for dense prediction.

Letters: B batch; H, W token grid; C channels. Tokens are (B, H, W, C) inside; maps leave as (B, C, H, W).

The semantics are those of the official detection and segmentation code, which the published COCO and
ADE20K figures were made with: constant window and shift, zero padding to window multiples, a LayerNorm on
each output before merging. Parameter names are the official ones; checkpoints in the mm hosts' layout load
as well, because the state dict is renamed on the way in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swin_dense.backbones.options import activation_from_cfg, check_images, norm_from_cfg
from swin_dense.checkpoints.load import initialise_from, register_key_translation
from swin_dense.errors import UserError, did_you_mean
from swin_dense.layers.drop_path import DropPath
from swin_dense.layers.mlp import Mlp
from swin_dense.layers.patch import PatchEmbed, PatchMerging, resize_position_grid
from swin_dense.layers.window_attention import WindowAttention
from swin_dense.ops.windows import shifted_window_mask
from swin_dense.registry import MODELS

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "small": dict(embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "base": dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    "large": dict(embed_dims=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
}


class SwinBlock(nn.Module):
    """Pre-norm window attention and perceptron, each with a residual path."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int,
        shift: int,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = WindowAttention(
            dim,
            num_heads=num_heads,
            window_size=window_size,
            shift=shift,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop_rate=attn_drop_rate,
            proj_drop_rate=drop_rate,
        )
        self.norm2 = norm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), activation=activation, drop_rate=drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C); ``mask`` is for shifted blocks."""
        attended = self.attn(self.norm1(tokens), mask if self.attn.shift else None)
        tokens = tokens + self.drop_path(attended)
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class SwinStage(nn.Module):
    """Blocks on one grid, plain and shifted in turn; ``downsample`` leads to the next stage's grid."""

    def __init__(self, blocks: Sequence[SwinBlock], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, tokens: Tensor, *, with_cp: bool = False) -> Tensor:
        """Run the blocks on (B, H, W, C), same shape out; not the downsampling."""
        mask = self._mask(tokens)
        for block in self.blocks:
            if with_cp and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, mask, use_reentrant=False)
            else:
                tokens = block(tokens, mask)
        return tokens

    def _mask(self, tokens: Tensor) -> Tensor | None:
        """Return the mask (nW, N, N) that the stage's shifted blocks share."""
        shifted = [block.attn for block in self.blocks if block.attn.shift]
        if not shifted:
            return None
        window, shift = shifted[0].window_size, shifted[0].shift
        padded_hw = tuple(-(-side // window) * window for side in tokens.shape[1:3])
        return shifted_window_mask(padded_hw, window, shift, device=tokens.device)  # type: ignore[arg-type]


@MODELS.register_module()
class SwinTransformer(BaseModule):
    """Swin Transformer that gives a pyramid of maps.

    The arguments bear the names that mmdet's and mmseg's classes give them, so in a config of theirs only
    ``type`` changes to ``"swin_dense.SwinTransformer"``.

    Args:
        arch: "tiny", "small", "base" or "large" (or their first letters): sets ``embed_dims``, ``depths``
            and ``num_heads``, each of which may also be given by itself and then wins.
        pretrain_img_size: side or (height, width) in pixels of the images that the absolute position
            embedding was trained on.
        in_channels: channels of the input images.
        embed_dims: channels of the first stage; each further stage has twice as many.
        patch_size: side of a patch in pixels.
        window_size: side of an attention window in tokens.
        mlp_ratio: hidden width of the perceptron over its input width.
        depths: blocks in each stage.
        num_heads: attention heads in each stage.
        strides: of the patch embedding and of each merging; only ``(patch_size, 2, 2, ...)`` exists.
        out_indices: stages whose output leaves the backbone, ascending.
        qkv_bias: whether query, key and value have a bias.
        qk_scale: factor on the queries; ``head_dim ** -0.5`` where it is None.
        patch_norm: whether a LayerNorm follows the patch embedding.
        drop_rate, attn_drop_rate: dropout on tokens and on attention weights.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        use_abs_pos_embed: whether a learned position embedding is added; it is resized to any input.
        act_cfg, norm_cfg: as in the hosts, ``dict(type="GELU")`` and ``dict(type="LN")``.
        with_cp: recompute each block in the backward pass, which saves memory and costs time.
        pretrained: a checkpoint's path or URL; short for ``init_cfg=dict(type="Pretrained", ...)``.
        convert_weights: accepted because the hosts' configs have it; the layout of a checkpoint is
            recognised by its content, so it makes no difference.
        frozen_stages: number of stages that do not train, as mmdet counts: 0 freezes the embedding alone,
            k also the first k stages with their output norms, -1 nothing.
        init_cfg: None, or ``dict(type="Pretrained", checkpoint=...)``.

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
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        if pretrained is not None:
            if init_cfg is not None:
                raise UserError(
                    f"SwinTransformer got both pretrained={pretrained!r} and init_cfg={init_cfg!r}; "
                    "expected one of them. Keep init_cfg, which says the same."
                )
            init_cfg = dict(type="Pretrained", checkpoint=pretrained)
        super().__init__(init_cfg=init_cfg)
        dims = _architecture(arch)
        embed_dims = dims["embed_dims"] if embed_dims is None else embed_dims
        depths = tuple(dims["depths"] if depths is None else depths)
        num_heads = tuple(dims["num_heads"] if num_heads is None else num_heads)
        num_stages = len(depths)
        channels = [embed_dims * 2**index for index in range(num_stages)]
        out_indices = tuple(range(num_stages) if out_indices is None else out_indices)
        _check_sizes(channels, depths, num_heads, strides, patch_size, out_indices, frozen_stages)

        norm, activation = norm_from_cfg(norm_cfg), activation_from_cfg(act_cfg)
        self.in_channels = in_channels
        self.num_features = channels
        self.out_indices = out_indices
        self.out_channels = tuple(channels[index] for index in out_indices)
        self.out_strides = tuple(patch_size * 2**index for index in out_indices)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp

        self.patch_embed = PatchEmbed(
            in_channels, embed_dims, patch_size=patch_size, norm=norm if patch_norm else None
        )
        self.absolute_pos_embed: nn.Parameter | None = None
        if use_abs_pos_embed:
            pretrain_hw = (
                (pretrain_img_size,) * 2
                if isinstance(pretrain_img_size, int)
                else tuple(pretrain_img_size) * (2 // len(pretrain_img_size))
            )
            grid_h, grid_w = (side // patch_size for side in pretrain_hw)
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dims, grid_h, grid_w))
        self.pos_drop = nn.Dropout(drop_rate)

        drop_path_rates = iter(
            torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        )
        self.layers = nn.ModuleList()
        for index, depth in enumerate(depths):
            blocks = [
                SwinBlock(
                    channels[index],
                    num_heads=num_heads[index],
                    window_size=window_size,
                    shift=0 if block % 2 == 0 else window_size // 2,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    drop_rate=drop_rate,
                    attn_drop_rate=attn_drop_rate,
                    drop_path_rate=next(drop_path_rates),
                    norm=norm,
                    activation=activation,
                )
                for block in range(depth)
            ]
            last = index == num_stages - 1
            self.layers.append(
                SwinStage(blocks, None if last else PatchMerging(channels[index], norm=norm))
            )
        for index in out_indices:
            self.add_module(f"norm{index}", norm(channels[index]))

        _initialise(self)
        register_key_translation(self)
        self._freeze()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one ``(B, C_i, ceil(H / stride_i), ceil(W / stride_i))`` map per out index.

        Raises:
            UserError: ``images`` is not (B, in_channels, H, W).
        """
        check_images(images, self.in_channels)
        tokens = self.patch_embed(images)
        if self.absolute_pos_embed is not None:
            grid = resize_position_grid(self.absolute_pos_embed, tuple(tokens.shape[1:3]))
            tokens = tokens + grid.permute(0, 2, 3, 1)  # (1, C, H, W) -> (1, H, W, C)
        tokens = self.pos_drop(tokens)
        maps = []
        for index, stage in enumerate(self.layers):
            tokens = stage(tokens, with_cp=self.with_cp and self.training)
            if index in self.out_indices:
                normed = getattr(self, f"norm{index}")(tokens)
                maps.append(normed.permute(0, 3, 1, 2).contiguous())  # (B, H, W, C) -> (B, C, H, W)
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)
        return tuple(maps)

    def init_weights(self) -> None:
        """Load the checkpoint that ``init_cfg`` names; without one keep the fresh initialisation.

        Raises:
            UserError: the checkpoint is missing, unreadable or of another model, or ``init_cfg`` is of
                another type than "Pretrained".
        """
        initialise_from(self, self.init_cfg)
        self._is_init = True

    def train(self, mode: bool = True) -> SwinTransformer:
        """Switch to training; frozen stages stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen: list[nn.Module] = [self.patch_embed]
        self.pos_drop.eval()
        if self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad_(False)
        for index in range(self.frozen_stages):
            frozen.append(self.layers[index])
            if index in self.out_indices:
                frozen.append(getattr(self, f"norm{index}"))
        for module in frozen:
            module.eval().requires_grad_(False)


def _architecture(arch: str) -> dict[str, Any]:
    by_letter = {name[0]: name for name in ARCHITECTURES}
    name = arch.lower() if isinstance(arch, str) else arch
    name = by_letter.get(name, name)
    if name not in ARCHITECTURES:
        raise UserError(
            f"SwinTransformer got arch={arch!r}{did_you_mean(str(arch), ARCHITECTURES)}; expected one of "
            f"{', '.join(ARCHITECTURES)}. For other sizes give embed_dims, depths and num_heads."
        )
    return ARCHITECTURES[name]


def _check_sizes(
    channels: Sequence[int],
    depths: Sequence[int],
    num_heads: Sequence[int],
    strides: Sequence[int] | None,
    patch_size: int,
    out_indices: Sequence[int],
    frozen_stages: int,
) -> None:
    num_stages = len(depths)
    if len(num_heads) != num_stages:
        raise UserError(
            f"SwinTransformer got depths={tuple(depths)} for {num_stages} stages and "
            f"num_heads={tuple(num_heads)} for {len(num_heads)}; expected one number of heads a stage."
        )
    for index, (width, heads) in enumerate(zip(channels, num_heads, strict=True)):
        if width % heads:
            raise UserError(
                f"SwinTransformer: stage {index} has {width} channels (embed_dims={channels[0]} doubled "
                f"{index} times), which num_heads[{index}]={heads} does not divide. Choose heads that do."
            )
    if list(out_indices) != sorted(set(out_indices)) or not set(out_indices) <= set(
        range(num_stages)
    ):
        raise UserError(
            f"SwinTransformer got out_indices={tuple(out_indices)}; expected ascending numbers from "
            f"0 to {num_stages - 1}, each once."
        )
    expected = (patch_size,) + (2,) * (num_stages - 1)
    if strides is not None and tuple(strides) != expected:
        raise UserError(
            f"SwinTransformer got strides={tuple(strides)}; expected {expected}: the embedding steps by "
            f"patch_size={patch_size} and each merging by 2. Leave strides out or mend it."
        )
    if not -1 <= frozen_stages <= num_stages:
        raise UserError(
            f"SwinTransformer got frozen_stages={frozen_stages}; expected -1 (none) to {num_stages} (all)."
        )


def _initialise(model: SwinTransformer) -> None:
    """Linear layers and tables from a truncated normal of 0.02; the patch convolution as torch has it."""
    for name, parameter in model.named_parameters():
        if name.endswith(("relative_position_bias_table", "absolute_pos_embed")):
            nn.init.trunc_normal_(parameter, std=0.02)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
