"""Cross entropy between label maps and smaller logits, without the logits at the labels' size.

A segmentor's logits are a quarter of its labels' sides or less, and are resized before the loss:
two crops of 512x512 with 150 classes are 0.3 GB, and resizing, softmax, and the gradient of each
keep or pass that several times. Here rows of the labels are taken a few at a time: their logits are
interpolated, compared, and the gradient flows back to the small logits at once.

Letters: B images; K classes; h, w the logits; H, W the labels; n rows of the labels in a group; r
rows of the logits that these need.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from swin_dense.errors import UserError

_GROUP_NUMBERS = 2**20
"""Logits at the labels' size that are held at a time: 4 MB, which stay in a processor's cache."""


def resized_cross_entropy(
    logits: Tensor, labels: Tensor, *, ignore_index: int, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Return the sum of the cross entropies of all pixels, and how many are right: two numbers.

    The plain twin is ``F.cross_entropy(F.interpolate(logits, labels.shape[1:], mode="bilinear",
    align_corners=align_corners), labels, ignore_index=ignore_index, reduction="sum")``.

    Args:
        logits: (B, K, h, w), any floating type; computed in float32 at least.
        labels: (B, H, W) class indices.
        ignore_index: the label of pixels that do not count.
        align_corners: as for ``F.interpolate``.

    Raises:
        UserError: a label that is neither a class nor ``ignore_index``.
    """
    counted = labels[labels != ignore_index]
    classes = logits.shape[1]
    if counted.numel() and (int(counted.max()) >= classes or int(counted.min()) < 0):
        wrong = counted.max() if int(counted.max()) >= classes else counted.min()
        raise UserError(
            f"a label map holds class {int(wrong)}; expected 0 to {classes - 1}, or {ignore_index} "
            f"for pixels that do not count, since the head has num_classes={classes}. Set "
            "num_classes to the data set's classes, or mend the label maps."
        )
    run: Any = _ResizedCrossEntropy.apply
    loss, right = run(logits, labels, ignore_index, align_corners)
    return loss, right


class _ResizedCrossEntropy(torch.autograd.Function):
    """Computes the gradient along with the values, for a second pass would cost as much."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, ignore_index: int, align_corners: bool
    ) -> tuple[Tensor, Tensor]:
        small = logits.to(torch.promote_types(logits.dtype, torch.float32))
        classes, height, width = small.shape[1:]
        down = _interpolation(height, labels.shape[1], align_corners, small)  # (H, h)
        across = _interpolation(width, labels.shape[2], align_corners, small)  # (W, w)
        loss, right = small.new_zeros(()), labels.new_zeros(())
        grads = torch.empty_like(small) if ctx.needs_input_grad[0] else None
        with torch.autocast(logits.device.type, enabled=False):
            for index, own in enumerate(small):
                wide = own.reshape(-1, width) @ across.t()  # (K * h, W)
                wide = wide.view(classes, height, -1)
                flow = None if grads is None else torch.zeros_like(wide)
                part, hits = _image(wide, labels[index], down, ignore_index, flow)
                loss, right = loss + part, right + hits
                if grads is not None and flow is not None:
                    grads[index] = (flow.view(classes * height, -1) @ across).view_as(own)
        ctx.mark_non_differentiable(right)
        if grads is not None:
            ctx.save_for_backward(grads.to(logits.dtype))
        return loss, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, unused: Tensor) -> tuple[Tensor | None, ...]:
        (grads,) = ctx.saved_tensors
        return grads * grad.to(grads.dtype), None, None, None


def _image(
    wide: Tensor, labels: Tensor, down: Tensor, ignore_index: int, flow: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the loss and the right pixels of one image, and add the gradient to ``flow``.

    Args:
        wide: (K, h, W) logits, resized along the width.
        labels: (H, W).
        down: (H, h), what each row of the labels takes of each row of the logits.
        ignore_index: the label of pixels that do not count.
        flow: (K, h, W) or None.
    """
    loss, right = wide.new_zeros(()), labels.new_zeros(())
    rows = max(1, _GROUP_NUMBERS // max(1, wide.shape[0] * wide.shape[2]))
    for first in range(0, len(labels), rows):
        shares = down[first : first + rows]
        used = shares.any(0).nonzero().flatten()
        taken = slice(int(used[0]), int(used[-1]) + 1)
        shares = shares[:, taken]  # (n, r)
        logits = shares @ wide[:, taken]  # (K, n, W)
        own = labels[first : first + rows]
        counts = own != ignore_index
        place = own.masked_fill(~counts, 0)[None]  # (1, n, W)
        highest = logits.amax(0, keepdim=True)
        right = right + (logits.gather(0, place).eq(highest)[0] & counts).sum()
        powers = logits.sub_(highest).gather(0, place)  # of the labels
        total = logits.exp_().sum(0, keepdim=True)
        loss = loss + ((total.log() - powers)[0] * counts).sum()
        if flow is not None:
            share = logits.mul_(counts / total)
            share.scatter_add_(0, place, -counts[None].to(share.dtype))
            flow[:, taken] += shares.t() @ share
    return loss, right


def _interpolation(inputs: int, outputs: int, align_corners: bool, like: Tensor) -> Tensor:
    """Return what each of ``outputs`` takes of each of ``inputs``, (outputs, inputs)."""
    unit = torch.eye(inputs, dtype=like.dtype, device=like.device)[None]
    resized = F.interpolate(unit, outputs, mode="linear", align_corners=align_corners)
    return resized[0].t().contiguous()
