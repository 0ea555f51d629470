"""``val_loss``: the model's own losses on the validation images, beside the metrics.

The metrics want annotations in the photograph's pixels and the losses want them in the network
input's, so the losses have a pass and a loader of their own, in which annotations are loaded before
anything resizes them. Each image is a batch of its own and draws from the same random numbers, so
that its losses depend neither on its neighbours nor on the number of processes.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_gather_object, is_main_process
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from torch import nn
from torch.utils.data import DataLoader

from swin_dense.engine.browse import annotations_first, type_name
from swin_dense.engine.config import leaf_datasets
from swin_dense.engine.progress import ProgressLine, clock
from swin_dense.errors import UserError

PREFIX = "val/"
SEED = 0
_LOADER_KEYS = (
    "num_workers",
    "pin_memory",
    "prefetch_factor",
    "multiprocessing_context",
    "timeout",
)


def loss_loader(cfg: Config, split: str) -> DataLoader[Any]:
    """Return a loader of one image at a time, annotations in the pixels of the network's input.

    With several processes each gets its share, and no image comes twice.

    Args:
        cfg: a whole config.
        split: "val" or "test", whose data set it is.

    Raises:
        UserError: a pipeline loads no annotations.
    """
    source = cfg[f"{split}_dataloader"]
    loader = ConfigDict({key: source[key] for key in _LOADER_KEYS if key in source})
    loader.dataset = deepcopy(source["dataset"])
    for leaf in leaf_datasets(loader.dataset):
        pipeline = leaf.get("pipeline") or []
        if not any("Annotations" in type_name(step) for step in pipeline):
            raise UserError(
                f"--val-loss: the pipeline of {split}_dataloader loads no annotations, and losses "
                "need them. Add dict(type='LoadAnnotations', ...) to it, as in the train pipeline, "
                "before the step that packs; or leave the validation loss out."
            )
        leaf["pipeline"] = annotations_first(pipeline)
    if "num_batch_per_epoch" in source:
        loader.num_batch_per_epoch = source["num_batch_per_epoch"] * source.get("batch_size", 1)
    loader.batch_size = 1
    loader.sampler = dict(type="DefaultSampler", shuffle=False, round_up=False)
    built: DataLoader[Any] = Runner.build_dataloader(loader, seed=SEED)
    return built


def check_losses(model: nn.Module, dataset: Any, split: str, *, fp16: bool = False) -> None:
    """Compute the losses of one annotated image, so that what must fail fails now.

    Args:
        model: as :func:`mean_losses` takes it.
        dataset: of the loader that :func:`loss_loader` made.
        split: its name, for messages.
        fp16: as :func:`mean_losses` takes it.

    Raises:
        UserError: no image has annotations, they lack masks, or the model cannot give losses.
    """
    where = f"{split}_dataloader"
    index = _first_annotated(dataset)
    if index is None:
        raise UserError(
            f"--val-loss: no image of {where} has annotations (a test set whose ground truth is "
            "kept back?), so it has no loss. Name an annotated set, or leave the option out."
        )
    with _own_random_state(_device_of(model)):
        batch = pseudo_collate([dataset[index]])
        truth = getattr(batch["data_samples"][0], "gt_instances", {})
        if getattr(model, "with_mask", False) and "masks" not in truth:
            raise UserError(
                f"--val-loss: {type(model).__name__} has a mask head, and the pipeline of {where} "
                "loads no masks. Set with_mask=True in its LoadAnnotations."
            )
        try:
            image_losses(twin_of(model), batch, fp16=fp16)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"--val-loss: {type(model).__name__} gave no losses on an image of {where} in "
                f"evaluation mode ({type(error).__name__}: {error}). Leave the option out; "
                "--debug shows where it failed."
            ) from error


def mean_losses(
    model: nn.Module, loader: Iterable[Any], *, total: int = 0, fp16: bool = False
) -> dict[str, float]:
    """Return the mean of each loss over all images of all processes, under training's names.

    Neither the model nor any random state is changed. What the heads left out of an image's losses
    counts 0 there, so that the parts still add up to ``loss``; an accuracy is the mean over the
    images that have one.

    Args:
        model: the bare model, not its distributed wrapper; in any mode.
        loader: yields this process's images, one a batch.
        total: images of this process, for the progress line.
        fp16: autocast, as mmengine's loops do under the same name.
    """
    found: dict[str, list[float]] = {}
    count, begin_s = 0, time.monotonic()
    line = ProgressLine(quiet_s=30.0) if is_main_process() else None
    twin = twin_of(model)
    with _own_random_state(_device_of(model)):
        for batch in loader:
            for name, value in image_losses(twin, batch, fp16=fp16).items():
                found.setdefault(name, []).append(value)
            count += 1
            if line is not None:
                line.show(f"validation loss: image {count} of {total or '?'}")
    if line is not None:
        line.finish(f"validation loss: {count} images in {clock(time.monotonic() - begin_s)}")
    everywhere = all_gather_object((found, count))
    images = sum(count for _, count in everywhere)
    names = dict.fromkeys(name for part, _ in everywhere for name in part)
    means = {}
    for name in names:
        values = [value for part, _ in everywhere for value in part.get(name, [])]
        # exact, so that neither order nor the number of processes changes a digit
        finite = all(map(math.isfinite, values))
        whole = math.fsum(values) if finite else sum(values)
        means[name] = whole / (images if "loss" in name else len(values))
    return means


@torch.no_grad()
def image_losses(twin: nn.Module, batch: Mapping[str, Any], *, fp16: bool) -> dict[str, float]:
    """Return one image's losses and accuracies, as ``parse_losses`` names them.

    Args:
        twin: from :func:`twin_of`.
        batch: collated, of one image, not yet preprocessed.
        fp16: autocast.
    """
    _seed_all(_device_of(twin))
    model: Any = twin
    with _alone():
        data = model.data_preprocessor(batch, True)
        with autocast(enabled=fp16):
            losses = model._run_forward(data, mode="loss")
        _, values = model.parse_losses(losses)
    return {name: float(value) for name, value in values.items()}


def twin_of(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that shares the parameters and nothing else.

    Some losses count what they see (Seesaw, Dynamic R-CNN); the copy counts in their place. Its
    preprocessor pads as in training, and augments nothing.
    """
    # a teacher's parameters as well, though it hides from the module tree
    twin = deepcopy(model, {id(parameter): parameter for parameter in _parameters(model)})
    preprocessor: Any = twin.data_preprocessor
    if getattr(preprocessor, "batch_augments", None) is not None:
        preprocessor.batch_augments = None
    return twin.eval()


