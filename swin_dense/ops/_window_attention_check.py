"""Compare the kernels of window attention with plain torch on the very device, before their use.

Letters: B batch; H, W token grid; C channels; h heads; M window side; N = M * M; nW windows an
image; T rows of the bias table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.ops._window_attention_op import window_attention
from swin_dense.ops.windows import (
    relative_position_index,
    shifted_window_mask,
    window_partition,
    window_reverse,
)

HEADS = 2
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""Largest accepted difference, as a share of the largest value."""


def disagreement(
    device: torch.device, dtype: torch.dtype, *, head_dim: int, window_size: int, cosine: bool
) -> str | None:
    """Attend in a small padded, shifted grid both ways.

    Returns:
        None where output and gradients agree, else what does not.
    """
    side, shift = window_size, window_size // 2
    height, width = side + 1, max(2 * side - 1, 1)
    qkv = _wave(1, height, width, 3 * HEADS * head_dim).to(device, dtype)
    pad = _wave(3 * HEADS * head_dim).to(device, dtype)
    table = _wave((2 * side - 1) ** 2, HEADS).to(device)
    scales = torch.tensor([1.0, 3.0], device=device) if cosine else None
    scale = head_dim**-0.5
    leaves = [leaf for leaf in (qkv, pad, table, scales) if leaf is not None]
    for leaf in leaves:
        leaf.requires_grad_()
    grad = _wave(1, height, width, HEADS * head_dim).to(device, dtype)

    out, _ = window_attention(qkv, pad, table, scales, HEADS, side, shift, scale)
    results = (out, *torch.autograd.grad(out, leaves, grad))
    expected_out = plain(qkv.float(), pad.float(), table, scales, side, shift, scale)
    expected = (expected_out, *torch.autograd.grad(expected_out, leaves, grad.float()))
    names = ("output", "gradient of qkv", "of its bias", "of the position biases", "of the scales")
    for name, ours, theirs in zip(names, results, expected, strict=False):
        right = theirs.detach().float()
        error = (ours.detach().float() - right).abs().max()
        share = float(error / right.abs().max().clamp(min=1e-6))
        if not share <= TOLERANCES[dtype]:  # a NaN too
            return f"{name} differs by {share:.1e} of its largest value"
    return None


def plain(
    qkv: Tensor,
    pad: Tensor,
    table: Tensor,
    scales: Tensor | None,
    window_size: int,
    shift: int,
    scale: float,
) -> Tensor:
    """Attend as ``window_attention`` does, (B, H, W, 3C) to (B, H, W, C), by copies and a mask."""
    height, width = qkv.shape[1:3]
    num_heads, slots = table.shape[1], window_size**2
    bottom, right = -height % window_size, -width % window_size
    inside = F.pad(torch.ones_like(qkv[..., :1]), (0, 0, 0, right, 0, bottom))
    padded = F.pad(qkv, (0, 0, 0, right, 0, bottom)) + (1 - inside) * pad
    padded_hw = (height + bottom, width + right)
    windows = window_partition(padded.roll((-shift, -shift), (1, 2)), window_size)
    # (B * nW, N, 3C) -> (3, B * nW, h, N, C / h)
    parts = windows.view(len(windows), slots, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = parts.unbind(0)
    if scales is None:
        query = query * scale
    else:
        query, key = F.normalize(query, dim=-1) * scales.view(-1, 1, 1), F.normalize(key, dim=-1)
    logits = query @ key.transpose(-2, -1)
    index = relative_position_index(window_size).to(table.device)
    logits = logits + table[index.flatten()].view(slots, slots, -1).permute(2, 0, 1)
    if shift:
        mask = shifted_window_mask(padded_hw, window_size, shift, device=qkv.device)
        logits = logits + mask.repeat(len(qkv), 1, 1)[:, None]
    # (B * nW, h, N, C / h) -> (B * nW, N, C)
    mixed = (logits.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
    mixed = window_reverse(mixed, window_size, padded_hw).roll((shift, shift), (1, 2))
    return mixed[:, :height, :width]


def _wave(*shape: int) -> Tensor:
    """Return numbers between -1 and 1 without touching a random generator."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float64) * 12.9898).sin().float().view(shape)
