"""Images to tokens, and many tokens to one: the layers between the stages of Swin and PVT.

Sources: Swin Transformer (https://arxiv.org/abs/2103.14030), section 3.1; PVT
(https://arxiv.org/abs/2102.12122), section 3.2; PVT v2 (https://arxiv.org/abs/2106.13797), section
3.1.
Letters: B batch; H, W token grid; C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.layers.linear import Linear
from swin_dense.ops.windows import pad_to_multiple


class PatchEmbed(nn.Module):
    """Cut an image into patches and embed each: a strided convolution, then maybe a LayerNorm."""

    def __init__(
        self,
        in_channels: int,
        embed_dims: int,
        *,
        patch_size: int = 4,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)
        self.norm = norm(embed_dims) if norm else None

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, in_channels, H_px, W_px) to (B, ceil(H_px / patch), ceil(W_px / patch), C)."""
        images = pad_to_multiple(images, self.patch_size, dims=(2, 3))
        # (B, C, H, W) -> (B, H, W, C)
        tokens = self.proj(images).permute(0, 2, 3, 1)
        return self.norm(tokens) if self.norm is not None else tokens


class ConvEmbed(nn.Module):
    """A strided convolution and a LayerNorm, as PVT goes from one grid to the next.

    With ``kernel_size == stride`` and no padding what does not fill a patch is dropped (PVT v1);
    with an odd kernel and ``padding == kernel_size // 2`` patches overlap and sides are rounded up
    (PVT v2).
    """

    def __init__(
        self,
        in_channels: int,
        embed_dims: int,
        *,
        kernel_size: int,
        stride: int,
        padding: int = 0,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dims, kernel_size, stride=stride, padding=padding)
        self.norm = norm(embed_dims)

    def forward(self, grid: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to tokens (B, H', W', C)."""
        return self.norm(self.proj(grid).permute(0, 2, 3, 1))  # (B, C, H, W) -> (B, H, W, C)


class PatchMerging(nn.Module):
    """Join each 2x2 neighbourhood of tokens and project 4C to 2C; odd grids are zero-padded first.

    The four tokens stand in the official, column-major order (0,0), (1,0), (0,1), (1,1) as (row,
    column); the mm hosts use another one, see :mod:`swin_dense.checkpoints.keys.mm`.

    Args:
        norm_last: Swin V2's order, LayerNorm of 2C after the projection; V1 has one of 4C before
            it.
    """

    def __init__(
        self,
        dim: int,
        *,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
        norm_last: bool = False,
    ) -> None:
        super().__init__()
        self.norm_last = norm_last
        self.norm = norm(2 * dim if norm_last else 4 * dim)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), 2C)."""
        tokens = pad_to_multiple(tokens, 2)
        # (B, H, W, C) -> (B, H/2, row, W/2, column, C) -> (B, H/2, W/2, column, row, C)
        blocks = tokens.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5)
        joined = blocks.flatten(3)
        if self.norm_last:
            return self.norm(self.reduction(joined))
        return self.reduction(self.norm(joined))


def resize_position_grid(grid: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Resize a learned (1, C, H, W) position grid to ``grid_hw``, bicubic as the official code."""
    if tuple(grid.shape[2:]) == grid_hw:
        return grid
    exact = grid.to(torch.promote_types(grid.dtype, torch.float32))
    return F.interpolate(exact, size=grid_hw, mode="bicubic").to(grid.dtype)
