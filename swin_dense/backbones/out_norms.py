"""What leaves a pyramid whose authors published no dense code: raw maps, or maps with a norm.

Letters: B batch; H, W token grid; C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from swin_dense.backbones.base import as_map
from swin_dense.errors import UserError, did_you_mean

OUT_NORMS = ("none", "last", "each")


def add_out_norms(
    model: nn.Module,
    out_norm: str,
    channels: Sequence[int],
    out_indices: Sequence[int],
    norm: Callable[[int], nn.Module],
) -> None:
    """Give ``model`` its output norms.

    Args:
        out_norm: "none"; "last", one called ``norm``, a classifier's final norm, on the map of the
            last stage if that leaves; "each", one called ``norm{i}`` for the map of each stage i.

    Raises:
        UserError: another ``out_norm``.
    """
    if out_norm not in OUT_NORMS:
        raise UserError(
            f"{type(model).__name__} got out_norm={out_norm!r}"
            f"{did_you_mean(str(out_norm), OUT_NORMS)}; expected one of {', '.join(OUT_NORMS)}."
        )
    last = len(channels) - 1
    if out_norm == "last" and last in out_indices:
        model.add_module("norm", norm(channels[last]))
    if out_norm == "each":
        for index in out_indices:
            model.add_module(f"norm{index}", norm(channels[index]))


def norms_of_stage(model: nn.Module, index: int, *, is_last: bool) -> Iterator[nn.Module]:
    """Yield the output norm of a stage, if it has one."""
    own = dict(model.named_children())
    name = "norm" if is_last and "norm" in own else f"norm{index}"
    if name in own:
        yield own[name]


def leave(model: nn.Module, index: int, tokens: Tensor, *, is_last: bool) -> Tensor:
    """Return the map (B, C, H, W) of stage ``index``, whose tokens are (B, H, W, C)."""
    for norm in norms_of_stage(model, index, is_last=is_last):
        tokens = norm(tokens)
    return as_map(tokens)
