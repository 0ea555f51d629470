"""Attention over a grid with relative positions that are decomposed into rows and columns.

Source: MViTv2 (https://arxiv.org/abs/2112.01526), section 4.1, as ViTDet
(https://arxiv.org/abs/2203.16527) uses it: query i meets key j with ``q_i . k_j * scale + q_i .
rows[y_i - y_j] + q_i . columns[x_i - x_j]``; the query in the last two terms is not scaled.
Letters: B batch; h heads; H, W grid; N = H * W; d channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from swin_dense.ops.dot_product import attend

BIAS_NUMBERS = 2**24
"""Numbers of a position bias held at once: 64 MiB in float32."""


def relative_vectors(table: Tensor, side: int) -> Tensor:
    """Return the vector of each (query, key) pair of positions along one side of the grid.

    Args:
        table: (2S - 1, d), from offset -(S - 1) to S - 1; interpolated linearly to 2 * side - 1
            rows where the side is not S.
        side: H or W.

    Returns:
        (side, side, d).
    """
    rows = 2 * side - 1
    if table.shape[0] != rows:
        table = resize_offsets(table, rows)
    axis = torch.arange(side, device=table.device)
    return table[axis[:, None] - axis[None, :] + side - 1]


def resize_offsets(table: Tensor, rows: int) -> Tensor:
    """Interpolate a table of offsets (2S - 1, d) linearly to (rows, d), in float32 or wider."""
    exact = table.to(torch.promote_types(table.dtype, torch.float32))
    return F.interpolate(exact.t()[None], size=rows, mode="linear")[0].t()


def attend_with_positions(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    scale: float,
    dropout_p: float = 0.0,
) -> Tensor:
    """Return the attention of a grid with its relative positions in bounded memory.

    On a GPU that is :func:`attend_appended`, elsewhere :func:`attend_by_heads`;
    :func:`attend_with_bias` is the plain twin of both.

    Args:
        query, key, value: (B, h, N, d), row by row.
        rows, columns: (H, H, d) and (W, W, d), from :func:`relative_vectors`.
        scale: factor on the products of queries and keys.
        dropout_p: share of the weights that is dropped, the rest scaled up.

    Returns:
        (B, h, N, d).
    """
    attend_bounded = attend_appended if query.is_cuda else attend_by_heads
    return attend_bounded(query, key, value, rows, columns, scale=scale, dropout_p=dropout_p)


def attend_appended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    scale: float,
    dropout_p: float = 0.0,
) -> Tensor:
    """Do it without N x N numbers in memory, at the price of wider products.

    A query's products with the vectors of its row and column, H + W numbers, are appended to it,
    and to each key the marks of its own row and column: one dot product then gives the sum of all
    three terms, and torch's fused kernels do the rest.
    """
    along_rows, along_columns = _offsets(query, rows, columns)
    height, width = rows.shape[0], columns.shape[0]
    row_marks = torch.eye(height, dtype=key.dtype, device=key.device)
    column_marks = torch.eye(width, dtype=key.dtype, device=key.device)
    # (N, H + W): the row and the column of each key
    marks = torch.cat(
        [row_marks.repeat_interleave(width, dim=0), column_marks.repeat(height, 1)], dim=1
    )
    wide_query = torch.cat([query, along_rows / scale, along_columns / scale], dim=-1)
    wide_key = torch.cat([key, marks.expand(*key.shape[:2], -1, -1)], dim=-1)
    return attend(wide_query, wide_key, value, scale=scale, dropout_p=dropout_p)


def attend_by_heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    scale: float,
    dropout_p: float = 0.0,
    bias_numbers: int = BIAS_NUMBERS,
) -> Tensor:
    """Do it for so many heads at a time as keep the bias below ``bias_numbers`` numbers.

    Where that is not all of them the backward pass computes each group again.
    """
    heads, count = query.shape[1:3]
    together = max(1, bias_numbers // max(1, query.shape[0] * count * count))

    def group(query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return attend_with_bias(query, key, value, rows, columns, scale=scale, dropout_p=dropout_p)

    if together >= heads:
        return group(query, key, value, rows, columns)
    mixed = []
    for first in range(0, heads, together):
        some = tuple(part[:, first : first + together] for part in (query, key, value))
        if torch.is_grad_enabled():
            mixed.append(checkpoint(group, *some, rows, columns, use_reentrant=False))
        else:
            mixed.append(group(some[0], some[1], some[2], rows, columns))
    return torch.cat(mixed, dim=1)


def attend_with_bias(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    scale: float,
    dropout_p: float = 0.0,
) -> Tensor:
    """Do it with the positions of all heads as one (B, h, N, N) bias."""
    along_rows, along_columns = _offsets(query, rows, columns)
    if not len(query):  # every branch was dropped: nothing, with gradients of zero
        return query + key + value + along_rows.sum() + along_columns.sum()
    # (B, h, N, H, 1) + (B, h, N, 1, W) -> (B, h, N, N)
    bias = (along_rows[..., :, None] + along_columns[..., None, :]).flatten(-2)
    return attend(query, key, value, scale=scale, bias=bias, dropout_p=dropout_p)


def _offsets(query: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return each query's products with the vectors of its row and column, (B, h, N, H or W)."""
    height, width = rows.shape[0], columns.shape[0]
    grid = query.unflatten(2, (height, width))  # type: ignore[no-untyped-call]
    along_rows = torch.einsum("bhyxd,ykd->bhyxk", grid, rows.to(query.dtype))
    along_columns = torch.einsum("bhyxd,xkd->bhyxk", grid, columns.to(query.dtype))
    return along_rows.flatten(2, 3), along_columns.flatten(2, 3)
