"""Tensor functions in plain torch: windows, boxes, pooling, losses. No compiler, any device."""

from swin_dense.ops._deformable import modulated_deform_conv2d, multi_scale_deformable_attention
from swin_dense.ops._focal_loss import sigmoid_focal_loss, softmax_focal_loss
from swin_dense.ops._nms import batched_nms, nms, nms_match, soft_nms
from swin_dense.ops._roi_align import roi_align
from swin_dense.ops._roi_pool import roi_pool

__all__ = [
    "batched_nms",
    "modulated_deform_conv2d",
    "multi_scale_deformable_attention",
    "nms",
    "nms_match",
    "roi_align",
    "roi_pool",
    "sigmoid_focal_loss",
    "soft_nms",
    "softmax_focal_loss",
]
