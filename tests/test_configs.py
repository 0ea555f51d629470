"""Every shipped config builds, states its recipe, and reloads to itself."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import swin_dense
from swin_dense.engine.config import host_of, load_config, shipped_configs
from swin_dense.host.repairs import repair_hosts
from swin_dense.models.distillation import students
from tests import runs
from tests.published import RETINANET, SWIN_ROWS, Row, all_rows
from tests.published_pvt import PVT_ROWS

CONFIGS = sorted(
    path
    for path in shipped_configs().rglob("*.py")
    if "_base_" not in path.relative_to(shipped_configs()).parts
)


BACKBONES = {
    "deit": "VisionTransformer",
    "focal": "FocalTransformer",
    "pvt": "PVT",
    "pvtv2": "PVTv2",
    "scalablevit": "ScalableViT",
    "swin": "SwinTransformer",
    "swinv2": "SwinTransformerV2",
    "timm": "TimmBackbone",
    "vit": "VisionTransformer",
    "vitdet": "VisionTransformer",
}
"""The class of backbone, by its name in the name of a config."""


def name_of(path: Path) -> str:
    return str(path.relative_to(shipped_configs()))


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_the_model_builds_and_its_backbone_fits_the_neck(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repair_hosts()
    if "_timm_" in path.stem and importlib.util.find_spec("timm") is None:
        pytest.skip("no timm here: run `make setup`, or pip install --no-deps timm")
    cfg = load_config(path)
    if host_of(cfg) == "mmdet":
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules
    else:
        from mmseg.registry import MODELS
        from mmseg.utils import register_all_modules
    register_all_modules(init_default_scope=True)
    # the weights of a teacher are the user's
    monkeypatch.setattr(students, "build_teacher", lambda cfg, checkpoint: MODELS.build(cfg))
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    plain = cfg.model.get("student", cfg.model)
    (kind,) = (kind for tag, kind in BACKBONES.items() if f"_{tag}_" in path.stem)
    assert type(model.backbone) is getattr(swin_dense, kind)
    reader = plain.neck if "neck" in plain else plain.decode_head
    assert tuple(reader.in_channels) == model.backbone.out_channels


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_dumps_and_reloads_to_itself(path: Path, tmp_path: Path) -> None:
    cfg = load_config(path)
    cfg.dump(tmp_path / "whole.py")
    assert Config.fromfile(tmp_path / "whole.py").to_dict() == cfg.to_dict()


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_leaf_opens_with_its_command_and_names_no_hyphen(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert name_of(path) in lines[0] or "make demo" in lines[0]
    assert "-" not in path.stem


@pytest.mark.parametrize(
    ("host_config", "our_config"),
    [
        (runs.MMDET_SWIN, runs.MASK_RCNN),
        (runs.MMSEG_SWIN, runs.UPERNET),
        ("mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py", RETINANET.config),
    ],
)
def test_our_recipe_has_the_hosts_models_outside_the_backbone(
    host_config: str, our_config: str
) -> None:
    theirs, ours = load_config(host_config).model, load_config(our_config).model
    for part in set(theirs) | set(ours):
        if part in ("backbone", "data_preprocessor", "pretrained"):
            continue
        want = theirs[part].to_dict() if hasattr(theirs[part], "to_dict") else theirs[part]
        got = ours[part].to_dict() if hasattr(ours[part], "to_dict") else ours[part]
        assert got == want, part


MILESTONES = {"1x": (12, [8, 11]), "3x": (36, [27, 33])}


def test_every_recipe_is_in_the_table_of_published_rows() -> None:
    ours = ("sample", "swinv2", "timm", "_from_")
    recipes = {name_of(path) for path in CONFIGS if not any(word in path.stem for word in ours)}
    assert recipes == {row.config for row in all_rows()}
    assert len(recipes) == len(all_rows())


@pytest.mark.parametrize("size", ["t", "s", "b"])
@pytest.mark.parametrize(
    ("v2", "v1"),
    [
        ("mask_rcnn/mask_rcnn_swinv2_{}_p4_w8_fpn_3x_coco.py", "3x"),
        ("upernet/upernet_swinv2_{}_p4_w8_8xb2_160k_ade20k_512x512.py", "160k"),
    ],
)
def test_a_v2_counterpart_differs_from_its_v1_recipe_in_the_backbone_alone(
    v2: str, v1: str, size: str
) -> None:
    cfg, base = (
        load_config(v2.format(size)),
        load_config(runs.MASK_RCNN if v1 == "3x" else runs.UPERNET),
    )
    assert cfg.model.backbone.arch[0] == size
    assert (cfg.model.backbone.type, cfg.model.backbone.window_size) == (
        "swin_dense.SwinTransformerV2",
        8,
    )
    assert f"swinv2_{cfg.model.backbone.arch}_" in cfg.model.backbone.init_cfg.checkpoint
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    added = set(keys) - set(base.optim_wrapper.paramwise_cfg.custom_keys)
    assert added == {"cpb_mlp", "logit_scale"}
    assert all(keys[name].decay_mult == 0 for name in added)
    assert cfg.train_dataloader.to_dict() == base.train_dataloader.to_dict()
    assert cfg.optim_wrapper.optimizer == base.optim_wrapper.optimizer


@pytest.mark.parametrize("path", [path for path in CONFIGS if "_from_" in path.stem], ids=name_of)
def test_student_and_teacher_are_the_models_of_the_recipes_that_the_config_names(
    path: Path,
) -> None:
    cfg, lines = load_config(path), path.read_text()
    teacher, student = re.findall(r"^# (?:Test what is saved with )?(\S+/\S+\.py)\.", lines, re.M)
    taught, alone, other = cfg.model, load_config(student), load_config(teacher)
    assert taught.student == alone.model
    assert taught.teacher_checkpoint.startswith(f"work_dirs/{Path(teacher).stem}/")
    for part in set(taught.teacher) | set(other.model):
        got, want = taught.teacher[part], other.model[part]
        if part == "backbone":
            want = {key: value for key, value in want.items() if key != "init_cfg"}
        assert got == want, part
    for part in set(alone) - {"model"}:
        assert cfg[part] == alone[part], part
    length = other.train_cfg
    last = f"iter_{length.max_iters}" if "max_iters" in length else f"epoch_{length.max_epochs}"
    assert Path(taught.teacher_checkpoint).stem == last


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.config)
def test_a_leaf_names_its_published_result(row: Row) -> None:
    lines = (shipped_configs() / row.config).read_text().splitlines()
    header = " ".join(line.strip("# ") for line in lines if line.startswith("#"))
    assert row.result in header
    if row.macs is not None:
        assert re.search(rf"\({row.params}M( parameters)?, {row.macs}G FLOPs\)", header)
    elif row.params is not None:
        assert re.search(rf"\({row.params:.2f}M parameters\)", header)


@pytest.mark.parametrize("row", SWIN_ROWS, ids=lambda row: row.config)
def test_a_recipe_has_the_published_facts(row: Row) -> None:
    cfg = load_config(row.config)
    backbone = cfg.model.backbone
    assert (backbone.window_size, backbone.drop_path_rate) == (row.window, row.drop_path)
    optimizer, train = cfg.optim_wrapper.optimizer, cfg.train_cfg
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr == {"enable": False, "base_batch_size": 16}
    assert "clip_grad" not in cfg.optim_wrapper
    warm_up, then = cfg.param_scheduler
    if row == RETINANET:
        assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("SGD", 0.01, 1e-4)
        assert optimizer.momentum == 0.9
    else:
        rate, decay = (6e-5, 0.01) if row.length == "160k" else (1e-4, 0.05)
        assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", rate, decay)
        assert tuple(optimizer.betas) == (0.9, 0.999)
    if row.length == "160k":
        crop = int(row.config[-6:-3])
        scale = (4 * crop, crop)
        assert (train.type, train.max_iters) == ("IterBasedTrainLoop", 160_000)
        assert (warm_up.type, warm_up.start_factor) == ("LinearLR", 1e-6)
        assert (then.type, then.power, then.eta_min) == ("PolyLR", 1.0, 0.0)
        steps = cfg.train_dataloader.dataset.pipeline
        assert (steps[2].scale, steps[2].ratio_range) == (scale, (0.5, 2.0))
        assert steps[3].crop_size == cfg.model.data_preprocessor.size == (crop, crop)
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            assert loader.dataset.pipeline[1].scale == scale
        assert cfg.model.test_cfg == {"mode": "whole"}
    else:
        epochs, milestones = MILESTONES[row.length]
        assert train.max_epochs == epochs
        assert (warm_up.type, warm_up.start_factor) == ("LinearLR", 0.001)
        assert (then.milestones, then.gamma, then.end) == (milestones, 0.1, epochs)


@pytest.mark.parametrize("row", [row for row in SWIN_ROWS if row.length != "160k"], ids=str)
def test_coco_recipes_train_on_the_published_augmentation(row: Row) -> None:
    steps = load_config(row.config).train_dataloader.dataset.pipeline
    assert steps[1].get("with_mask", False) == (row != RETINANET)
    if row == RETINANET:
        assert steps[2] == {"type": "Resize", "scale": (1333, 800), "keep_ratio": True}
        return
    resize = steps[3].transforms
    for part in (resize[0][0], resize[1][2]):
        assert part.scales == [(side, 1333) for side in range(480, 801, 32)]
    assert [scale[0] for scale in resize[1][0].scales] == [400, 500, 600]
    assert resize[1][1].crop_size == (384, 600)


@pytest.mark.parametrize("row", SWIN_ROWS, ids=lambda row: row.config)
def test_weights_have_the_window_the_width_and_the_data_that_the_name_says(row: Row) -> None:
    backbone = load_config(row.config).model.backbone
    weights = backbone.init_cfg.checkpoint
    if "_moby_" in row.config:
        assert weights.startswith("checkpoints/moby_swin_t")
        return
    pixels = 384 if row.window == 12 else 224
    data = "_22k" if "_in22k_" in row.config else ""
    assert weights == (
        "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
        f"swin_{backbone.arch}_patch4_window{row.window}_{pixels}{data}.pth"
    )
    assert f"_swin_{backbone.arch[0]}_" in row.config


def test_cascade_heads_are_the_official_ones() -> None:
    model = load_config("cascade_mask_rcnn/cascade_mask_rcnn_swin_t_p4_w7_fpn_3x_coco.py").model
    heads = model.roi_head.bbox_head
    stds = [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
    assert [head.bbox_coder.target_stds for head in heads] == stds
    for head in heads:
        assert (head.type, head.num_shared_convs, head.num_shared_fcs) == ("ConvFCBBoxHead", 4, 1)
        assert head.norm_cfg.type == "SyncBN"
        assert head.loss_bbox == {"type": "GIoULoss", "loss_weight": 10.0}
        assert head.reg_decoded_bbox
        assert not head.reg_class_agnostic
    assert [stage.assigner.pos_iou_thr for stage in model.train_cfg.rcnn] == [0.5, 0.6, 0.7]
    assert not any(stage.assigner.match_low_quality for stage in model.train_cfg.rcnn)
    assert model.rpn_head.loss_bbox == {"type": "SmoothL1Loss", "beta": 1 / 9, "loss_weight": 1.0}


@pytest.mark.parametrize("row", PVT_ROWS, ids=lambda row: row.config)
def test_a_pvt_recipe_has_the_published_facts(row: Row) -> None:
    cfg = load_config(row.config)
    backbone, optimizer = cfg.model.backbone, cfg.optim_wrapper.optimizer
    weights = backbone.init_cfg.checkpoint.removesuffix(".pth")
    assert weights.startswith("https://github.com/whai362/PVT/releases/download/v2/pvt_")
    assert weights.endswith(f"_{backbone.arch}")
    assert ("_v2_" in weights) == ("pvtv2_" in row.config) == (backbone.type == "swin_dense.PVTv2")
    name = f"pvtv2_{backbone.arch}_" if "_v2_" in weights else f"pvt_{backbone.arch[0]}_"
    assert name in row.config
    assert backbone.drop_path_rate == row.drop_path
    assert optimizer.type == "AdamW"
    assert "clip_grad" not in cfg.optim_wrapper
    if row.length == "3x":
        base = load_config(row.config.replace(name, "swin_t_p4_w7_"))
        for part in ("optim_wrapper", "param_scheduler", "train_cfg", "train_dataloader"):
            assert cfg[part] == base[part], part
        return
    assert "paramwise_cfg" not in cfg.optim_wrapper
    assert optimizer.weight_decay == 1e-4
    if row.length == "40k":
        assert (optimizer.lr, cfg.train_cfg.max_iters) == (2e-4, 40_000)
        (decay,) = cfg.param_scheduler
        assert (decay.type, decay.power, decay.eta_min) == ("PolyLR", 0.9, 0.0)
        assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (4, 32)
        assert cfg.val_dataloader.dataset.pipeline[2] == {
            "type": "ResizeToMultiple", "size_divisor": 32
        }  # fmt: skip
        return
    rate = 2e-4 if "mask_rcnn" in row.config else 1e-4
    halved = backbone.arch in ("b4", "b5") or row.config.startswith("mask_rcnn/mask_rcnn_pvt_l")
    assert optimizer.lr == pytest.approx(rate / 1.4 if halved else rate)
    assert cfg.train_dataloader.batch_size == (1 if halved else 2)
    assert cfg.auto_scale_lr.base_batch_size == (8 if halved else 16)
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.start_factor, warm_up.end) == (0.001, 501)
    assert (steps.milestones, steps.end, cfg.train_cfg.max_epochs) == ([8, 11], 12, 12)
    resize = cfg.train_dataloader.dataset.pipeline[2]
    assert resize == {"type": "Resize", "scale": (1333, 800), "keep_ratio": True}


def test_our_pvt_recipe_has_mmdets_model_outside_the_backbone() -> None:
    theirs = load_config("mmdet::pvt/retinanet_pvtv2-b0_fpn_1x_coco.py").model
    ours = load_config("retinanet/retinanet_pvtv2_b0_fpn_1x_coco.py").model
    for part in ("bbox_head", "train_cfg", "test_cfg"):
        assert ours[part].to_dict() == theirs[part].to_dict(), part
    assert ours.neck.to_dict() == {**theirs.neck.to_dict(), "start_level": 1}
