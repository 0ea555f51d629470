"""Launch the Triton kernels of window attention; importing this module imports triton.

Letters: B batch; H, W token grid; C channels; h heads; M window side; N = M * M; nW windows an
image; T rows of the bias table, (2R + 1) ** 2.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.ops._window_attention_kernels import (
    backward_keys_kernel,
    backward_queries_kernel,
    forward_kernel,
)

PROGRAMS = 2048
"""Programs of a launch, about: enough to fill a large GPU some times over, so that the last ones to
finish wait little, and few enough that the sums they leave stay small (N * N floats each)."""

STAGES_ONE_BLOCK, STAGES_MORE = 2, 1
"""How far loads run ahead. Where a window is one block the next window's loads do; where it is more
the blocks are unrolled, and running ahead would cost registers."""


def forward(
    qkv: Tensor,
    pad: Tensor | None,
    table: Tensor,
    scales: Tensor | None,
    num_heads: int,
    window_size: int,
    shift: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return the mixed values and the log2 sums; see swin_dense.ops._window_attention_op."""
    launch = _Launch(qkv, pad, table, scales, num_heads, window_size, shift)
    batch, height, width, channels = qkv.shape
    out = qkv.new_empty(batch, height, width, channels // 3)
    lse = qkv.new_empty(launch.windows, num_heads, window_size**2, dtype=torch.float32)
    launch(forward_kernel, out, lse, *launch.grid_and(scale))
    return out, lse


def backward(
    out_grad: Tensor,
    out: Tensor,
    lse: Tensor,
    qkv: Tensor,
    pad: Tensor | None,
    table: Tensor,
    scales: Tensor | None,
    num_heads: int,
    window_size: int,
    shift: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of qkv, pad, table and scales; empty where there was None."""
    launch = _Launch(qkv, pad, table, scales, num_heads, window_size, shift)
    side, slots, groups = window_size, window_size**2, launch.groups
    parts = groups * launch.blocks
    out_grad = out_grad.to(qkv.dtype).contiguous()
    qkv_grad = torch.empty_like(launch.qkv)
    bias_sums = qkv.new_empty(groups, num_heads, slots, slots, dtype=torch.float32)
    pad_sums = qkv.new_zeros(parts, 2 * out.shape[-1], dtype=torch.float32)
    scale_sums = qkv.new_zeros(parts, num_heads, dtype=torch.float32)
    tensors = (out, lse, out_grad, qkv_grad)
    tail = launch.grid_and(scale)
    launch(backward_keys_kernel, *tensors, bias_sums, pad_sums, scale_sums, *tail)
    if launch.blocks > 1:
        launch(backward_queries_kernel, *tensors, *tail)

    bias_grad = bias_sums.sum(dim=0).view(num_heads, side, side, side, side)
    table_grad = _table_grad(bias_grad, launch.reach).to(table.dtype)
    pad_grad, scales_grad = qkv.new_empty(0), qkv.new_empty(0)
    if pad is not None:
        # the output of a padded query is cropped: no gradient
        pad_grad = F.pad(pad_sums.sum(dim=0), (out.shape[-1], 0)).to(pad.dtype)
    if scales is not None:
        scales_grad = scale_sums.sum(dim=0).to(scales.dtype)
    return qkv_grad, pad_grad, table_grad, scales_grad


class _Launch:
    """The tensors that every kernel reads, the sizes, and the cut into programs."""

    def __init__(
        self,
        qkv: Tensor,
        pad: Tensor | None,
        table: Tensor,
        scales: Tensor | None,
        num_heads: int,
        window_size: int,
        shift: int,
    ) -> None:
        batch, self.height, self.width, channels = qkv.shape
        self.rows, self.columns = -(-self.height // window_size), -(-self.width // window_size)
        self.windows = batch * self.rows * self.columns
        self.reach = (math.isqrt(table.shape[0]) - 1) // 2
        self.qkv = qkv.contiguous()
        ragged = self.height % window_size or self.width % window_size
        # a kernel does not read what its constants switch off
        self.pad = self.qkv if pad is None else pad.contiguous()
        self.table = table.contiguous()
        self.scales = self.table if scales is None else scales.contiguous()
        block = _block(window_size**2)
        self.blocks = -(-(window_size**2) // block)
        self.groups = min(max(PROGRAMS // (num_heads * self.blocks), 1), self.windows)
        self.num_heads = num_heads
        self.constants: dict[str, Any] = dict(
            HEADS=num_heads,
            D=channels // 3 // num_heads,
            M=window_size,
            SHIFT=shift,
            REACH=self.reach,
            BLOCK=block,
            BLOCKS=self.blocks,
            PADDED=bool(ragged) and pad is not None,
            COSINE=scales is not None,
            # float32 stays float32: as plain torch multiplies where nobody allows less
            PRECISION="ieee",
            num_warps=8 if qkv.dtype == torch.float32 else 4,
            num_stages=STAGES_ONE_BLOCK if self.blocks == 1 else STAGES_MORE,
        )

    def grid_and(self, scale: float) -> tuple[Any, ...]:
        """Return the sizes that every kernel takes last."""
        return self.height, self.width, self.rows, self.columns, self.windows, scale

    def __call__(self, kernel: Any, *arguments: Any) -> None:
        """Run a kernel on all windows, if there are any."""
        if not self.windows:
            return
        programs = (self.num_heads * self.blocks, self.groups)
        with torch.cuda.device(self.qkv.device) if self.qkv.is_cuda else nullcontext():
            kernel[programs](
                self.qkv, self.pad, self.table, self.scales, *arguments, **self.constants
            )


def _block(slots: int) -> int:
    """Return the side of a tile: one for a small window, else what leaves few slots empty."""
    if slots <= 64:
        return max(16, 1 << (slots - 1).bit_length())
    return 64 if slots % 64 == 0 else 32


def _table_grad(bias_grad: Tensor, reach: int) -> Tensor:
    """Sum the pairs of each offset: (h, M, M, M, M) of rows, columns of query, key to (T, h).

    By adding along diagonals, in a fixed order; a scatter would add in any.
    """
    # (h, query row, query column, key row, key column) -> (h, key column, query column, down)
    down = _sum_diagonals(bias_grad.permute(0, 4, 2, 1, 3))
    # -> (h, down, query column, key column) -> (h, down, right)
    grid = _sum_diagonals(down.permute(0, 3, 2, 1))
    missing = reach - bias_grad.shape[-1] + 1
    grid = F.pad(grid, (missing,) * 4)
    return grid.flatten(1).t().contiguous()


def _sum_diagonals(pairs: Tensor) -> Tensor:
    """Sum (..., M, M) over each difference of its two indices: (..., 2M - 1), from 1 - M up."""
    side = pairs.shape[-1]
    # with the second index turned round and rows of 2M, reading rows of 2M - 1 skews each by one
    skewed = F.pad(pairs.flip(-1), (0, side)).flatten(-2)[..., : side * (2 * side - 1)]
    return skewed.reshape(*pairs.shape[:-1], 2 * side - 1).sum(dim=-2)
