"""``--tta``: a config's test pipeline turned into one that shows views, its model into a merger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict

from swin_dense.engine.browse import type_name
from swin_dense.engine.config import leaf_datasets
from swin_dense.errors import UserError

_HOSTS_OWN = ("DetTTAModel", "SegTTAModel")
_FLIP_KEYS = ("flip", "flip_direction")


def augment(cfg: Config, *, segments: bool) -> None:
    """Give ``cfg`` test-time augmentation, in place.

    ``tta_pipeline`` in the config is taken as it is. Without one the test pipeline is shown in
    every scale of ``tta_scales`` (factors of its own size; ``[1.0]`` by default), plain and, unless
    ``tta_flip`` is False, mirrored. ``tta_model`` is taken too, but for the hosts' two, which ours
    replace.

    Raises:
        UserError: the scales or the test pipeline do not fit.
    """
    for leaf in leaf_datasets(cfg.test_dataloader.dataset):
        own = cfg.get("tta_pipeline")
        leaf["pipeline"] = deepcopy(own) if own is not None else view_pipeline(
            leaf.get("pipeline") or [], scales=cfg.get("tta_scales", [1.0]),
            flip=cfg.get("tta_flip", True), segments=segments,
        )  # fmt: skip
    model = cfg.get("tta_model")
    if model is None or type_name(model) in _HOSTS_OWN:
        model = dict(type="swin_dense.SegmentorTTA" if segments else "swin_dense.DetectorTTA")
    cfg.model = ConfigDict(**model, module=cfg.model)


def view_pipeline(
    pipeline: Sequence[Mapping[str, Any]], *, scales: Sequence[float], flip: bool, segments: bool
) -> list[Any]:
    """Return a test pipeline that shows each photograph in every scale, plain and mirrored.

    Annotations are loaded behind the flip, so that label maps stay as they are on the disk.

    Args:
        pipeline: image loader, perhaps a Resize, annotations, packing.
        scales: factors of the size that Resize gives.
        flip: show each scale mirrored as well.
        segments: the pipeline is mmseg's, not mmdet's.

    Raises:
        UserError: no positive scales, a scale without a Resize, or no packing at the end.
    """
    numbers = isinstance(scales, Sequence) and not isinstance(scales, str) and len(scales) > 0
    if not numbers or not all(isinstance(s, int | float) and s > 0 for s in scales):
        raise UserError(
            f"tta_scales={scales!r}; expected positive factors, for example [0.75, 1.0, 1.25]."
        )
    pack = ConfigDict(deepcopy(pipeline[-1])) if pipeline else ConfigDict()
    if not type_name(pack).startswith("Pack"):
        raise UserError(
            "--tta: the test pipeline does not end with PackDetInputs or PackSegInputs. Give the "
            "config a tta_pipeline."
        )
    if "meta_keys" in pack:
        pack["meta_keys"] = tuple(dict.fromkeys((*pack["meta_keys"], *_FLIP_KEYS)))
    steps = [deepcopy(step) for step in pipeline[:-1]]
    notes = [step for step in steps if "Annotations" in type_name(step)]
    others = [step for step in steps if "Annotations" not in type_name(step)]
    where = [index for index, step in enumerate(others) if type_name(step) == "Resize"]
    if not where and list(scales) != [1]:
        raise UserError(
            f"tta_scales={list(scales)}, and the test pipeline has no Resize to scale. Add one, "
            "leave tta_scales out, or give the config a tta_pipeline."
        )
    first = where[0] if where else len(others)
    sizes = [[_scaled(others[first], scale) for scale in scales]] if where else []
    scope = "mmseg" if segments else "mmdet"
    flips = [dict(type=f"{scope}.RandomFlip", prob=float(p)) for p in range(2 if flip else 1)]
    rest = [[step] for step in (*others[first + 1 :], *notes, pack)]
    return [*others[:first], dict(type="TestTimeAug", transforms=[*sizes, flips, *rest])]


def _scaled(resize: Mapping[str, Any], factor: float) -> dict[str, Any]:
    step = dict(resize)
    if step.get("scale") is not None:
        size = step["scale"]
        if isinstance(size, int):
            step["scale"] = round(size * factor)
        else:
            step["scale"] = tuple(round(side * factor) for side in size)
    elif isinstance(step.get("scale_factor"), int | float):
        step["scale_factor"] = step["scale_factor"] * factor
    elif step.get("scale_factor") is not None:
        step["scale_factor"] = tuple(side * factor for side in step["scale_factor"])
    return step
