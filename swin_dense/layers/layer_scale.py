"""A learned factor for each channel of a branch (CaiT, https://arxiv.org/abs/2103.17239)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiply the last axis, C channels, by ``gamma`` (C,), which starts at ``initial``."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, branch: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return branch * self.gamma.to(branch.dtype)
