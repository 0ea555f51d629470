"""Small detectors and segmenters with random weights, which predict in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from swin_dense.engine.config import load_config
from swin_dense.inference.predictor import Predictor

MASK_RCNN = "mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py"
UPERNET = "upernet/upernet_swin_t_p4_w7_8xb2_160k_ade20k_512x512.py"
BACKBONE = dict(
    type="swin_dense.SwinTransformer",
    embed_dims=16,
    depths=(1, 1, 1, 1),
    num_heads=(1, 2, 4, 8),
    drop_path_rate=0.0,
)
WIDTHS = [16, 32, 64, 128]


def small_detector(data: Path | None = None, **changes: Any) -> Config:
    """Return a Mask R-CNN config for pictures of about 128 pixels; ``data`` is a COCO folder."""
    cfg = load_config(MASK_RCNN)
    cfg.model.backbone = BACKBONE
    cfg.model.neck.in_channels = WIDTHS
    cfg.model.roi_head.bbox_head.fc_out_channels = 32
    cfg.model.roi_head.mask_head.num_convs = 1
    cfg.model.test_cfg.rpn.max_per_img = 50
    cfg.model.test_cfg.rcnn.score_thr = 0.005  # random weights spread their scores over 81 classes
    cfg.model.test_cfg.rcnn.max_per_img = 20
    for split in ("val", "test"):
        cfg[f"{split}_dataloader"].dataset.pipeline[1].scale = (160, 128)
    return _with_data(cfg, f"{data}/" if data else None, changes)


def small_segmenter(data: Path | None = None, **changes: Any) -> Config:
    """Return an UperNet config for pictures of about 64 pixels; ``data`` is an ADE20K folder."""
    cfg = load_config(UPERNET)
    cfg.model.backbone = BACKBONE
    cfg.model.decode_head.in_channels = WIDTHS
    cfg.model.decode_head.channels = 16
    cfg.model.auxiliary_head.in_channels = WIDTHS[2]
    cfg.model.auxiliary_head.channels = 16
    for split in ("val", "test"):
        cfg[f"{split}_dataloader"].dataset.pipeline[1].scale = (256, 64)
    return _with_data(cfg, str(data) if data else None, changes)


def save_checkpoint(predictor: Predictor, path: Path, **meta: Any) -> Path:
    """Write a predictor's weights as a run does."""
    torch.save(dict(state_dict=predictor.model.state_dict(), meta=meta), path)
    return path


def _with_data(cfg: Config, root: str | None, changes: dict[str, Any]) -> Config:
    if root is not None:
        for split in ("train", "val", "test"):
            cfg[f"{split}_dataloader"].dataset.data_root = root
    cfg.merge_from_dict(changes)
    return cfg
