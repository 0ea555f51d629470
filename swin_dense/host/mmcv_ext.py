"""The module ``mmcv._ext`` in plain torch, for mmcv without its compiled part.

mmcv's wrappers hand over output tensors to be filled and call forward and backward apart; each
function here does that with the functions of :mod:`swin_dense.ops`. An op that is not provided
raises on use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from swin_dense.ops import _deformable as deformable
from swin_dense.ops import _focal_loss as focal_loss
from swin_dense.ops import _nms as nms_ops
from swin_dense.ops import _roi_align as roi_align_ops
from swin_dense.ops import _roi_pool as roi_pool_ops
from swin_dense.ops._roi_align import RoISampling
from swin_dense.ops._rois import check_rois

_SOFT_METHODS: tuple[nms_ops.SoftMethod, ...] = ("naive", "linear", "gaussian")


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the kept boxes."""
    return nms_ops.nms(boxes, scores, iou_threshold, offset=offset)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Fill the first rows of ``dets`` and return the indices of the kept boxes."""
    kept, indices = nms_ops.soft_nms(
        boxes,
        scores,
        iou_threshold=iou_threshold,
        sigma=sigma,
        min_score=min_score,
        method=_SOFT_METHODS[method],
        offset=offset,
    )
    dets[: len(kept)] = kept
    return indices


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Return each kept box's index followed by those it suppressed; ``dets`` is (N, 5)."""
    return [group.tolist() for group in nms_ops.nms_match(dets[:, :4], dets[:, 4], iou_threshold)]


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` and, for the maximum, the number of the sample in its bin."""
    sampling = RoISampling((aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    if pool_mode == 0:
        check_rois("RoIAlign", input, rois)
        pooled, rows, columns = roi_align_ops.max_forward(input, rois, sampling)
        # the compiled version stores positions here; a sample's number survives a half type
        argmax_y.copy_(rows)
        argmax_x.copy_(columns)
    else:
        pooled = roi_align_ops.roi_align(
            input, rois, sampling.output_hw, spatial_scale, sampling_ratio, aligned
        )
    output.copy_(pooled)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Give ``grad_input`` its values, in the layout that they are computed in."""
    sampling = RoISampling((aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    if pool_mode == 0:
        grad = roi_align_ops.max_backward(
            grad_output, rois, argmax_y, argmax_x, grad_input.shape, sampling
        )
    else:
        grad = roi_align_ops.average_backward_anywhere(
            grad_output, rois, grad_input.shape, sampling
        )
    grad_input.data = grad.to(grad_input.dtype)  # copying would transpose a whole map


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    *,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill ``output`` and the cells that won."""
    check_rois("RoIPool", input, rois)
    pooled, cells = roi_pool_ops.roi_pool_forward(
        input, rois, (pooled_height, pooled_width), spatial_scale
    )
    output.copy_(pooled)
    argmax.copy_(cells)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    *,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill ``grad_input``."""
    grad_input.copy_(roi_pool_ops.roi_pool_backward(grad_output, rois, argmax, grad_input.shape))


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N, C)."""
    output.copy_(focal_loss.sigmoid_focal_loss(input, target, gamma, alpha, _or_none(weight)))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C)."""
    (grad,) = _gradients(
        lambda logits: focal_loss.sigmoid_focal_loss(
            logits, target, gamma, alpha, _or_none(weight)
        ),
        torch.ones_like(input),
        input,
    )
    grad_input.copy_(grad)


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N,); ``input`` holds probabilities."""
    logits = _log_of(input)
    output.copy_(focal_loss.softmax_focal_loss(logits, target, gamma, alpha, _or_none(weight)))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    *,
    gamma: float,
    alpha: float,
) -> None:
    """Fill ``grad_input`` (N, C), the gradient in the logits; ``input`` holds probabilities."""

    def loss(logits: Tensor) -> Tensor:
        return focal_loss.softmax_focal_loss(logits, target, gamma, alpha, _or_none(weight))

    logits = _log_of(input)
    (grad,) = _gradients(loss, torch.ones_like(buff, dtype=logits.dtype), logits)
    grad_input.copy_(grad)


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    """Return (B, queries, heads * channels)."""
    return deformable.multi_scale_deformable_attention(
        value, spatial_shapes, sampling_locations, attention_weights
    )


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    *,
    im2col_step: int,
) -> None:
    """Fill the three gradients."""

    def attend(values: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return deformable.multi_scale_deformable_attention(
            values, spatial_shapes, locations, weights
        )

    grads = _gradients(attend, grad_output, value, sampling_locations, attention_weights)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    **geometry: Any,
) -> None:
    """Fill ``output``; ``ones`` and ``columns`` are scratch space of the compiled version."""
    output.copy_(_deform_conv(geometry)(input, offset, mask, weight, bias))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    **geometry: Any,
) -> None:
    """Fill the five gradients."""
    grads = _gradients(_deform_conv(geometry), grad_output, input, offset, mask, weight, bias)
    targets = (grad_input, grad_offset, grad_mask, grad_weight, grad_bias)
    for target, grad in zip(targets, grads, strict=True):
        if grad is not None:
            target.copy_(grad)


def get_compiler_version() -> str:
    """Return what mmcv prints as its compiler."""
    return "none (portable ops of swin_dense)"


def get_compiling_cuda_version() -> str:
    """Return what mmcv prints as its CUDA version."""
    return "none (portable ops of swin_dense)"


def __getattr__(name: str) -> Callable[..., Any]:
    """Answer for every other op, since mmcv asks for each at import; it raises when called."""
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            f"mmcv op {name!r} is not among the portable ops of swin_dense. Two ways out: install "
            "a compiled mmcv (pip install mmcv, it takes over by itself), or choose a layer "
            "without it; swin_dense.ops lists what there is."
        )

    missing.__name__ = name
    return missing


def _deform_conv(geometry: dict[str, Any]) -> Callable[..., Tensor]:
    def convolve(
        images: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        return deformable.modulated_deform_conv2d(
            images,
            offset,
            mask,
            weight,
            bias if geometry["with_bias"] else None,
            stride=(geometry["stride_h"], geometry["stride_w"]),
            padding=(geometry["pad_h"], geometry["pad_w"]),
            dilation=(geometry["dilation_h"], geometry["dilation_w"]),
            groups=geometry["group"],
            deform_groups=geometry["deformable_group"],
        )

    return convolve


def _gradients(
    function: Callable[..., Tensor], grad_output: Tensor, *inputs: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradient of ``function`` in each input, None for an input it does not read."""
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in inputs]
        output = function(*leaves)
        return torch.autograd.grad(output, leaves, grad_output, allow_unused=True)


def _log_of(probabilities: Tensor) -> Tensor:
    """Return logits (N, C) of these probabilities, in at least float32."""
    wide = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32))
    return wide.clamp(min=torch.finfo(torch.float32).tiny).log()


def _or_none(weight: Tensor) -> Tensor | None:
    return weight if weight.numel() else None
