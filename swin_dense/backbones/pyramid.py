"""What Swin V1 and V2 backbones share: the pyramid of stages, freezing, loading, checks of sizes.

Letters: B batch; H, W token grid; C channels. Tokens are (B, H, W, C) inside; maps leave as (B, C,
H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swin_dense.backbones.base import Backbone, as_map, run_block
from swin_dense.backbones.options import (
    architecture,
    check_frozen_stages,
    check_heads,
    check_images,
    check_out_indices,
    check_per_stage,
)
from swin_dense.errors import UserError
from swin_dense.layers.drop_path import rising_rates
from swin_dense.layers.patch import PatchEmbed, resize_position_grid
from swin_dense.ops.windows import shifted_window_mask

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "small": dict(embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "base": dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    "large": dict(embed_dims=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
}


class SwinStage(nn.Module):
    """Blocks on one grid, plain and shifted in turn; ``downsample`` leads to the next grid."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, tokens: Tensor, *, with_cp: bool = False) -> Tensor:
        """Run the blocks on (B, H, W, C), same shape out; not the downsampling."""
        mask = self._mask(tokens)
        for block in self.blocks:
            tokens = run_block(block, tokens, mask, with_cp=with_cp)
        return tokens

    def _mask(self, tokens: Tensor) -> Tensor | None:
        """Return the mask (nW, N, N) that the stage's shifted blocks share."""
        height, width = tokens.shape[1:3]
        attentions: list[Any] = [block.attn for block in self.blocks]
        if all(attention.is_fused(tokens) for attention in attentions):
            return None  # the fast path has its own
        windows = [attention.window_and_shift((height, width)) for attention in attentions]
        shifted = [(window, shift) for window, shift in windows if shift]
        if not shifted:
            return None
        window, shift = shifted[0]
        padded_hw = (-(-height // window) * window, -(-width // window) * window)
        return shifted_window_mask(padded_hw, window, shift, device=tokens.device)


class SwinPyramid(Backbone):
    """A patch embedding and stages of blocks, with a LayerNorm on the map of each stage that
    leaves.

    :class:`~swin_dense.backbones.swin.SwinTransformer` says what the options mean; a subclass
    brings its block and merging.

    Args:
        make_block: called with the stage's index, its channels, its heads, whether the block is
            shifted, and its drop path rate.
        make_merging: called with the channels of the stage before it.
        norm: maker of the LayerNorms on the embedding and on the outputs.

    Raises:
        UserError: an unknown ``arch``, or sizes that do not fit together.
    """

    checkpoint_family = "swin"
    architectures = ARCHITECTURES
    absolute_pos_embed: nn.Parameter | None

    def __init__(
        self,
        *,
        arch: str,
        embed_dims: int | None,
        depths: Sequence[int] | None,
        num_heads: Sequence[int] | None,
        pretrain_img_size: int | Sequence[int],
        in_channels: int,
        patch_size: int,
        strides: Sequence[int] | None,
        out_indices: Sequence[int] | None,
        patch_norm: bool,
        use_abs_pos_embed: bool,
        drop_rate: float,
        drop_path_rate: float,
        with_cp: bool,
        frozen_stages: int,
        pretrained: str | None,
        plugins: Sequence[Mapping[str, Any]] | None,
        init_cfg: dict[str, Any] | None,
        norm: Callable[[int], nn.Module],
        make_block: Callable[[int, int, int, bool, float], nn.Module],
        make_merging: Callable[[int], nn.Module],
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            pretrained=pretrained,
            init_cfg=init_cfg,
        )
        dims = architecture(type(self).__name__, self.architectures, arch)
        embed_dims = dims["embed_dims"] if embed_dims is None else embed_dims
        depths = tuple(dims["depths"] if depths is None else depths)
        num_heads = tuple(dims["num_heads"] if num_heads is None else num_heads)
        num_stages = len(depths)
        channels = [embed_dims * 2**index for index in range(num_stages)]
        out_indices = tuple(range(num_stages) if out_indices is None else out_indices)
        _check_sizes(
            type(self).__name__,
            channels,
            depths,
            num_heads,
            strides,
            patch_size,
            out_indices,
            frozen_stages,
        )

        self.num_features = channels
        self.out_indices = out_indices
        self.out_channels = tuple(channels[index] for index in out_indices)
        self.out_strides = tuple(patch_size * 2**index for index in out_indices)

        self.patch_embed = PatchEmbed(
            in_channels, embed_dims, patch_size=patch_size, norm=norm if patch_norm else None
        )
        self.absolute_pos_embed = None
        if use_abs_pos_embed:
            grid_h, grid_w = (side // patch_size for side in _pair(pretrain_img_size))
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dims, grid_h, grid_w))
        self.pos_drop = nn.Dropout(drop_rate)

        rates = iter(rising_rates(drop_path_rate, sum(depths)))
        self.layers = nn.ModuleList()
        for index, (width, heads, depth) in enumerate(
            zip(channels, num_heads, depths, strict=True)
        ):
            blocks = [
                make_block(index, width, heads, block % 2 == 1, next(rates))
                for block in range(depth)
            ]
            last = index == num_stages - 1
            self.layers.append(SwinStage(blocks, None if last else make_merging(width)))
        for index in out_indices:
            self.add_module(f"norm{index}", norm(channels[index]))

        initialise(self)
        self.add_plugins(plugins, channels)
        self.freeze()

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
        stages: Any = self.layers
        for index, stage in enumerate(stages):
            tokens = stage(tokens, with_cp=self.with_cp and self.training)
            tokens = self.after_stage(index, tokens)
            if index in self.out_indices:
                maps.append(as_map(getattr(self, f"norm{index}")(tokens)))
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)
        return tuple(maps)

    def frozen_parts(self, frozen_stages: int) -> Iterator[nn.Module | nn.Parameter]:
        """Yield the embedding, and the first stages with their output norms."""
        yield from (self.patch_embed, self.pos_drop)
        if self.absolute_pos_embed is not None:
            yield self.absolute_pos_embed
        for index in range(frozen_stages):
            yield self.layers[index]
            if index in self.out_indices:
                yield getattr(self, f"norm{index}")


def _check_sizes(
    owner: str,
    channels: Sequence[int],
    depths: Sequence[int],
    num_heads: Sequence[int],
    strides: Sequence[int] | None,
    patch_size: int,
    out_indices: Sequence[int],
    frozen_stages: int,
) -> None:
    num_stages = len(depths)
    check_per_stage(owner, "num_heads", num_heads, "depths", depths)
    check_heads(owner, channels, num_heads)
    check_out_indices(owner, out_indices, num_stages)
    check_frozen_stages(owner, frozen_stages, num_stages)
    expected = (patch_size,) + (2,) * (num_stages - 1)
    if strides is not None and tuple(strides) != expected:
        raise UserError(
            f"{owner} got strides={tuple(strides)}; expected {expected}: the embedding steps by "
            f"patch_size={patch_size} and each merging by 2. Leave strides out or mend it."
        )


def initialise(model: nn.Module) -> None:
    """Linear layers and tables from a truncated normal of 0.02; the convolution as torch has it."""
    for name, parameter in model.named_parameters():
        if name.endswith(("relative_position_bias_table", "absolute_pos_embed")):
            nn.init.trunc_normal_(parameter, std=0.02)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _pair(side: int | Sequence[int]) -> tuple[int, ...]:
    """Return (height, width) of a side, of (side,) or of (height, width)."""
    return (side,) * 2 if isinstance(side, int) else tuple(side) * (2 // len(side))
