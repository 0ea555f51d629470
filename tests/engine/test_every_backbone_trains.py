"""Every backbone trains under Mask R-CNN and UperNet on real photographs of ragged sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from swin_dense.engine.train import TrainOptions
from tests import runs
from tests.backbones.zoo import ZOO, build, class_name

RAGGED = (70, 93)
"""Height and width of crops in pixels; no backbone's strides divide them."""

every_backbone = pytest.mark.parametrize("name", ZOO)


class Watch(Hook):
    """Keeps the losses, the sizes of the images, and the first weights of the backbone."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.image_hw: list[tuple[int, ...]] = []
        self.first: dict[str, torch.Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        backbone: Any = runner.model.backbone
        self.first = {key: value.clone() for key, value in backbone.named_parameters()}
        backbone.register_forward_pre_hook(
            lambda module, inputs: self.image_hw.append(tuple(inputs[0].shape[2:]))
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.losses.append(outputs["loss"].item())


def train_twice(cfg: Config, name: str) -> Watch:
    """Train two iterations with the small backbone ``name``; return what was seen."""
    cfg.model.backbone = dict(
        type=f"swin_dense.{class_name(name)}", **ZOO[name].options, drop_path_rate=0.1
    )
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=100)
    cfg.default_hooks.checkpoint = None
    for split in ("val", "test"):
        cfg[f"{split}_dataloader"] = cfg[f"{split}_evaluator"] = cfg[f"{split}_cfg"] = None
    cfg.optim_wrapper.optimizer.lr = 1e-3
    cfg.param_scheduler = []
    watch = Watch()
    HOOKS.register_module(name="WatchOfTheZoo", module=lambda: watch, force=True)
    cfg.custom_hooks = [dict(type="WatchOfTheZoo")]
    runner = runs.train(cfg, TrainOptions(seed=0))
    for key, value in runner.model.backbone.named_parameters():
        if not key.startswith(ZOO[name].unused):
            assert not torch.equal(value, watch.first[key]), f"{key} did not move"
    return watch


def channels_of(name: str) -> tuple[list[int], Mapping[str, Any] | None]:
    """Return the channels of the four maps that reach the neck or head, and what makes them."""
    pyramid = ZOO[name].pyramid
    if pyramid is None:
        return list(build(name).out_channels), None
    return [pyramid["out_channels"]] * 4, pyramid


@every_backbone
def test_mask_rcnn_learns_with_every_parameter_of_the_backbone(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    channels, pyramid = channels_of(name)
    options = runs.coco_options(shared_data / "coco_mini", short_side=93, images=4)
    options["model.neck.in_channels"] = channels
    options["model.data_preprocessor.pad_size_divisor"] = 1
    cfg = runs.load(runs.MASK_RCNN, options, tmp_path)
    if pyramid:
        cfg.model.neck = {**pyramid, "out_channels": cfg.model.neck.out_channels, "num_outs": 5}
    watch = train_twice(cfg, name)
    assert len(watch.losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in watch.losses)
    assert any(side % 32 for sides in watch.image_hw for side in sides)


@every_backbone
def test_upernet_learns_with_every_parameter_of_the_backbone(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    channels, pyramid = channels_of(name)
    options = runs.semantic_options(shared_data / "ade_mini", crop=96)
    options["model.decode_head.in_channels"] = channels
    options["model.auxiliary_head.in_channels"] = channels[2]
    options["model.data_preprocessor.size"] = RAGGED
    options["train_dataloader.dataset.pipeline.3.crop_size"] = RAGGED
    cfg = runs.load(runs.UPERNET, options, tmp_path)
    if pyramid:
        cfg.model.neck = dict(pyramid)
    watch = train_twice(cfg, name)
    assert watch.image_hw == [RAGGED, RAGGED]
    assert all(math.isfinite(loss) and loss > 0 for loss in watch.losses)
