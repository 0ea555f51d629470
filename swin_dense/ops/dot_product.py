"""Attention of queries to keys whose heads may be of another width than those of the values.

Letters: B batch; h heads; N queries; K keys; d, e channels of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Return softmax(query key^T * scale + bias) value without keeping the N x K weights.

    torch's fused kernels want one width for all three, so the narrower heads are filled up with
    zeros: they add nothing to a dot product, and the zero channels of the result are cut off.

    Args:
        query: (B, h, N, d).
        key: (B, h, K, d).
        value: (B, h, K, e).
        scale: factor on the dot products.
        bias: added to the scaled dot products, (1 or B, h, N, K).
        dropout_p: share of the weights that is dropped, the rest scaled up.

    Returns:
        (B, h, N, e).
    """
    width, own = value.shape[-1], query.shape[-1]
    if own < width:
        query, key = F.pad(query, (0, width - own)), F.pad(key, (0, width - own))
    elif width < own:
        value = F.pad(value, (0, own - width))
    mixed = F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, dropout_p=dropout_p, scale=scale
    )
    return mixed[..., :width]
