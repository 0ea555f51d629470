"""Load pretrained weights into a model and say exactly what was filled and what was not."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swin_dense.checkpoints.families import families, family_of
from swin_dense.checkpoints.families.family import Family
from swin_dense.checkpoints.formats import Found, nearest, recognise, recognise_any, unwrap
from swin_dense.checkpoints.heads import class_names, is_class_wise, map_rows
from swin_dense.checkpoints.read import read_checkpoint
from swin_dense.checkpoints.report import OUTSIDE_BACKBONE, LoadReport
from swin_dense.errors import UserError

MIN_COVERAGE = 0.9
PLUGINS = "plugins."
"""What the names of layers begin with that a user put behind a backbone's stages."""

INIT_TYPES = ("Pretrained", "swin_dense.Pretrained")


def load_pretrained(
    model: nn.Module,
    source: str | Path | Mapping[str, Any],
    *,
    min_coverage: float = MIN_COVERAGE,
    sha256: str | None = None,
    mirrors: Sequence[str] = (),
    classes: Sequence[str] | None = None,
) -> LoadReport:
    """Fill a backbone, or a detector or segmentor around one, from anybody's checkpoint.

    The layout is recognised by content; :mod:`swin_dense.checkpoints.families` has those of each
    family. For Swin: official (classification, MoBY, SimMIM, detection, segmentation), mmdet, mmseg
    and mmpretrain, timm, torchvision, transformers, detectron2 and Mask2Former. Bias tables of
    another window, position embeddings of another image size and patch convolutions of another
    number of input channels are resized. Of a whole model every name that agrees is filled; rows of
    class-wise layers go by class name where both sides know the names.

    Args:
        model: a backbone of this package, or a model that has one.
        source: path, URL, or a state dict.
        min_coverage: least share of the parameters that must be filled, 0 to 1; output norms, necks
            and heads that such a checkpoint never has do not count.
        sha256: the checksum the file must have, or its first 8 digits or more.
        mirrors: URLs of the same file, tried in turn when the first fails.
        classes: the model's class names, where the model does not carry them as ``dataset_meta``.

    Raises:
        UserError: the file cannot be read or is not the one expected, holds another family or other
            sizes, or fills less than ``min_coverage``; the model is left as it was.
    """
    if isinstance(source, Mapping):
        name, checkpoint = "a state dict", source
    else:
        name = str(source)
        checkpoint = read_checkpoint(source, sha256=sha256, mirrors=mirrors)
    tensors = unwrap(checkpoint, name)
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    own = {key: own[key] for key in model.state_dict() if key in own}
    family, prefix = own_backbone(model)
    found = recognise(tensors, family)
    if found is None:
        raise UserError(_not_found(name, tensors, family))
    _check_geometry(
        name, found, {k[len(prefix) :]: v for k, v in own.items() if k.startswith(prefix)}
    )
    theirs, ours = class_names(checkpoint), _own_classes(model, classes)
    filling = _fill(found, own, prefix, theirs, ours)
    report = _report(name, found, model, own, prefix, filling, theirs, ours)
    if _essential_coverage(model, prefix, report) < min_coverage:
        raise UserError(
            f"{name} fills too little of {type(model).__name__}, less than {min_coverage:.0%} of "
            f"what such a checkpoint should have. Is it of another model? Nothing was loaded.\n"
            f"{report}"
        )
    with torch.no_grad():
        for key, value in filling.values.items():
            own[key].copy_(value)
    return report


def initialise_from(model: nn.Module, init_cfg: Mapping[str, Any] | None) -> None:
    """Do what an ``init_cfg`` asks of a backbone: nothing, or load a checkpoint and log the report.

    Raises:
        UserError: as :func:`load_pretrained`, or an ``init_cfg`` of another type than "Pretrained"
            or "swin_dense.Pretrained", or with options that it does not have.
    """
    if not init_cfg:
        return
    options = dict(init_cfg)
    known = {"checkpoint", "min_coverage", "sha256", "mirrors", "classes", "prefix", "map_location"}
    if (
        options.pop("type", INIT_TYPES[0]) not in INIT_TYPES  # mmdet's PVT configs leave it out
        or "checkpoint" not in options
        or not set(options) <= known
    ):
        raise UserError(
            f"{type(model).__name__} got init_cfg={dict(init_cfg)!r}; expected None or "
            "dict(type='swin_dense.Pretrained', checkpoint='path or URL'), with min_coverage, "
            "sha256, mirrors or classes at will."
        )
    # the hosts' configs name the prefix and the device; both are found without being told
    options.pop("prefix", None)
    options.pop("map_location", None)
    report = load_pretrained(model, options.pop("checkpoint"), **options)
    logging.getLogger("mmengine").info("%s", report)


def register_key_translation(model: nn.Module) -> None:
    """Make ``load_state_dict`` of a backbone, or of a model around it, accept the other layouts.

    Its class says its family as ``checkpoint_family``.
    """
    family = family_of(model)
    assert family is not None, f"{type(model).__name__} has no checkpoint_family"

    def translate(
        module: nn.Module, state_dict: dict[str, Any], prefix: str, *unused: object
    ) -> None:
        mine = {key[len(prefix) :]: state_dict[key] for key in state_dict if key.startswith(prefix)}
        found = recognise(mine, family)
        if found is None or found.prefix:
            return
        for key in mine:
            del state_dict[prefix + key]
        state_dict.update({prefix + key: v for key, v in (found.backbone | found.rest).items()})

    model.register_load_state_dict_pre_hook(translate)  # type: ignore[no-untyped-call]


