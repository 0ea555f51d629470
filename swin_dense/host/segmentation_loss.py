"""mmseg's loss without logits at the labels' size, where heads use plain cross entropy on a CPU.

Loss and accuracy are the host's, to rounding. Samplers (OHEM), class weights, other losses and
other devices keep the host's own way.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from swin_dense.ops import fused
from swin_dense.ops.resized_cross_entropy import resized_cross_entropy

EPS = torch.finfo(torch.float32).eps
"""The host's guard against pictures without a pixel that counts."""


def install() -> None:
    """Let every head with mmseg's own ``loss_by_feat`` compute so."""
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    original = BaseDecodeHead.loss_by_feat

    @wraps(original)
    def loss_by_feat(self: Any, seg_logits: Tensor, batch_data_samples: Any) -> dict[str, Tensor]:
        if not fused.applies(seg_logits) or self.sampler is not None or not _is_plain(self):
            own: dict[str, Tensor] = original(self, seg_logits, batch_data_samples)
            return own
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, 1, H, W) -> (B, H, W)
        total, right = resized_cross_entropy(
            seg_logits, labels, ignore_index=self.ignore_index, align_corners=self.align_corners
        )
        counted = int((labels != self.ignore_index).sum())
        losses: dict[str, Tensor] = {}
        for criterion in _criteria(self):
            pixels = counted if criterion.avg_non_ignore else labels.numel()
            own_loss = criterion.loss_weight * total / (pixels + EPS)
            name = criterion.loss_name
            losses[name] = losses[name] + own_loss if name in losses else own_loss
        losses["acc_seg"] = ((right + EPS) * (100.0 / (counted + EPS))).reshape(1)
        return losses

    BaseDecodeHead.loss_by_feat = loss_by_feat


def _criteria(head: Any) -> list[Any]:
    own = head.loss_decode
    return list(own) if isinstance(own, nn.ModuleList) else [own]


def _is_plain(head: Any) -> bool:
    """Whether all losses of a head are cross entropies that weigh all pixels and classes alike."""
    from mmseg.models.losses.cross_entropy_loss import CrossEntropyLoss, cross_entropy

    return all(
        type(criterion) is CrossEntropyLoss
        and criterion.cls_criterion is cross_entropy
        and criterion.class_weight is None
        and criterion.reduction == "mean"
        for criterion in _criteria(head)
    )
