"""Students with a frozen teacher: what they learn, what they save, what is refused."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS

from swin_dense.checkpoints.read import read_checkpoint
from swin_dense.cli.test import main as test_main
from swin_dense.cli.train import main as train_main
from swin_dense.engine.config import host_of
from swin_dense.engine.train import TrainOptions, train
from swin_dense.errors import UserError
from tests import runs


def segmenter(root: Path, work_dir: Path, iterations: int = 2) -> Any:
    options = runs.semantic_options(root / "ade_mini", crop=64) | runs.small_swin("mmseg")
    cfg = runs.load(runs.UPERNET, options, work_dir)
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.interval = 2
    cfg.default_hooks.checkpoint.pop("save_best")
    return cfg


def distilled(cfg: Any, checkpoint: Path, **options: Any) -> Any:
    plain = cfg.model.to_dict()
    cfg.model = ConfigDict(
        type="swin_dense.DistilledSegmentor",
        student=plain,
        teacher=plain,
        teacher_checkpoint=str(checkpoint),
        **options,
    )
    return cfg


def saved_weights(cfg: Any, path: Path) -> dict[str, Any]:
    """Write a teacher with random weights; return its state."""
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    state: dict[str, Any] = MODELS.build(cfg.model).state_dict()
    torch.save({"state_dict": state}, path)
    return state


def test_the_tools_train_resume_and_test_it_as_the_plain_student(
    shared_data: Path, tmp_path: Path
) -> None:
    plain = segmenter(shared_data, tmp_path / "plain")
    before = saved_weights(plain, tmp_path / "teacher.pth")
    config = tmp_path / "taught.py"
    distilled(segmenter(shared_data, tmp_path), tmp_path / "teacher.pth").dump(config)
    work = tmp_path / "work"
    assert train_main([str(config), "--work-dir", str(work)]) == 0
    saved = read_checkpoint(work / "iter_2.pth")
    assert list(saved["state_dict"]) == list(before)
    longer = ["--work-dir", str(work), "--resume", "--cfg-options", "train_cfg.max_iters=4"]
    assert train_main([str(config), *longer]) == 0
    again = read_checkpoint(work / "iter_4.pth")
    assert again["meta"]["iter"] == 4
    assert again["optimizer"]["state"][0]["step"].item() == 4
    plain.dump(tmp_path / "plain.py")
    arguments = [str(tmp_path / "plain.py"), str(work / "iter_4.pth"), "--no-report"]
    assert test_main([*arguments, "--work-dir", str(tmp_path / "tested")]) == 0


def test_the_teacher_stays_as_it_is_and_out_of_the_optimizer(
    shared_data: Path, tmp_path: Path
) -> None:
    cfg = segmenter(shared_data, tmp_path / "run")
    before = saved_weights(cfg, tmp_path / "teacher.pth")
    runner = train(distilled(cfg, tmp_path / "teacher.pth"), TrainOptions(seed=0))
    model = runner.model.train()
    teacher = model.teacher
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    optimized = {id(p) for g in runner.optim_wrapper.param_groups for p in g["params"]}
    assert optimized
    assert not optimized & {id(p) for p in teacher.parameters()}
    assert not any(name.startswith("teacher") for name, _ in model.named_modules())


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_student_equal_to_its_teacher_has_the_loss_that_this_means(
    kind: str, shared_data: Path, tmp_path: Path
) -> None:
    cfg = segmenter(shared_data, tmp_path)
    cfg.model.decode_head.dropout_ratio = 0.0
    cfg.model.backbone.drop_path_rate = 0.0
    state = saved_weights(cfg, tmp_path / "teacher.pth")
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    model = MODELS.build(distilled(cfg, tmp_path / "teacher.pth", kind=kind, alpha=0.25).model)
    model.load_state_dict(state)
    model.eval()
    sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 150, (1, 64, 64)))
    sample.gt_sem_seg.data[:, :, 32:] = 255
    images = torch.randn(1, 3, 64, 64)
    found = model.loss(images, [sample])
    logits = model.decode_head.forward(model.extract_feat(images))
    own = logits[:, :, :, :8].permute(0, 2, 3, 1).reshape(-1, 150)
    hard = -own.log_softmax(1).amax(1).mean()
    expected = 0.25 * hard if kind == "hard" else torch.zeros(())
    torch.testing.assert_close(found["decode.loss_distill"], expected, atol=1e-6, rtol=1e-5)
    plain = type(model).__bases__[1].loss(model, images, [sample])
    torch.testing.assert_close(found["decode.loss_ce"], 0.75 * plain["decode.loss_ce"])
    torch.testing.assert_close(found["aux.loss_ce"], plain["aux.loss_ce"])


def test_a_missing_teacher_checkpoint_ends_the_run_before_training(
    shared_data: Path, tmp_path: Path
) -> None:
    cfg = distilled(segmenter(shared_data, tmp_path / "run"), tmp_path / "none.pth")
    with pytest.raises(UserError, match="is not a file; expected the trained"):
        train(cfg)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [{"alpha": 2.0}, {"kind": "sofd"}, {"tau": 0.0}])
def test_options_out_of_range_are_refused(
    wrong: dict[str, Any], shared_data: Path, tmp_path: Path
) -> None:
    cfg = distilled(segmenter(shared_data, tmp_path), tmp_path / "none.pth", **wrong)
    with pytest.raises(UserError, match=next(iter(wrong))):
        MODELS.build(cfg.model)


def test_a_detector_learns_from_the_teachers_view_of_its_own_proposals(
    shared_data: Path, tmp_path: Path
) -> None:
    options = runs.coco_options(shared_data / "coco_mini") | runs.small_swin("mmdet")
    cfg = runs.load(runs.MASK_RCNN, options, tmp_path / "run")
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    plain = MODELS.build(cfg.model).state_dict()
    torch.save({"state_dict": plain}, tmp_path / "teacher.pth")
    student = cfg.model.to_dict()
    cfg.model = ConfigDict(
        type="swin_dense.DistilledDetector",
        student=student,
        teacher=student,
        teacher_checkpoint=str(tmp_path / "teacher.pth"),
        alpha=1.0,
    )
    model = MODELS.build(cfg.model)
    assert list(model.state_dict()) == list(plain)
    from mmdet.testing import demo_mm_inputs

    data = model.data_preprocessor(
        demo_mm_inputs(1, [[3, 128, 128]], num_classes=80, with_mask=True), True
    )
    model.eval()
    losses = model.loss(data["inputs"], data["data_samples"])
    assert losses["loss_cls"] == 0
    assert losses["loss_distill"] > 0
    losses["loss_distill"].backward()
    assert model.roi_head.bbox_head.fc_cls.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.teacher.parameters())
    model.load_state_dict(plain)
    same = model.loss(data["inputs"], data["data_samples"])
    torch.testing.assert_close(same["loss_distill"], torch.zeros(()), atol=1e-6, rtol=0)


def of_both(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a plain config for student and teacher of a taught one."""
    found = {key: value for key, value in options.items() if not key.startswith("model.")}
    for key in options.keys() - found.keys():
        for role in ("student", "teacher"):
            found[key.replace("model.", f"model.{role}.")] = options[key]
    return found


