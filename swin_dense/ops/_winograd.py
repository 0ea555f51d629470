"""3 x 3 convolutions by Winograd's minimal filtering (https://arxiv.org/abs/1509.09308).

Four output rows and columns at a time, with a quarter of the multiplications.

A tile of 6 x 6 inputs and the kernel are each transformed to 36 numbers, multiplied one by one
(over channels: 36 matrix products), and transformed back to 4 x 4 outputs. The points of the
transforms are 0, 1, -1, 1/2, -2 and infinity, which err least in float32: by 2e-6 to 5e-6 of the
largest value, where a plain sum of products errs by up to 1e-6.

Tiles go in groups that stay in the processor's cache, and any subset of them can be computed.
Letters: B images; H, W map; C, O input and output channels; T tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

OUT, KERNEL = 4, 3
IN = OUT + KERNEL - 1
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)

_GROUP_NUMBERS = 2**19
"""Numbers of inputs and outputs in one group of tiles, at each of the 36 positions."""

_GROUP_TILES = (256, 512)
"""Least and greatest count of tiles in a group: few make products slow, many leave the cache."""

_ROUND_COUNT = 64
"""What the number of tiles, where not all are computed, is a multiple of."""

_BIAS_AT = POINTS.index(1.0) * IN + POINTS.index(1.0)
"""Where a number reaches all outputs of a tile with weight 1."""


@dataclass(frozen=True)
class Transforms:
    """The three linear maps, over both axes at once.

    Attributes:
        outputs: (16, 36), from products to outputs.
        kernel: (36, 9), of the kernel.
        inputs: (36, 36), of a tile of inputs.
    """

    outputs: Tensor
    kernel: Tensor
    inputs: Tensor


@lru_cache(maxsize=4)
def transforms(dtype: torch.dtype) -> Transforms:
    """Return the transforms by the construction of Cook and Toom: values of polynomials at points,
    their product there, and interpolation."""
    powers = torch.tensor(POINTS, dtype=torch.float64)[:, None] ** torch.arange(IN)  # (5, 6)
    outputs, kernel = torch.zeros(OUT, IN).double(), torch.zeros(IN, KERNEL).double()
    inputs = torch.zeros(IN, IN).double()
    outputs[:, :-1], outputs[-1, -1] = powers[:, :OUT].t(), 1.0
    kernel[-1, -1] = 1.0
    for row, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        kernel[row] = powers[row, :KERNEL] / math.prod(point - other for other in others)
        inputs[row, :-1] = _coefficients(others)
    inputs[-1] = _coefficients(POINTS)
    both = [torch.kron(matrix, matrix).to(dtype) for matrix in (outputs, kernel, inputs)]
    return Transforms(*both)


def _coefficients(roots: list[float] | tuple[float, ...]) -> Tensor:
    """Return the coefficients of the polynomial with these roots, constant first."""
    found = torch.ones(1, dtype=torch.float64)
    for root in roots:
        found = F.pad(found, (1, 0)) - root * F.pad(found, (0, 1))
    return found


def convolve(
    maps: Tensor, weight: Tensor, bias: Tensor | None, tiles: Tensor | None = None
) -> Tensor:
    """Return a 3 x 3 convolution of stride 1, padded by 1.

    Args:
        maps: (B, H, W, C), contiguous.
        weight: (O, C, 3, 3).
        bias: (O,) or None.
        tiles: numbers of the tiles to compute, as :func:`tiles_touched` gives them; all other
            places are then 0. None computes all.

    Returns:
        (B, O, H, W), channels last in memory and no view of another tensor, so that a caller may
        change it in place.
    """
    batch, height, width, channels = maps.shape
    kernels, through = _transformed_kernels(weight), transforms(work_dtype(maps))
    tiling, rows = tiles_of((height, width)), maps.view(-1, channels)
    out = torch.empty(
        (batch, len(weight), height, width), dtype=maps.dtype, memory_format=torch.channels_last
    )
    if tiles is not None:
        out.zero_()
    out_rows = out.permute(0, 2, 3, 1).view(-1, len(weight))  # (B, O, H, W) -> (B * H * W, O)
    for group in _groups(tiles, tiling, batch, channels + len(weight)):
        products = torch.bmm(_transformed_inputs(rows, tiling, group), kernels)
        if bias is not None:
            products[_BIAS_AT] += bias
        values = (through.outputs @ products.flatten(1)).view(-1, len(weight))  # (16 * T, O)
        places = tiling.places(group, tiling.outputs)
        if tiling.is_ragged:
            inside = (places >= 0).nonzero().flatten()
            places, values = places[inside], values.index_select(0, inside)
        out_rows.index_copy_(0, places, values.to(out.dtype))
    return out


def weight_gradient(maps: Tensor, grad: Tensor, tiles: Tensor | None) -> Tensor:
    """Return the gradient (O, C, 3, 3) of the weight, from the tiles (all for None) alone.

    Args:
        maps: (B, H, W, C), contiguous: what was convolved.
        grad: (B, H, W, O), contiguous: the gradient of the outputs.
        tiles: those where ``grad`` is not 0.
    """
    batch, height, width, channels = maps.shape
    outputs = grad.shape[-1]
    tiling, through = tiles_of((height, width)), transforms(work_dtype(maps))
    total = through.kernel.new_zeros(IN * IN, channels, outputs)
    rows, grad_rows = maps.view(-1, channels), grad.view(-1, outputs)
    for group in _groups(tiles, tiling, batch, channels + outputs):
        own = _rows_or_zeros(grad_rows, tiling, group, tiling.outputs).to(total.dtype)
        spread = through.outputs.t() @ own.view(OUT * OUT, -1)  # (36, T * O)
        spread = spread.view(IN * IN, -1, outputs)
        total.baddbmm_(_transformed_inputs(rows, tiling, group).transpose(1, 2), spread)
    taps = through.kernel.t() @ total.flatten(1)  # (9, C * O)
    return (
        taps.view(KERNEL, KERNEL, channels, outputs).permute(3, 2, 0, 1).contiguous().to(maps.dtype)
    )


def turned(weight: Tensor) -> Tensor:
    """Return the kernels (C, O, 3, 3) that carry gradients back through ``weight`` (O, C, 3, 3)."""
    return weight.transpose(0, 1).flip(2, 3)


def tiles_touched(places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of the tiles whose outputs, and of those whose inputs, hold one of
    ``places`` (B, H, W), which is true where a map is not 0; and of some other tiles."""
    hits = places[:, None].float()
    own = F.max_pool2d(hits, OUT, OUT, ceil_mode=True)
    around = F.max_pool2d(F.max_pool2d(hits, 3, 1, 1), OUT, OUT, ceil_mode=True)
    return true_and_more(own), true_and_more(around)