def keep_single_values(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """Return mmengine's ``mean_pattern`` without validation losses.

    What it matches is logged as a mean over the last logged values: right for the losses of
    iterations, and wrong for validation, where each value is one already.
    """
    return re.compile(rf"^(?!((val|test)/)?{PREFIX}.*)(?=.*?(?:{pattern.pattern}))")


def _parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        yield from module.parameters(recurse=False)
        for value in vars(module).values():
            for item in value if isinstance(value, tuple | list) else (value,):
                if isinstance(item, nn.Module):
                    yield from item.parameters()


def _first_annotated(dataset: Any) -> int | None:
    if not hasattr(dataset, "get_data_info"):
        return 0 if len(dataset) else None
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        objects = info.get("instances") or ()
        if any(not each.get("ignore_flag") for each in objects) or info.get("seg_map_path"):
            return index
    return None


def _device_of(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _seed_all(device: torch.device) -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    torch.default_generator.manual_seed(SEED)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(SEED)


@contextmanager
def _own_random_state(device: torch.device) -> Iterator[None]:
    """Put the random state of python, numpy and torch back at the end."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    options: dict[str, Any] = dict(devices=[])
    if device.type != "cpu":
        options = dict(devices=[device], device_type=device.type)
    with torch.random.fork_rng(**options):
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


@contextmanager
def _alone() -> Iterator[None]:
    """Let heads that average a count over the processes see this one alone, meanwhile.

    Else an image's losses would depend on what the other processes look at, and a process without
    an image left would let them wait for ever.
    """
    distributed: Any = torch.distributed
    asked = distributed.is_initialized
    distributed.is_initialized = lambda: False
    try:
        yield
    finally:
        distributed.is_initialized = asked
