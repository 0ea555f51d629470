"""Triton kernels of window attention: shift, windows, bias, mask and softmax in one pass.

Source: Swin Transformer (https://arxiv.org/abs/2103.14030), section 3.2; V2's cosines
(https://arxiv.org/abs/2111.09883), section 3.3. That the backward pass computes the softmax again
from one number a row is FlashAttention's idea (https://arxiv.org/abs/2205.14135).
docs/adr/0011-fused-window-attention.md says why the work is cut as it is.

Letters: B batch; H, W token grid; C channels; h heads; D = C / h; M window side; N = M * M tokens a
window, its "slots"; nW windows an image; T rows of the bias table. The slots of a window are cut
into BLOCKS blocks of BLOCK.

A program owns one head and one block, and walks over the windows ``group``, ``group + groups``, ...
The position biases stay in its registers, and so do the sums for their gradient, which leave once,
at its end. Each sum has one owner and one order, so results do not differ between runs.
"""

import triton
import triton.language as tl

from swin_dense.ops._window_attention_tiles import (
    ACROSS,
    LOG2E,
    load_padded,
    load_rows,
    places,
    position_bias,
    store_rows,
    through_unit,
    unit,
)

SIZES = ["height", "width", "rows", "columns", "windows"]
"""They change from batch to batch; no kernel is compiled again for a size that 16 divides."""


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    qkv,  # (B, H, W, 3C)
    pad,  # (3C): queries, keys and values of a padded token
    table,  # (T, h)
    scales,  # (h) where COSINE
    out,  # (B, H, W, C)
    lse,  # (B * nW, h, N): log2 of the sums
    height,
    width,
    rows,
    columns,
    windows,
    scale,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    SHIFT: tl.constexpr,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    PADDED: tl.constexpr,
    COSINE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Mix the values for one head and one block of queries in each window of the group."""
    N: tl.constexpr = M * M
    C: tl.constexpr = HEADS * D
    head = tl.program_id(0) % HEADS
    query_slot = tl.program_id(0) // HEADS * BLOCK + tl.arange(0, BLOCK)
    if COSINE:
        scale = tl.load(scales + head).to(tl.float32)
    biases = ()
    for block in tl.static_range(BLOCKS):
        key_slot = block * BLOCK + tl.arange(0, BLOCK)
        biases = biases + (
            position_bias(table, head, query_slot[:, None], key_slot[None, :], HEADS, M, REACH),
        )
    per_image = rows * columns
    for window in range(tl.program_id(1), windows, tl.num_programs(1)):
        first = tl.cast(window // per_image, tl.int64) * height * width
        images = qkv + first * 3 * C + head * D
        token, inside, region = places(
            query_slot, window % per_image, height, width, rows, columns, M, SHIFT
        )
        query = load_padded(images, pad + head * D, query_slot, token, inside, 3 * C, D, N, PADDED)
        query = unit(query, COSINE)
        logits = ()
        highest = tl.full((BLOCK,), float("-inf"), tl.float32)
        for block in tl.static_range(BLOCKS):
            key_slot = block * BLOCK + tl.arange(0, BLOCK)
            key_token, key_inside, key_region = places(
                key_slot, window % per_image, height, width, rows, columns, M, SHIFT
            )
            key = load_padded(
                images + C, pad + C + head * D, key_slot, key_token, key_inside, 3 * C, D, N, PADDED
            )
            key = unit(key, COSINE)
            logit = tl.dot(query, tl.trans(key), input_precision=PRECISION) * (scale * LOG2E)
            logit += biases[block]
            if SHIFT > 0:
                logit += tl.where(region[:, None] == key_region[None, :], 0.0, ACROSS)
            highest = tl.maximum(highest, tl.max(logit, axis=1))
            logits = logits + (logit,)
        total = tl.zeros((BLOCK,), tl.float32)
        mixed = tl.zeros((BLOCK, D), tl.float32)
        for block in tl.static_range(BLOCKS):
            key_slot = block * BLOCK + tl.arange(0, BLOCK)
            key_token, key_inside, key_region = places(
                key_slot, window % per_image, height, width, rows, columns, M, SHIFT
            )
            value = load_padded(
                images + 2 * C,
                pad + 2 * C + head * D,
                key_slot,
                key_token,
                key_inside,
                3 * C,
                D,
                N,
                PADDED,
            )
            weight = tl.exp2(logits[block] - highest[:, None])
            total += tl.sum(weight, axis=1)
            mixed = tl.dot(weight.to(value.dtype), value, mixed, input_precision=PRECISION)
        store_rows(out + first * C + head * D, mixed / total[:, None], token, inside, C, D)
        at = (tl.cast(window, tl.int64) * HEADS + head) * N + query_slot
        tl.store(lse + at, highest + tl.log2(total), mask=query_slot < N)


@triton.jit(do_not_specialize=SIZES)
def backward_keys_kernel(
    qkv,
    pad,
    table,
    scales,
    out,
    lse,
    out_grad,  # (B, H, W, C)
    qkv_grad,  # (B, H, W, 3C)
    bias_grads,  # (groups, h, N, N)
    pad_grads,  # (groups * BLOCKS, 2C) where PADDED: keys, values
    scale_grads,  # (groups * BLOCKS, h) where COSINE
    height,
    width,
    rows,
    columns,
    windows,
    scale,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    SHIFT: tl.constexpr,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    PADDED: tl.constexpr,
    COSINE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Take the gradient to one block of keys and values, and to what all windows share.

    Tiles are (keys, queries) here. One block is the whole window where BLOCKS is 1, so the queries'
    gradient falls out as well.
    """
    N: tl.constexpr = M * M
    C: tl.constexpr = HEADS * D
    head = tl.program_id(0) % HEADS
    key_block = tl.program_id(0) // HEADS
    group = tl.program_id(1)
    key_slot = key_block * BLOCK + tl.arange(0, BLOCK)
    if COSINE:
        scale = tl.load(scales + head).to(tl.float32)
    biases = ()
    bias_sums = ()
    for block in tl.static_range(BLOCKS):
        query_slot = block * BLOCK + tl.arange(0, BLOCK)
        biases = biases + (
            position_bias(table, head, query_slot[None, :], key_slot[:, None], HEADS, M, REACH),
        )
        bias_sums = bias_sums + (tl.zeros((BLOCK, BLOCK), tl.float32),)
    key_pad = tl.zeros((D,), tl.float32)
    value_pad = tl.zeros((D,), tl.float32)
    scale_sums = tl.zeros((BLOCK,), tl.float32)
    per_image = rows * columns
    for window in range(group, windows, tl.num_programs(1)):
        first = tl.cast(window // per_image, tl.int64) * height * width
        images = qkv + first * 3 * C + head * D
        grads = qkv_grad + first * 3 * C + head * D
        token, inside, region = places(
            key_slot, window % per_image, height, width, rows, columns, M, SHIFT
        )
        raw_key = load_padded(
            images + C, pad + C + head * D, key_slot, token, inside, 3 * C, D, N, PADDED
        )
        key = unit(raw_key, COSINE)
        value = load_padded(
            images + 2 * C, pad + 2 * C + head * D, key_slot, token, inside, 3 * C, D, N, PADDED
        )
        key_grad = tl.zeros((BLOCK, D), tl.float32)
        value_grad = tl.zeros((BLOCK, D), tl.float32)
        new_sums = ()
        for block in tl.static_range(BLOCKS):
            query_slot = block * BLOCK + tl.arange(0, BLOCK)
            query_token, query_inside, query_region = places(
                query_slot, window % per_image, height, width, rows, columns, M, SHIFT
            )
            # a padded query has no gradient: its output is cropped
            raw_query = load_rows(images, query_token, query_inside, 3 * C, D)
            query = unit(raw_query, COSINE)
            mixed_grad = load_rows(out_grad + first * C + head * D, query_token, query_inside, C, D)
            at = (tl.cast(window, tl.int64) * HEADS + head) * N + query_slot
            level = tl.load(lse + at, mask=query_inside, other=float("inf"))
            product = tl.dot(key, tl.trans(query), input_precision=PRECISION)
            logit = product * (scale * LOG2E) + biases[block]
            if SHIFT > 0:
                logit += tl.where(region[:, None] == query_region[None, :], 0.0, ACROSS)
            weight = tl.exp2(logit - level[None, :])
            value_grad = tl.dot(
                weight.to(value.dtype), mixed_grad, value_grad, input_precision=PRECISION
            )
            weight_grad = tl.dot(value, tl.trans(mixed_grad), input_precision=PRECISION)
            if BLOCKS == 1:
                common = tl.sum(weight * weight_grad, axis=0)
            else:
                mixed = load_rows(out + first * C + head * D, query_token, query_inside, C, D)
                common = tl.sum(mixed.to(tl.float32) * mixed_grad.to(tl.float32), axis=1)
            logit_grad = weight * (weight_grad - common[None, :])
            new_sums = new_sums + (bias_sums[block] + logit_grad,)
            if COSINE:
                scale_sums += tl.sum(logit_grad * product, axis=1)
            low = logit_grad.to(query.dtype)
            key_grad = tl.dot(low, query, key_grad, input_precision=PRECISION)
            if BLOCKS == 1:
                query_grad = tl.dot(tl.trans(low), key, input_precision=PRECISION) * scale
                query_grad = through_unit(query_grad, raw_query, COSINE)
                store_rows(grads, query_grad, query_token, query_inside, 3 * C, D)
        bias_sums = new_sums
        key_grad = through_unit(key_grad * scale, raw_key, COSINE)
        store_rows(grads + C, key_grad, token, inside, 3 * C, D)
        store_rows(grads + 2 * C, value_grad, token, inside, 3 * C, D)
        if PADDED:
            # slots beyond the window have zero rows
            key_pad += tl.sum(tl.where(inside[:, None], 0.0, key_grad), axis=0)
            value_pad += tl.sum(tl.where(inside[:, None], 0.0, value_grad), axis=0)
    for block in tl.static_range(BLOCKS):
        query_slot = block * BLOCK + tl.arange(0, BLOCK)
        at = ((group * HEADS + head) * N + query_slot[None, :]) * N + key_slot[:, None]
        exists = (query_slot[None, :] < N) & (key_slot[:, None] < N)
        tl.store(bias_grads + at, bias_sums[block], mask=exists)
    part = group * BLOCKS + key_block
    if PADDED:
        at = part * 2 * C + head * D + tl.arange(0, D)
        tl.store(pad_grads + at, key_pad)
        tl.store(pad_grads + at + C, value_pad)
    if COSINE:
        tl.store(scale_grads + part * HEADS + head, tl.sum(scale_sums, axis=0))


@triton.jit(do_not_specialize=SIZES)
def backward_queries_kernel(
    qkv,
    pad,
    table,
    scales,
    out,
    lse,
    out_grad,
    qkv_grad,
    height,
    width,
    rows,
    columns,
    windows,
    scale,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    SHIFT: tl.constexpr,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    PADDED: tl.constexpr,
    COSINE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Take the gradient to one block of queries, where a window has several blocks."""
    N: tl.constexpr = M * M
    C: tl.constexpr = HEADS * D
    head = tl.program_id(0) % HEADS
    query_slot = tl.program_id(0) // HEADS * BLOCK + tl.arange(0, BLOCK)
    if COSINE:
        scale = tl.load(scales + head).to(tl.float32)
    biases = ()
    for block in tl.static_range(BLOCKS):
        key_slot = block * BLOCK + tl.arange(0, BLOCK)
        biases = biases + (
            position_bias(table, head, query_slot[:, None], key_slot[None, :], HEADS, M, REACH),
        )
    per_image = rows * columns
    for window in range(tl.program_id(1), windows, tl.num_programs(1)):
        first = tl.cast(window // per_image, tl.int64) * height * width
        images = qkv + first * 3 * C + head * D
        token, inside, region = places(
            query_slot, window % per_image, height, width, rows, columns, M, SHIFT
        )
        raw_query = load_rows(images, token, inside, 3 * C, D)
        query = unit(raw_query, COSINE)
        mixed_grad = load_rows(out_grad + first * C + head * D, token, inside, C, D)
        mixed = load_rows(out + first * C + head * D, token, inside, C, D)
        common = tl.sum(mixed.to(tl.float32) * mixed_grad.to(tl.float32), axis=1)
        at = (tl.cast(window, tl.int64) * HEADS + head) * N + query_slot
        level = tl.load(lse + at, mask=inside, other=float("inf"))
        query_grad = tl.zeros((BLOCK, D), tl.float32)
        for block in tl.static_range(BLOCKS):
            key_slot = block * BLOCK + tl.arange(0, BLOCK)
            key_token, key_inside, key_region = places(
                key_slot, window % per_image, height, width, rows, columns, M, SHIFT
            )
            key = load_padded(
                images + C, pad + C + head * D, key_slot, key_token, key_inside, 3 * C, D, N, PADDED
            )
            key = unit(key, COSINE)
            value = load_padded(
                images + 2 * C,
                pad + 2 * C + head * D,
                key_slot,
                key_token,
                key_inside,
                3 * C,
                D,
                N,
                PADDED,
            )
            logit = tl.dot(query, tl.trans(key), input_precision=PRECISION) * (scale * LOG2E)
            logit += biases[block]
            if SHIFT > 0:
                logit += tl.where(region[:, None] == key_region[None, :], 0.0, ACROSS)
            weight = tl.exp2(logit - level[:, None])
            weight_grad = tl.dot(mixed_grad, tl.trans(value), input_precision=PRECISION)
            logit_grad = weight * (weight_grad - common[:, None])
            query_grad = tl.dot(
                logit_grad.to(key.dtype), key, query_grad, input_precision=PRECISION
            )
        query_grad = through_unit(query_grad * scale, raw_query, COSINE)
        store_rows(qkv_grad + first * 3 * C + head * D, query_grad, token, inside, 3 * C, D)
