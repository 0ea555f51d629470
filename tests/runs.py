"""Small real runs on the test photographs, shared by the tests of training and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from swin_dense.engine.config import load_config
from swin_dense.engine.train import TrainOptions, train

MASK_RCNN = "mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py"
UPERNET = "upernet/upernet_swin_t_p4_w7_8xb2_160k_ade20k_512x512.py"
MMDET_SWIN = "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py"
MMSEG_SWIN = "mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py"

SMALL_SWIN = {
    "model.backbone.embed_dims": 24,
    "model.backbone.depths": [2, 2, 2, 2],
    "model.backbone.num_heads": [1, 2, 3, 4],
}
SMALL_SWIN_CHANNELS = [24, 48, 96, 192]

SPLITS = ("train", "val", "test")


class LossRecorder(Hook):
    """Keeps the losses of every iteration; seeds torch before each, so that runs compare."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        torch.manual_seed(runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.losses.append({name: float(value) for name, value in outputs.items()})


def coco_options(root: Path, *, short_side: int = 160, images: int = 0) -> dict[str, Any]:
    """Options that point a detection config at ``root`` and make its images and heads small."""
    options: dict[str, Any] = {
        "model.backbone.init_cfg": None,
        "model.train_cfg.rcnn.sampler.num": 32,
        "model.train_cfg.rpn_proposal.max_per_img": 100,
        "model.test_cfg.rpn.max_per_img": 100,
        "model.test_cfg.rcnn.score_thr": 0.0,
        "model.neck.out_channels": 32,
        "model.rpn_head.in_channels": 32,
        "model.rpn_head.feat_channels": 32,
        "model.roi_head.bbox_roi_extractor.out_channels": 32,
        "model.roi_head.mask_roi_extractor.out_channels": 32,
        "model.roi_head.bbox_head.in_channels": 32,
        "model.roi_head.bbox_head.fc_out_channels": 64,
        "model.roi_head.mask_head.in_channels": 32,
        "model.roi_head.mask_head.conv_out_channels": 32,
    }
    for split in SPLITS:
        options[f"{split}_dataloader.dataset.data_root"] = f"{root}/"
        options[f"{split}_dataloader.num_workers"] = 0
        options[f"{split}_dataloader.persistent_workers"] = False
        if images:
            options[f"{split}_dataloader.dataset.indices"] = images
        if split != "train":
            options[f"{split}_evaluator.ann_file"] = f"{root}/annotations/instances_val2017.json"
            options[f"{split}_dataloader.dataset.pipeline.1.scale"] = (2 * short_side, short_side)
    options["train_dataloader.dataset.pipeline"] = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="Resize", scale=(2 * short_side, short_side), keep_ratio=True),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PackDetInputs"),
    ]
    return options


def semantic_options(root: Path, *, crop: int = 64) -> dict[str, Any]:
    """Options that point a segmentation config at ``root`` and make its crops and heads small."""
    options: dict[str, Any] = {
        "model.backbone.init_cfg": None,
        "model.data_preprocessor.size": (crop, crop),
        "model.decode_head.channels": 32,
        "model.auxiliary_head.channels": 32,
    }
    for split in SPLITS:
        options[f"{split}_dataloader.dataset.data_root"] = str(root)
        options[f"{split}_dataloader.num_workers"] = 0
        options[f"{split}_dataloader.persistent_workers"] = False
    options["train_dataloader.dataset.pipeline.2.scale"] = (4 * crop, crop)
    options["train_dataloader.dataset.pipeline.3.crop_size"] = (crop, crop)
    for split in ("val", "test"):
        options[f"{split}_dataloader.dataset.pipeline.1.scale"] = (4 * crop, crop)
    return options


def small_swin(host: str) -> dict[str, Any]:
    """Options that put a small Swin under the heads of a config of ``host``."""
    channels = SMALL_SWIN_CHANNELS
    if host == "mmdet":
        return SMALL_SWIN | {"model.neck.in_channels": channels}
    return SMALL_SWIN | {
        "model.decode_head.in_channels": channels,
        "model.auxiliary_head.in_channels": channels[2],
    }


def as_flags(options: dict[str, Any]) -> list[str]:
    """Return options as they are typed on a command line."""
    return ["--cfg-options", *(f"{key}={value}" for key, value in options.items())]


def load(name: str, options: dict[str, Any], work_dir: Path) -> Config:
    """Load a config with ``options`` and a work dir."""
    cfg = load_config(name, options)
    cfg.work_dir = str(work_dir)
    return cfg


def run_epochs(cfg: Config, epochs: int, options: TrainOptions | None = None) -> Runner:
    """Train ``epochs`` epochs, logging every iteration, validating at the end."""
    cfg.train_cfg.max_epochs = epochs
    cfg.train_cfg.val_interval = epochs
    cfg.default_hooks.logger.interval = 1
    return train(cfg, options)


def run_iterations(cfg: Config, iterations: int, options: TrainOptions | None = None) -> Runner:
    """Train an iteration-based config ``iterations`` long, validating at the end."""
    cfg.train_cfg.max_iters = iterations
    cfg.train_cfg.val_interval = iterations
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.interval = iterations
    return train(cfg, options)