@dataclass
class _Filling:
    """What a checkpoint has for a model, in the model's own names."""

    values: dict[str, Tensor] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    reinitialised: list[str] = field(default_factory=list)
    mapped: list[str] = field(default_factory=list)
    whole_model: bool = False


def _fill(
    found: Found,
    own: Mapping[str, Tensor],
    prefix: str,
    theirs: Sequence[str] | None,
    ours: Sequence[str] | None,
) -> _Filling:
    """Match every tensor of a checkpoint with the model's, resized or mapped by class."""
    filling = _Filling()
    outer = prefix[: -len("backbone.")] if prefix.endswith("backbone.") else ""
    their_outer = found.prefix[: -len("backbone.")] if found.prefix.endswith("backbone.") else ""
    offered = {prefix + key: value for key, value in found.backbone.items()}
    for key, value in found.rest.items():
        key = outer + key.removeprefix(their_outer)
        filling.whole_model |= key in own and not key.startswith(prefix)
        offered.setdefault(key, value)
    for key, value in sorted(offered.items()):
        if key not in own:
            filling.unexpected.append(key.removeprefix(prefix))
            continue
        target = own[key]
        if theirs and ours and theirs != ours and is_class_wise(key):
            rows = map_rows(key, value, target, theirs, ours)
            if rows is None:
                filling.reinitialised.append(key)
            else:
                filling.values[key] = rows
                filling.mapped.append(key)
            continue
        fitted = value
        if value.shape != target.shape and value.dim() == target.dim():
            fitted = found.family.fit(key, value, target)
        if fitted.shape != target.shape:
            filling.reinitialised.append(key)
            continue
        if fitted.shape != value.shape:
            filling.resized.append(key)
        filling.values[key] = fitted
    return filling


def own_backbone(model: nn.Module) -> tuple[Family, str]:
    """Return the family of the backbone in a model, and the prefix of its names.

    Raises:
        UserError: there is none of this package in it.
    """
    found = {
        f"{name}." if name else "": family
        for name, module in model.named_modules()
        if (family := family_of(module)) is not None
    }
    if not found:
        titles = ", ".join(family.title for family in families())
        raise UserError(
            f"{type(model).__name__} has no backbone of swin_dense in it; expected one of the "
            f"families {titles}, or a model with one as its backbone."
        )
    prefix = nearest(found)
    return found[prefix], prefix


def _not_found(name: str, tensors: Mapping[str, Tensor], family: Family) -> str:
    shown = ", ".join(list(tensors)[:4])
    other = recognise_any(tensors)
    what = f"; it is a {other.family.title} ({other.format} layout)" if other else ""
    return (
        f"{name} holds no {family.title} that is known here{what} (its first keys: {shown}). "
        f"Expected weights of {family.projects}; other architectures do not fit this model."
    )


def _check_geometry(name: str, found: Found, own: Mapping[str, Tensor]) -> None:
    theirs, ours = found.family.geometry(found.backbone), found.family.geometry(own)
    if not theirs.agrees(ours):
        raise UserError(
            f"{name} holds a {theirs}; the model is a {ours}. Nothing was loaded. Choose the "
            "checkpoint of this architecture, or the arch and depths of this checkpoint."
        )


def _own_classes(model: nn.Module, classes: Sequence[str] | None) -> tuple[str, ...] | None:
    if classes is not None:
        return tuple(classes)
    return class_names({"meta": {"dataset_meta": getattr(model, "dataset_meta", None)}})


def _report(
    name: str,
    found: Found,
    model: nn.Module,
    own: Mapping[str, Tensor],
    prefix: str,
    filling: _Filling,
    theirs: Sequence[str] | None,
    ours: Sequence[str] | None,
) -> LoadReport:
    parameters = dict(model.named_parameters())
    scope = {
        key: value
        for key, value in parameters.items()
        if filling.whole_model or key.startswith(prefix)
    }
    filled = sum(value.numel() for key, value in scope.items() if key in filling.values)
    seen = set(filling.values) | set(filling.reinitialised)
    missing = [key for key in own if key not in seen]
    kept = [label for label in ours or () if label in (theirs or ())] if filling.mapped else []
    return LoadReport(
        source=name,
        format=found.format,
        scope="model" if filling.whole_model else "backbone",
        coverage=filled / sum(value.numel() for value in scope.values()),
        loaded=sorted(filling.values),
        missing=missing,
        missing_expected=[
            key for key in missing if _is_expected_missing(key, prefix, found.family)
        ],
        unexpected=filling.unexpected,
        resized=filling.resized,
        reinitialised=filling.reinitialised,
        mapped=filling.mapped,
        classes_kept=kept,
        classes_fresh=[label for label in ours or () if filling.mapped and label not in kept],
        classifier=found.family.classifier,
        notes=found.family.notes(
            found.derived,
            {k[len(prefix) :]: v for k, v in model.named_buffers() if k.startswith(prefix)},
        ),
    )


def _is_expected_missing(name: str, prefix: str, family: Family) -> bool:
    """Whether a pretrained checkpoint is not expected to have this parameter of a dense model."""
    if name.startswith(prefix):
        own = name[len(prefix) :]
        return own.startswith(PLUGINS) or bool(family.dense_only.search(own))
    return bool(OUTSIDE_BACKBONE.search(name))


def _essential_coverage(model: nn.Module, prefix: str, report: LoadReport) -> float:
    """Return the filled share of the backbone's parameters that every checkpoint should have."""
    loaded, expected = set(report.loaded), set(report.missing_expected)
    essential = {
        key: value.numel()
        for key, value in model.named_parameters()
        if key.startswith(prefix) and key not in expected
    }
    filled = sum(count for key, count in essential.items() if key in loaded)
    return filled / sum(essential.values())
