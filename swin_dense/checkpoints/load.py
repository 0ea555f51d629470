"""Load pretrained weights into a backbone and say exactly what was filled and what was not."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from swin_dense.checkpoints.read import read_checkpoint
from swin_dense.checkpoints.swin_keys import resize_bias_table, to_official
from swin_dense.errors import UserError
from swin_dense.layers.patch import resize_position_grid

_EXPECTED_MISSING = re.compile(r"^norm\d+\.")
"""Output norms exist in dense models only: no classification checkpoint has them."""

_EXPECTED_UNEXPECTED = re.compile(r"^(norm|head|fc)\.")


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint.

    Attributes:
        source: the file it came from.
        format: the layout that was recognised, "official" or "mm".
        coverage: share of the model's parameters, by count of numbers, that were filled.
        loaded, missing, unexpected, resized, reinitialised: parameter names. ``reinitialised`` were in the
            file but of a shape that could not be fitted.
    """

    source: str
    format: str
    coverage: float
    loaded: list[str] = field(repr=False)
    missing: list[str]
    unexpected: list[str]
    resized: list[str]
    reinitialised: list[str]

    def __str__(self) -> str:
        lines = [
            f"{self.source}: {self.format} layout, {self.coverage:.1%} of the parameters filled "
            f"({len(self.loaded)} tensors)"
        ]
        suspicious = [name for name in self.missing if not _EXPECTED_MISSING.match(name)]
        expected = [name for name in self.missing if _EXPECTED_MISSING.match(name)]
        foreign = [name for name in self.unexpected if not _EXPECTED_UNEXPECTED.match(name)]
        for title, names in (
            ("missing, as expected", expected),
            ("MISSING", suspicious),
            ("resized", self.resized),
            ("of another shape, left fresh", self.reinitialised),
            ("in the file only", foreign),
        ):
            if names:
                shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
                lines.append(f"  {title}: {len(names)} ({shown})")
        return "\n".join(lines)


def load_pretrained(
    model: nn.Module, source: str | Path, *, min_coverage: float = 0.9
) -> LoadReport:
    """Fill a Swin backbone from a checkpoint file of the official or the mm hosts' layout.

    The layout is recognised by content; whole detectors and segmentors give their backbone. Bias tables of
    another window and position embeddings of another image size are resized.

    Args:
        model: a backbone with official parameter names.
        source: path or URL.
        min_coverage: least share of the parameters that must be filled, 0 to 1.

    Raises:
        UserError: the file cannot be read, is of no known layout, or fills less than ``min_coverage``;
            the model is left as it was.
    """
    state = unwrap(read_checkpoint(source), source)
    found, official = to_official(state)
    if found is None:
        shown = ", ".join(list(state)[:4])
        raise UserError(
            f"{source} holds no Swin backbone that is known here (its first keys: {shown}). Expected the "
            "official or the mmdet/mmseg layout."
        )
    own = dict(model.named_parameters())
    fitted, resized, reinitialised = _fit(official, own)
    filled = sum(own[name].numel() for name in fitted)
    coverage = filled / sum(parameter.numel() for parameter in own.values())
    report = LoadReport(
        source=str(source),
        format=found,
        coverage=coverage,
        loaded=sorted(fitted),
        missing=sorted(set(own) - set(official)),
        unexpected=sorted(set(official) - set(own)),
        resized=resized,
        reinitialised=reinitialised,
    )
    if coverage < min_coverage:
        raise UserError(
            f"{source} fills {coverage:.1%} of {type(model).__name__}, less than {min_coverage:.0%}: is it "
            f"of another size? Nothing was loaded.\n{report}"
        )
    model.load_state_dict(fitted, strict=False)
    return report


def unwrap(checkpoint: Any, source: str | Path) -> dict[str, Tensor]:
    """Return the backbone's tensors of a checkpoint: containers and name prefixes taken off.

    Raises:
        UserError: there are no tensors in it.
    """
    state = checkpoint
    for container in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(container), Mapping):
            state = state[container]
            break
    tensors = (
        {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
        if isinstance(state, Mapping)
        else {}
    )
    if not tensors:
        raise UserError(
            f"{source} holds no tensors: expected a state dict, alone or under 'state_dict' or 'model', "
            f"found {type(checkpoint).__name__}."
        )
    for prefix in ("module.", "backbone.", "encoder."):
        if any(key.startswith(prefix) for key in tensors):
            tensors = {
                key[len(prefix) :]: value
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
    return tensors


def initialise_from(model: nn.Module, init_cfg: Mapping[str, Any] | None) -> None:
    """Do what an mm ``init_cfg`` asks of a backbone: nothing, or load a checkpoint and log the report.

    Raises:
        UserError: as :func:`load_pretrained`, or an ``init_cfg`` of another type than "Pretrained".
    """
    if not init_cfg:
        return
    options = dict(init_cfg)
    if options.pop("type", None) != "Pretrained" or "checkpoint" not in options:
        raise UserError(
            f"{type(model).__name__} got init_cfg={dict(init_cfg)!r}; expected None or "
            "dict(type='Pretrained', checkpoint='path or URL')."
        )
    report = load_pretrained(model, options["checkpoint"])
    logging.getLogger("mmengine").info("%s", report)


def register_key_translation(model: nn.Module) -> None:
    """Make ``load_state_dict`` of ``model``, or of any model around it, accept the mm hosts' layout."""

    def translate(
        module: nn.Module, state_dict: dict[str, Any], prefix: str, *unused: object
    ) -> None:
        mine = {
            key[len(prefix) :]: state_dict.pop(key)
            for key in list(state_dict)
            if key.startswith(prefix)
        }
        _, official = to_official(mine)
        state_dict.update({prefix + key: value for key, value in official.items()})

    model.register_load_state_dict_pre_hook(translate)


def _fit(
    official: Mapping[str, Tensor], own: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Return what fits the model, resized where that is defined, and the names that were or could not be."""
    fitted, resized, reinitialised = {}, [], []
    for name in sorted(set(official) & set(own)):
        value, target = official[name], own[name]
        if value.shape != target.shape:
            value = _resize(name, value, target)
            if value.shape != target.shape:
                reinitialised.append(name)
                continue
            resized.append(name)
        fitted[name] = value
    return fitted, resized, reinitialised


def _resize(name: str, value: Tensor, target: Tensor) -> Tensor:
    if name.endswith("relative_position_bias_table") and value.shape[1] == target.shape[1]:
        return resize_bias_table(value, target.shape[0])
    if name == "absolute_pos_embed" and value.dim() == 4 and value.shape[1] == target.shape[1]:
        return resize_position_grid(value, (target.shape[2], target.shape[3]))
    return value
