"""What every backbone asks of its options and its input, with errors a user can act on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from swin_dense.errors import UserError, did_you_mean

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


def architecture(
    owner: str,
    known: Mapping[str, Mapping[str, Any]],
    arch: str,
    *,
    others: str = "embed_dims, depths",
) -> Mapping[str, Any]:
    """Return the sizes that a name stands for, or its first letter where that is enough.

    Args:
        owner: the backbone, for messages.
        known: sizes by name.
        arch: what the user gave; case does not count.
        others: the options that set other sizes, for messages.

    Raises:
        UserError: no such name.
    """
    name = arch.lower() if isinstance(arch, str) else arch
    if name not in known and isinstance(name, str) and len(name) == 1:
        name = next((full for full in known if full[0] == name), name)
    if name not in known:
        raise UserError(
            f"{owner} got arch={arch!r}{did_you_mean(str(arch), known)}; expected one of "
            f"{', '.join(known)}. For other sizes give {others} and num_heads."
        )
    return known[name]


def check_per_stage(
    owner: str, option: str, values: Sequence[Any], pattern: str, stages: Sequence[Any]
) -> None:
    """Raise a UserError unless ``option`` has as many values as the option ``pattern``."""
    if len(values) != len(stages):
        raise UserError(
            f"{owner} got {pattern}={tuple(stages)} for {len(stages)} stages and "
            f"{option}={tuple(values)} for {len(values)}; expected one for each stage."
        )


def check_heads(owner: str, channels: Sequence[int], num_heads: Sequence[int]) -> None:
    """Raise a UserError unless the heads of each stage divide its channels."""
    for index, (width, heads) in enumerate(zip(channels, num_heads, strict=True)):
        if heads < 1 or width % heads:
            raise UserError(
                f"{owner}: stage {index} has {width} channels, which num_heads[{index}]={heads} "
                "does not divide. Choose heads that do."
            )


def check_out_indices(owner: str, out_indices: Sequence[int], num_stages: int) -> None:
    """Raise a UserError unless ``out_indices`` are ascending stages."""
    ascending = list(out_indices) == sorted(set(out_indices))
    if not out_indices or not ascending or not set(out_indices) <= set(range(num_stages)):
        raise UserError(
            f"{owner} got out_indices={tuple(out_indices)}; expected ascending numbers from "
            f"0 to {num_stages - 1}, each once."
        )


def check_frozen_stages(owner: str, frozen_stages: int, num_stages: int) -> None:
    """Raise a UserError unless ``frozen_stages`` is -1 to the number of stages."""
    if not -1 <= frozen_stages <= num_stages:
        raise UserError(
            f"{owner} got frozen_stages={frozen_stages}; expected -1 (none) to {num_stages} (all)."
        )
