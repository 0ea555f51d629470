"""What every backbone asks of its options and its input, with errors a user can act on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from swin_dense.errors import UserError

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "GELU": nn.GELU,
    "ReLU": nn.ReLU,
    "SiLU": nn.SiLU,
    "Swish": nn.SiLU,
    "HSwish": nn.Hardswish,
    "LeakyReLU": nn.LeakyReLU,
}


def norm_from_cfg(cfg: Mapping[str, Any]) -> Callable[[int], nn.Module]:
    """Return ``channels -> LayerNorm`` for a host's ``norm_cfg``.

    Raises:
        UserError: a type other than "LN", or a key LayerNorm does not have.
    """
    options = dict(cfg)
    kind = options.pop("type", None)
    if kind not in ("LN", "LayerNorm"):
        raise UserError(
            f"norm_cfg has type={kind!r}; expected 'LN': this backbone has LayerNorm only."
        )
    trainable = options.pop("requires_grad", True)
    unknown = set(options) - {"eps", "elementwise_affine", "bias"}
    if unknown:
        raise UserError(
            f"norm_cfg has unknown keys {sorted(unknown)}; expected eps, elementwise_affine, bias "
            "or requires_grad."
        )

    def build(channels: int) -> nn.Module:
        return nn.LayerNorm(channels, **options).requires_grad_(trainable)

    return build


def activation_from_cfg(cfg: Mapping[str, Any]) -> Callable[[], nn.Module]:
    """Return a maker of the activation that a host's ``act_cfg`` names.

    Raises:
        UserError: a type that is not known here.
    """
    options = dict(cfg)
    kind = options.pop("type", None)
    if kind not in _ACTIVATIONS:
        raise UserError(f"act_cfg has type={kind!r}; expected one of {', '.join(_ACTIVATIONS)}.")
    return partial(_ACTIVATIONS[kind], **options)


def check_images(images: Tensor, in_channels: int) -> None:
    """Raise a UserError unless ``images`` is (B, in_channels, H, W) with at least one pixel."""
    if images.dim() != 4 or images.shape[1] != in_channels or 0 in images.shape[2:]:
        raise UserError(
            f"the backbone got images of shape {tuple(images.shape)}; expected "
            f"(B, {in_channels}, H, W). "
            "Set in_channels to what your images have, or convert them."
        )
