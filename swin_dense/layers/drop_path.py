"""Stochastic depth (https://arxiv.org/abs/1603.09382): drop a residual branch for whole samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zero each sample's branch with probability ``drop_prob`` in training, scale up the rest.

    It draws one ``torch.rand`` number a sample, as the hosts do, so equal seeds drop equal samples.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, branch: Tensor) -> Tensor:
        """Return ``branch`` (B, ...), same shape."""
        if self.drop_prob == 0.0 or not self.training:
            return branch
        return branch * self._factors(branch)

    def add(self, tokens: Tensor, branch: Tensor) -> Tensor:
        """Return ``tokens`` plus what :meth:`forward` makes of ``branch``, in one pass."""
        if self.drop_prob == 0.0 or not self.training:
            return tokens + branch
        return torch.addcmul(tokens, branch, self._factors(branch))

    def _factors(self, branch: Tensor) -> Tensor:
        """Draw 0 or 1 / keep_prob for each sample, (B, 1, ...)."""
        keep_prob = 1.0 - self.drop_prob
        shape = (branch.shape[0],) + (1,) * (branch.dim() - 1)
        keep = torch.rand(shape, dtype=branch.dtype, device=branch.device).add_(keep_prob).floor_()
        return keep.div_(keep_prob)

    def extra_repr(self) -> str:
        """Show the probability in ``print(model)``."""
        return f"drop_prob={self.drop_prob:.3f}"
