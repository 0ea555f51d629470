"""Every shipped config builds, states its recipe, and reloads to itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import swin_dense
from swin_dense.engine.config import host_of, load_config, shipped_configs
from swin_dense.host.repairs import repair_hosts
from tests import runs

CONFIGS = sorted(
    path
    for path in shipped_configs().rglob("*.py")
    if "_base_" not in path.relative_to(shipped_configs()).parts
)


def name_of(path: Path) -> str:
    return str(path.relative_to(shipped_configs()))


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_the_model_builds_and_its_backbone_fits_the_neck(path: Path) -> None:
    repair_hosts()
    cfg = load_config(path)
    if host_of(cfg) == "mmdet":
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules
    else:
        from mmseg.registry import MODELS
        from mmseg.utils import register_all_modules
    register_all_modules(init_default_scope=True)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert isinstance(model.backbone, swin_dense.SwinTransformer)
    reader = cfg.model.neck if "neck" in cfg.model else cfg.model.decode_head
    assert tuple(reader.in_channels) == model.backbone.out_channels


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_dumps_and_reloads_to_itself(path: Path, tmp_path: Path) -> None:
    cfg = load_config(path)
    cfg.dump(tmp_path / "whole.py")
    assert Config.fromfile(tmp_path / "whole.py").pretty_text == cfg.pretty_text


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_leaf_opens_with_its_command_and_names_no_hyphen(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert name_of(path) in lines[0] or "make demo" in lines[0]
    assert "-" not in path.stem


@pytest.mark.parametrize("host_config", [runs.MMDET_SWIN, runs.MMSEG_SWIN])
def test_our_recipe_has_the_hosts_models_outside_the_backbone(host_config: str) -> None:
    theirs = load_config(host_config).model
    ours = load_config(runs.MASK_RCNN if "mmdet" in host_config else runs.UPERNET).model
    for part in set(theirs) | set(ours):
        if part in ("backbone", "data_preprocessor", "pretrained"):
            continue
        want = theirs[part].to_dict() if hasattr(theirs[part], "to_dict") else theirs[part]
        got = ours[part].to_dict() if hasattr(ours[part], "to_dict") else ours[part]
        assert got == want, part


@pytest.mark.parametrize(
    ("name", "drop_path", "epochs", "milestones"),
    [("1x", 0.1, 12, [8, 11]), ("3x", 0.2, 36, [27, 33])],
)
def test_the_coco_recipes_are_the_published_ones(
    name: str, drop_path: float, epochs: int, milestones: list[int]
) -> None:
    cfg = load_config(f"mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_{name}_coco.py")
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert cfg.train_cfg.max_epochs == epochs
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.start_factor, warm_up.end) == (0.001, 500)
    assert (steps.milestones, steps.gamma) == (milestones, 0.1)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.05)
    assert tuple(optimizer.betas) == (0.9, 0.999)
    resize = cfg.train_dataloader.dataset.pipeline[3].transforms
    assert [scale[0] for scale in resize[0][0].scales] == list(range(480, 801, 32))
    assert resize[1][1].crop_size == (384, 600)
