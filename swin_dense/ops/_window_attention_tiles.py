"""What the kernels of window attention share: where tokens lie, loads and stores, biases, cosines.

Letters: H, W token grid; M window side; N = M * M tokens a window, its "slots"; D channels a head.
The bias table has a row for each offset from -REACH to REACH. Logits are kept times log2(e), for
``exp2``.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
ACROSS = tl.constexpr(-100.0 * 1.4426950408889634)
"""``MASK_VALUE`` of swin_dense.ops.windows, times log2(e)."""


@triton.jit
def places(slot, window, height, width, rows, columns, M: tl.constexpr, SHIFT: tl.constexpr):
    """Return for each slot: its token in the image, whether it has one, its region.

    A slot of the window that has none is a padded token, or lies beyond the N slots.
    """
    row = window // columns * M + slot // M
    column = window % columns * M + slot % M
    source_row, source_column = row + SHIFT, column + SHIFT
    source_row = tl.where(source_row >= rows * M, source_row - rows * M, source_row)
    source_column = tl.where(
        source_column >= columns * M, source_column - columns * M, source_column
    )
    inside = (slot < M * M) & (source_row < height) & (source_column < width)
    # within one window the regions differ only by what came around the end
    wrapped_row = (row >= rows * M - SHIFT).to(tl.int32)
    wrapped_column = (column >= columns * M - SHIFT).to(tl.int32)
    return source_row * width + source_column, inside, 2 * wrapped_row + wrapped_column


@triton.jit
def load_rows(tensor, token, inside, stride: tl.constexpr, D: tl.constexpr):
    """Load (BLOCK, D) rows of tokens; zeros where there is none."""
    at = token[:, None] * stride + tl.arange(0, D)[None, :]
    return tl.load(tensor + at, mask=inside[:, None], other=0.0)


@triton.jit
def load_padded(
    tensor,
    pad,
    slot,
    token,
    inside,
    stride: tl.constexpr,
    D: tl.constexpr,
    N: tl.constexpr,
    PADDED: tl.constexpr,
):
    """Load rows like :func:`load_rows`; a padded token has the row ``pad``."""
    rows = load_rows(tensor, token, inside, stride, D)
    if PADDED:
        outside = (slot < N) & (inside == 0)
        value = tl.load(pad + tl.arange(0, D))
        rows = tl.where(outside[:, None], value[None, :], rows)
    return rows


@triton.jit
def store_rows(tensor, rows, token, inside, stride: tl.constexpr, D: tl.constexpr):
    """Store (BLOCK, D) rows of the tokens that exist."""
    at = token[:, None] * stride + tl.arange(0, D)[None, :]
    tl.store(tensor + at, rows.to(tensor.dtype.element_ty), mask=inside[:, None])


@triton.jit
def position_bias(
    table, head, query, key, HEADS: tl.constexpr, M: tl.constexpr, REACH: tl.constexpr
):
    """Return the biases of (query, key) slots; -inf for keys beyond the window."""
    down = query // M - key // M + REACH
    right = query % M - key % M + REACH
    exists = (query < M * M) & (key < M * M)
    at = (down * (2 * REACH + 1) + right) * HEADS + head
    bias = tl.load(table + at, mask=exists, other=0.0).to(tl.float32) * LOG2E
    return tl.where(key < M * M, bias, float("-inf"))


@triton.jit
def _inverse_length(rows):
    """Return 1 / length of each float32 row; 0 for a zero row."""
    squares = tl.sum(rows * rows, axis=1)
    return tl.where(squares < 1e-12, 0.0, tl.rsqrt(tl.maximum(squares, 1e-12)))


@triton.jit
def unit(rows, COSINE: tl.constexpr):
    """Scale rows to length 1 where cosines are asked for."""
    if COSINE:
        exact = rows.to(tl.float32)
        rows = (exact * _inverse_length(exact)[:, None]).to(rows.dtype)
    return rows


@triton.jit
def through_unit(grad, rows, COSINE: tl.constexpr):
    """Take the gradient of the scaled rows to that of ``rows``."""
    if COSINE:
        exact = rows.to(tl.float32)
        inverse = _inverse_length(exact)[:, None]
        unit = exact * inverse
        grad = (grad - unit * tl.sum(grad * unit, axis=1)[:, None]) * inverse
    return grad
