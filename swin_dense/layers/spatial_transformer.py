"""Spatial transformer (https://arxiv.org/abs/1506.02025) for maps that must fit their ground truth.

A map that is warped no longer lies over its boxes and masks. So the plain warp is refused; what is
offered adds the warped map to the untouched one, or warps back what a block made of it.

Letters: B batch; C channels; H, W the map; theta (B, 2, 3) from output to input coordinates in
[-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from swin_dense.errors import UserError


class STN(nn.Module):
    """A learned affine warp that leaves the map where it was.

    "residual" is x + gamma warp(x; theta(x)), gamma a scalar from 0: exactly the identity at the
    start. "restore" is unwarp(block(warp(x; theta(x)))): the block sees the map straightened, and
    its answer goes back; at the start it is block(x). What a warp pushes over the border is lost to
    the block, and the border's cells stand in for it on the way back.

    theta's last layer starts at 0 and theta is identity + max_change * tanh, so that no warp
    leaves the map. Grid and sampling are in float32 under autocast.

    Args:
        in_channels: C.
        mode: "residual" or "restore"; others are refused, with the reason.
        block: for "restore", a layer that keeps the shape.
        hidden: channels of the localisation network.
        max_change: bound of each entry's distance from the identity; None is 0.5, or 0.25 for
            "restore", which needs less than 0.5 so that every warp has an inverse.

    Raises:
        UserError: another mode, a bound out of its range, a mode without its block or a block
            without its mode.
    """

    _abbr_ = "stn"
    gamma: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        *,
        mode: str = "residual",
        block: nn.Module | None = None,
        hidden: int = 16,
        max_change: float | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("residual", "restore"):
            raise UserError(
                f"STN got mode={mode!r}; expected 'residual' or 'restore': a plainly warped map no "
                "longer lies over its ground truth boxes and masks. Leave mode out."
            )
        restores = mode == "restore"
        if restores != (block is not None):
            raise UserError(
                f"STN got mode={mode!r} {'without' if restores else 'with'} a block; expected "
                "mode='restore' with block=dict(type=...), a layer that keeps the shape, or "
                "mode='residual' without."
            )
        if max_change is None:
            max_change = 0.25 if restores else 0.5
        limit = 0.5 if restores else 1.0
        if not 0 < max_change < limit:
            raise UserError(
                f"STN got max_change={max_change} for mode={mode!r}; expected a number between 0 "
                f"and {limit:g}, so that the warp stays near the map"
                f"{' and has an inverse' if restores else ''}: leave it out."
            )
        self.max_change = max_change
        self.block = block
        self.localisation = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(16 * hidden, 6),
        )
        self.gamma = None if restores else nn.Parameter(torch.zeros(()))
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
        warped = warp(x, theta)
        if self.block is None:
            assert self.gamma is not None
            return x + (self.gamma * warped).to(x.dtype)
        return warp(self.block(warped.to(x.dtype)), inverse(theta)).to(x.dtype)


def warp(x: Tensor, theta: Tensor) -> Tensor:
    """Return (B, C, H, W) sampled bilinearly where theta points, in float32 or wider."""
    exact = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        grid = functional.affine_grid(theta.to(exact), list(x.shape), align_corners=False)
        return functional.grid_sample(x.to(exact), grid, padding_mode="border", align_corners=False)


def inverse(theta: Tensor) -> Tensor:
    """Return the transformation (B, 2, 3) that undoes ``theta``, whose determinant is not 0."""
    exact = theta.to(torch.promote_types(theta.dtype, torch.float32))
    (a, b, e), (c, d, f) = (row.unbind(-1) for row in exact.unbind(1))
    back = torch.stack([d, -b, b * f - d * e, -c, a, c * e - a * f], dim=-1)
    return back.unflatten(-1, (2, 3)) / (a * d - b * c)[:, None, None]  # type: ignore[no-untyped-call]
