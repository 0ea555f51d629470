"""Stochastic depth (https://arxiv.org/abs/1603.09382): drop a residual branch for whole samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from swin_dense.ops import fused


class DropPath(nn.Module):
    """Zero each sample's branch with probability ``drop_prob`` in training, scale up the rest.

    It draws one ``torch.rand`` number a sample, as the hosts do, so equal seeds drop equal samples.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    @property
    def is_active(self) -> bool:
        """Whether anything may be dropped now."""
        return self.training and self.drop_prob > 0.0

    def forward(self, branch: Tensor) -> Tensor:
        """Return ``branch`` (B, ...), same shape."""
        return branch * self._factors(branch, branch.dtype) if self.is_active else branch

    def residual(
        self, tokens: Tensor, branch: Callable[[Tensor], Tensor], dtype: torch.dtype
    ) -> Tensor:
        """Return ``tokens + self(branch(tokens))``, (B, ...), where ``branch`` gives ``dtype``.

        On the CPU a dropped sample's branch is not computed: it adds nothing, and its parameters
        get a gradient of zero all the same.
        """
        if not self.is_active:
            return tokens + branch(tokens)
        if not fused.applies(tokens):
            return tokens + self(branch(tokens))
        factors = self._factors(tokens, dtype)
        kept = factors.flatten().nonzero().flatten()
        if len(kept) == len(tokens):
            return torch.addcmul(tokens, branch(tokens), factors)
        added = branch(tokens.index_select(0, kept)) * factors.index_select(0, kept)
        return tokens.index_add(0, kept, added.to(tokens.dtype))

    def _factors(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """Draw 0 or 1 / keep_prob for each sample, (B, 1, ...)."""
        keep_prob = 1.0 - self.drop_prob
        shape = (tokens.shape[0],) + (1,) * (tokens.dim() - 1)
        keep = torch.rand(shape, dtype=dtype, device=tokens.device).add_(keep_prob).floor_()
        return keep.div_(keep_prob)

    def extra_repr(self) -> str:
        """Show the probability in ``print(model)``."""
        return f"drop_prob={self.drop_prob:.3f}"


def rising_rates(last: float, blocks: int) -> list[float]:
    """Return the drop path rate of each block: from 0, linearly to that of the last."""
    rates: list[float] = torch.linspace(0, last, blocks, device="cpu").tolist()
    return rates
