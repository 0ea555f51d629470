"""Sliding-window inference of mmseg's segmentors within a stated memory.

Letters: B images; K classes; H, W the picture; h, w a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from swin_dense.errors import UserError


def install() -> None:
    """Let mmseg's segmentors slide by :func:`slide`, and resize only what changes its size."""
    import mmseg.models.segmentors.base as base
    from mmseg.models.segmentors import EncoderDecoder, MultimodalEncoderDecoder

    for segmentor in (EncoderDecoder, MultimodalEncoderDecoder):
        segmentor.slide_inference = _in_place_of(segmentor.slide_inference)
    host_resize = base.resize

    @wraps(host_resize)
    def resize(input: Tensor, size: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        """Return ``input`` itself where it has that size already, and all of its memory."""
        whole = input.untyped_storage().nbytes() == input.numel() * input.element_size()
        if whole and size is not None and tuple(input.shape[2:]) == tuple(size):
            return input
        return host_resize(input, size, *args, **kwargs)

    base.resize = resize


def _in_place_of(original: Any) -> Any:
    @wraps(original)
    def slide_inference(self: Any, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        return slide(self, inputs, batch_img_metas)

    return slide_inference


def slide(self: Any, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
    """Return the logits (B, K, H, W) in float32, the mean of the windows that see each pixel.

    Each window's logits are added in place to those of the picture. Peak memory beyond the inputs:
    B x (K + 1) x H x W x 4 bytes, and what the network needs for one window of each image.

    Args:
        self: a segmentor with ``crop_size`` and ``stride``, both (height, width), in its
            ``test_cfg``.
        inputs: (B, C, H, W) preprocessed images.
        batch_img_metas: of the B images; the first one's ``img_shape`` becomes the window's, which
            heads go by.

    Raises:
        UserError: no such numbers in ``test_cfg``, or windows that leave pixels out.
    """
    crop_hw, stride_hw = (_sides(self.test_cfg, key) for key in ("crop_size", "stride"))
    batch, _, height, width = inputs.shape
    rows = _spans(height, crop_hw[0], stride_hw[0], "height")
    columns = _spans(width, crop_hw[1], stride_hw[1], "width")
    total = inputs.new_zeros((batch, self.out_channels, height, width), dtype=torch.float32)
    for top, bottom in rows:
        for left, right in columns:
            window = inputs[:, :, top:bottom, left:right]
            batch_img_metas[0]["img_shape"] = window.shape[2:]
            logits = self.encode_decode(window, batch_img_metas)
            total[:, :, top:bottom, left:right].add_(logits)
    # how many windows see a pixel: (H, 1) x (1, W)
    seen = _counts(rows, total.new_zeros(height, 1)) * _counts(columns, total.new_zeros(width, 1)).T
    return total.div_(seen)


def _sides(test_cfg: Any, key: str) -> tuple[int, int]:
    sides = test_cfg.get(key)
    good = isinstance(sides, Sequence) and len(sides) == 2
    if not good or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(
            f"mode='slide' got {key}={sides!r}; expected (height, width) in whole pixels, at least "
            f"1. Set model.test_cfg.{key}, such as (512, 512) for crop_size and (341, 341) for "
            "stride."
        )
    return sides[0], sides[1]


def _spans(length: int, crop: int, stride: int, side: str) -> list[tuple[int, int]]:
    """Return where windows begin and end; the last one is moved back into the picture.

    Raises:
        UserError: pixels lie between two windows.
    """
    count = max(-(-(length - crop) // stride), 0) + 1
    ends = [min(index * stride + crop, length) for index in range(count)]
    spans = [(max(end - crop, 0), end) for end in ends]
    missed = sum(max(after[0] - before[1], 0) for before, after in pairwise(spans))
    if missed:
        raise UserError(
            f"mode='slide' got stride {stride} and crop_size {crop} in {side}: {missed} of the "
            f"picture's {length} pixels lie between two windows. Expected a stride of at most the "
            f"crop; set model.test_cfg.stride, two thirds of the crop ({crop * 2 // 3}) are usual."
        )
    return spans


def _counts(spans: Sequence[tuple[int, int]], zeros: Tensor) -> Tensor:
    for start, end in spans:
        zeros[start:end] += 1
    return zeros