@pytest.mark.parametrize(
    "config",
    [
        "distillation/upernet_swin_t_from_swin_b_8xb2_160k_ade20k_512x512.py",
        "distillation/mask_rcnn_swin_t_from_swin_s_fpn_1x_coco.py",
    ],
)
def test_a_shipped_config_trains_a_student_on_a_wider_teacher(
    config: str, shared_data: Path, tmp_path: Path
) -> None:
    if "upernet" in config:
        options = runs.semantic_options(shared_data / "ade_mini") | runs.small_swin("mmseg")
        wider = {"decode_head.in_channels": [36, 72, 144, 288], "auxiliary_head.in_channels": 144}
    else:
        options = runs.coco_options(shared_data / "coco_mini") | runs.small_swin("mmdet")
        wider = {"neck.in_channels": [36, 72, 144, 288]}
    wider = {"backbone.embed_dims": 36, **wider}
    path = tmp_path / "teacher.pth"
    both = of_both(options) | {f"model.teacher.{key}": value for key, value in wider.items()}
    cfg = runs.load(config, both | {"model.teacher_checkpoint": str(path)}, tmp_path / "run")
    import_module(f"{host_of(cfg)}.utils").register_all_modules(init_default_scope=True)
    torch.save({"state_dict": MODELS.build(cfg.model.teacher).state_dict()}, path)
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.param_scheduler = []
    cfg.default_hooks.checkpoint = None
    losses: list[float] = []

    class Watch(Hook):
        def after_train_iter(self, runner: Any, batch_idx: int, *_: Any, **others: Any) -> None:
            (found,) = (v for k, v in others["outputs"].items() if k.endswith("loss_distill"))
            losses.append(found.item())

    HOOKS.register_module(name="WatchOfTheTeacher", module=Watch, force=True)
    cfg.custom_hooks = [dict(type="WatchOfTheTeacher")]
    model: Any = runs.train(cfg, TrainOptions(seed=0)).model
    assert type(model).__name__ in ("DistilledEncoderDecoder", "DistilledMaskRCNN")
    assert model.teacher.backbone.out_channels == (36, 72, 144, 288)
    assert model.backbone.out_channels == tuple(runs.SMALL_SWIN_CHANNELS)
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)
