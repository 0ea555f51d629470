"""The ``plugins`` option: layers of mmcv's plugin protocol behind the stages of a backbone.

``plugins=[dict(cfg=dict(type="swin_dense.CBAM"), stages=(False, True, True, True))]``, as mmdet's
ResNet has it, with ``position="after_stage"``, the one place there is. A plugin takes
``in_channels`` and keeps the shape of a (B, C, H, W) map. Letters: B batch; H, W token grid; C
channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from swin_dense.errors import UserError, did_you_mean
from swin_dense.registry import MODELS

POSITION = "after_stage"
_KEYS = ("cfg", "stages", "position")


def build_plugins(
    owner: str, plugins: Sequence[Mapping[str, Any]] | None, channels: Sequence[int]
) -> nn.ModuleDict | None:
    """Return the plugins by the number of their stage, in the order given; None for none.

    Args:
        owner: the backbone, for messages.
        channels: of each stage's map.

    Raises:
        UserError: an entry that is none, another position, stages that are not these, a type that
            is not known, or options that it does not take.
    """
    if not plugins:
        return None
    found: dict[str, list[nn.Module]] = {}
    for number, entry in enumerate(plugins):
        where = f"{owner}: plugins[{number}]"
        stages = _check_entry(where, entry, len(channels))
        for stage, (wanted, width) in enumerate(zip(stages, channels, strict=True)):
            if wanted:
                found.setdefault(str(stage), []).append(_build(where, entry["cfg"], width))
    ordered = sorted(found.items(), key=lambda item: int(item[0]))
    return nn.ModuleDict({stage: nn.Sequential(*layers) for stage, layers in ordered})


def run_plugins(layers: nn.Module, tokens: Tensor) -> Tensor:
    """Run one stage's plugins on (B, H, W, C); the same shape comes back.

    Raises:
        UserError: a plugin gives another shape than it takes.
    """
    grid = tokens.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
    for layer in layers.children():
        changed: Tensor = layer(grid)
        if changed.shape != grid.shape:
            raise UserError(
                f"the plugin {type(layer).__name__} makes {tuple(changed.shape)} of "
                f"{tuple(grid.shape)}; expected the shape it takes, (B, C, H, W): the next stage "
                "and the neck rely on it. Mend its options or leave it out."
            )
        grid = changed
    return grid.permute(0, 2, 3, 1).contiguous()  # (B, C, H, W) -> (B, H, W, C)


def _check_entry(where: str, entry: Mapping[str, Any], num_stages: int) -> Sequence[bool]:
    """Return for each stage whether the entry is meant for it."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("cfg"), Mapping):
        raise UserError(
            f"{where} is {entry!r}; expected dict(cfg=dict(type='swin_dense.CBAM'), stages=(...))."
        )
    for key in entry:
        if key not in _KEYS:
            raise UserError(
                f"{where} has {key}={entry[key]!r}{did_you_mean(str(key), _KEYS)}; expected "
                f"{', '.join(_KEYS)}. Options of the plugin itself go into its cfg."
            )
    position = entry.get("position", POSITION)
    if position != POSITION:
        raise UserError(
            f"{where} has position={position!r}; expected {POSITION!r}: these blocks have no "
            "convolutions to stand between, as a ResNet's have."
        )
    stages = entry.get("stages")
    if stages is None:
        return (True,) * num_stages
    is_list = isinstance(stages, (list, tuple))
    if not is_list or len(stages) != num_stages or not all(type(s) is bool for s in stages):
        raise UserError(
            f"{where} has stages={stages!r}; expected True or False for each of {num_stages} "
            f"stages, such as {(False,) + (True,) * (num_stages - 1)}."
        )
    return tuple(stages)


def _build(where: str, cfg: Mapping[str, Any], channels: int) -> nn.Module:
    kind = cfg.get("type")
    if isinstance(kind, str) and MODELS.get(kind) is None:
        known = [f"swin_dense.{n}" for n, k in MODELS.module_dict.items() if hasattr(k, "_abbr_")]
        raise UserError(
            f"{where} has type={kind!r}{did_you_mean(kind, known)}; expected one of "
            f"{', '.join(known)}, or a plugin that a host or you registered."
        )
    if kind is None or "in_channels" in cfg:
        raise UserError(
            f"{where} has cfg={dict(cfg)!r}; expected a type, and no in_channels, which are "
            "those of each stage."
        )
    try:
        layer: nn.Module = MODELS.build({**cfg, "in_channels": channels})
    except TypeError as error:
        raise UserError(
            f"{where}: {kind} does not take what its cfg has: {error}. Expected a layer that takes "
            "in_channels, and options that it has."
        ) from error
    return layer
