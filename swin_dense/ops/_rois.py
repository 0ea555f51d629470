"""What the two RoI poolings ask of their input."""

from __future__ import annotations

import torch
from torch import Tensor

from swin_dense.errors import UserError


def as_output_hw(name: str, output_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return the bins (P, Q) for a pair or one number.

    Raises:
        UserError: they are not positive, or not two.
    """
    output_hw = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if len(output_hw) != 2 or min(output_hw) < 1:
        raise UserError(f"{name} got output_size={output_size}; expected two positive numbers.")
    return output_hw


def check_rois(name: str, features: Tensor, rois: Tensor) -> None:
    """Refuse maps that are not (B, C, H, W) and boxes that are not (K, 5).

    Raises:
        UserError: the shapes do not fit, an image index is out of range, or a box is not finite.
    """
    if features.dim() != 4 or rois.dim() != 2 or rois.shape[1] != 5:
        raise UserError(
            f"{name} got features of shape {tuple(features.shape)} and rois of "
            f"{tuple(rois.shape)}; expected (B, C, H, W) and (K, 5) with the image index first."
        )
    if len(rois) == 0:
        return
    if min(features.shape[2:]) < 1:
        raise UserError(
            f"{name} got features of shape {tuple(features.shape)} for {len(rois)} rois; expected "
            "a map of at least one cell."
        )
    # one transfer for both questions, since each would wait for an accelerator
    first, last, finite = torch.stack(
        [rois[:, 0].min(), rois[:, 0].max(), rois.isfinite().all().to(rois.dtype)]
    ).tolist()
    if not finite:
        bad = int((~rois.isfinite()).any(dim=1).nonzero()[0])
        raise UserError(
            f"{name} got roi {bad} = {rois[bad].tolist()}; expected finite numbers. Did the box "
            "regression diverge?"
        )
    if not 0 <= first <= last < len(features):
        raise UserError(
            f"{name} got image indices from {int(first)} to {int(last)} for {len(features)} "
            f"images; expected 0 to {len(features) - 1} in the first column of rois."
        )
