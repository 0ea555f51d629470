"""Attention gates that keep a map's shape: SE and CBAM.

SE: squeeze-and-excitation (https://arxiv.org/abs/1709.01507). CBAM: channel, then spatial attention
(https://arxiv.org/abs/1807.06521). Letters: B batch; C channels; H, W the map; R hidden channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from swin_dense.errors import UserError, did_you_mean

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": lambda x: x.mean((2, 3)),
    "max": lambda x: x.amax((2, 3)),
    "lp": lambda x: torch.linalg.vector_norm(x, 2, (2, 3)),  # p is 2, and it is no mean
    "lse": lambda x: x.logsumexp((2, 3)),
}
"""What CBAM may make of a channel, (B, C, H, W) to (B, C), under the official names."""


def _hidden_channels(in_channels: int, ratio: int) -> int:
    """Return R = C // ratio; refuse what leaves no hidden channel."""
    if ratio < 1 or in_channels // ratio < 1:
        raise UserError(
            f"`ratio` (={ratio}) leaves no hidden channel of `in_channels` (={in_channels}); "
            f"expected a ratio from 1 to {in_channels}: set `ratio` to at most that."
        )
    return in_channels // ratio


class SE(nn.Module):
    """Scale each channel by sigmoid(W2 relu(W1 mean(x)))."""

    _abbr_ = "se"

    def __init__(self, in_channels: int, *, ratio: int = 16) -> None:
        super().__init__()
        hidden = _hidden_channels(in_channels, ratio)
        self.fc1 = nn.Conv2d(in_channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        squeezed = x.mean((2, 3), keepdim=True)
        return x * self.fc2(self.fc1(squeezed).relu()).sigmoid()


class ChannelGate(nn.Module):
    """CBAM's channel gate: one perceptron on each pooling of the channels, summed, sigmoid.

    Args:
        in_channels: C.
        ratio: C over the perceptron's hidden channels.
        pool_types: of :data:`POOLS`, each once: the mean and the maximum unless said otherwise;
            "lp" is the root of the sum of squares, "lse" the logarithm of the sum of exponentials.

    Raises:
        UserError: a ratio that leaves no hidden channel; none, unknown or repeated poolings.
    """

    def __init__(
        self, in_channels: int, *, ratio: int = 16, pool_types: Sequence[str] = ("avg", "max")
    ) -> None:
        super().__init__()
        hidden = _hidden_channels(in_channels, ratio)
        _check_pools(pool_types)
        self.pool_types = tuple(pool_types)
        # The official key names count a Flatten as number 0: mlp.1, mlp.3.
        self.mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, in_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        logits = torch.stack([self.mlp(POOLS[kind](x)) for kind in self.pool_types]).sum(0)
        return x * logits.sigmoid()[:, :, None, None]


def _check_pools(pool_types: Sequence[str]) -> None:
    known = ", ".join(POOLS)
    if isinstance(pool_types, str) or not pool_types or len(set(pool_types)) < len(pool_types):
        raise UserError(
            f"`pool_types` is {pool_types!r}; expected one or more of {known}, each once, such as "
            "('avg', 'max')."
        )
    for kind in pool_types:
        if kind not in POOLS:
            raise UserError(
                f"`pool_types` has {kind!r}{did_you_mean(str(kind), POOLS)}; expected {known}."
            )


class SpatialGate(nn.Module):
    """CBAM's spatial gate: 7x7 convolution of the channels' maximum and mean, sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.ModuleDict(
            {
                "conv": nn.Conv2d(2, 1, 7, padding=3, bias=False),
                "bn": nn.BatchNorm2d(1, momentum=0.01),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * self.spatial["bn"](self.spatial["conv"](pooled)).sigmoid()


class CBAM(nn.Module):
    """Channel gate, then (``no_spatial=False``) spatial gate; the official parameter names.

    ``ratio`` and ``pool_types`` are :class:`ChannelGate`'s.
    """

    _abbr_ = "cbam"

    def __init__(
        self,
        in_channels: int,
        *,
        ratio: int = 16,
        pool_types: Sequence[str] = ("avg", "max"),
        no_spatial: bool = False,
    ) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(in_channels, ratio=ratio, pool_types=pool_types)
        self.SpatialGate = nn.Identity() if no_spatial else SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return self.SpatialGate(self.ChannelGate(x))
