"""Spatial transformer (https://arxiv.org/abs/1506.02025) for maps that must fit their ground truth.

A map that is warped no longer lies over its boxes and masks. So the plain warp is refused; what is
offered adds the warped map to the untouched one, through a gate that starts at 0.

Letters: B batch; C channels; H, W the map; theta (B, 2, 3) from output to input coordinates in
[-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from swin_dense.errors import UserError


class STN(nn.Module):
    """x + gamma warp(x; theta(x)), gamma a scalar from 0: exactly the identity at the start.

    theta's last layer starts at 0 and theta is identity + max_change * tanh, so that no warp
    leaves the map. Grid and sampling are in float32 under autocast.

    Args:
        in_channels: C.
        mode: "residual"; other modes are refused, with the reason.
        hidden: channels of the localisation network.
        max_change: bound of each entry's distance from the identity.

    Raises:
        UserError: another mode, or a bound that is not between 0 and 1.
    """

    _abbr_ = "stn"

    def __init__(
        self,
        in_channels: int,
        *,
        mode: str = "residual",
        hidden: int = 16,
        max_change: float = 0.5,
    ) -> None:
        super().__init__()
        if mode != "residual":
            raise UserError(
                f"STN got mode={mode!r}; expected 'residual': a plainly warped map no longer lies "
                "over its ground truth boxes and masks. Leave mode out."
            )
        if not 0 < max_change < 1:
            raise UserError(
                f"STN got max_change={max_change}; expected a number between 0 and 1, so that the "
                "warp stays near the map: set for example 0.5."
            )
        self.max_change = max_change
        self.localisation = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(16 * hidden, 6),
        )
        self.gamma = nn.Parameter(torch.zeros(()))
        last = self.localisation[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def theta(self, x: Tensor) -> Tensor:
        """Return the transformation (B, 2, 3) of each map of (B, C, H, W)."""
        change = self.localisation(x).tanh().unflatten(1, (2, 3)) * self.max_change
        return change + torch.eye(2, 3, device=change.device, dtype=change.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        theta = self.theta(x)
        exact = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            grid = functional.affine_grid(theta.to(exact), list(x.shape), align_corners=False)
            warped = functional.grid_sample(
                x.to(exact), grid, padding_mode="border", align_corners=False
            )
        return x + (self.gamma * warped).to(x.dtype)