def true_and_more(flags: Tensor) -> Tensor:
    """Return the numbers of all true ``flags``, and of false ones up to a round count: oneDNN
    generates a kernel for each new count, which costs more than some zeros do."""
    flags = flags.flatten().bool()
    found = flags.nonzero().flatten()
    others = flags.logical_not().nonzero().flatten()
    return torch.cat([found, others[: -len(found) % _ROUND_COUNT]])


@dataclass(frozen=True)
class Tiling:
    """Which places of a map the tiles of an image hold: rows of the map, -1 outside of it.

    Attributes:
        inputs: (36, T).
        outputs: (16, T).
        area: places of a map.
        is_ragged: whether some outputs lie outside.
    """

    inputs: Tensor
    outputs: Tensor
    area: int
    is_ragged: bool

    def places(self, tiles: Tensor, of: Tensor) -> Tensor:
        """Return the places of ``tiles``, counted through the batch: (n * T,) rows of all maps,
        -1 outside."""
        image = tiles.div(of.shape[1], rounding_mode="floor") * self.area
        own = of.index_select(1, tiles % of.shape[1])
        return torch.where(own < 0, -1, own + image).flatten()


@lru_cache(maxsize=32)
def tiles_of(map_hw: tuple[int, int]) -> Tiling:
    """Return the tiling of a map, row by row; that of the last few is kept."""
    height, width = map_hw

    def places(first: int, count: int) -> Tensor:
        axes = []
        for length in map_hw:
            starts = torch.arange(0, length, OUT) + first
            along = torch.arange(count)[:, None] + starts  # (count, tiles of the axis)
            axes.append(along.masked_fill((along < 0) | (along >= length), -1))
        rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
        inside = (rows >= 0) & (columns >= 0)
        return torch.where(inside, rows * width + columns, -1).reshape(count * count, -1)

    is_ragged = bool(height % OUT or width % OUT)
    return Tiling(places(-1, IN), places(0, OUT), height * width, is_ragged)


def work_dtype(values: Tensor) -> torch.dtype:
    """Return what the transforms compute in: float32 for less, whose digits they would cost."""
    return torch.promote_types(values.dtype, torch.float32)


def _groups(tiles: Tensor | None, tiling: Tiling, batch: int, channels: int) -> Iterator[Tensor]:
    if tiles is None:
        tiles = torch.arange(batch * tiling.inputs.shape[1])
    if len(tiles):
        least, most = _GROUP_TILES
        yield from torch.split(tiles, max(least, min(most, _GROUP_NUMBERS // channels)))


def _transformed_inputs(rows: Tensor, tiling: Tiling, tiles: Tensor) -> Tensor:
    """Return (36, T, C) of the maps' rows (B * H * W, C)."""
    patches = _rows_or_zeros(rows, tiling, tiles, tiling.inputs)
    work = work_dtype(rows)
    through = transforms(work).inputs @ patches.view(IN * IN, -1).to(work)
    return through.view(IN * IN, -1, rows.shape[1])


def _rows_or_zeros(rows: Tensor, tiling: Tiling, tiles: Tensor, of: Tensor) -> Tensor:
    places = tiling.places(tiles, of)
    found = rows.index_select(0, places.clamp(min=0))
    return found.index_fill_(0, (places < 0).nonzero().flatten(), 0)


def _transformed_kernels(weight: Tensor) -> Tensor:
    """Return (36, C, O) of a weight (O, C, 3, 3)."""
    taps = weight.permute(2, 3, 1, 0).reshape(KERNEL * KERNEL, -1)  # (9, C * O)
    work = work_dtype(weight)
    kernels = transforms(work).kernel @ taps.to(work)
    return kernels.view(IN * IN, weight.shape[1], weight.shape[0])
