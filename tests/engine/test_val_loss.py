"""Losses on the validation images: right by hand, the same again, no trace of them in training."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from swin_dense.engine.session import build_runner
from swin_dense.engine.test import TestOptions
from swin_dense.engine.test import test as evaluate
from swin_dense.engine.train import TrainOptions, train
from swin_dense.engine.val_loss import twin_of
from swin_dense.errors import UserError
from tests import runs

CROWDED = 3
"""Images of the detection set: one of them has a crowd, and another nothing at all."""


def crowded_set(shared_data: Path, folder: Path) -> Path:
    """Write three validation photographs: one as it is, one with a crowd, one without objects."""
    whole = json.loads((shared_data / "coco_mini/annotations/instances_val2017.json").read_text())
    counts: dict[int, int] = {}
    for annotation in whole["annotations"]:
        counts[annotation["image_id"]] = counts.get(annotation["image_id"], 0) + 1
    plain, crowded, empty = sorted(counts, key=lambda image: counts[image])[-CROWDED:]
    whole["images"] = [image for image in whole["images"] if image["id"] in (plain, crowded, empty)]
    whole["annotations"] = [
        annotation for annotation in whole["annotations"] if annotation["image_id"] != empty
    ]
    next(a for a in whole["annotations"] if a["image_id"] == crowded)["iscrowd"] = 1
    path = folder / "crowded.json"
    path.write_text(json.dumps(whole))
    return path


def config(host: str, shared_data: Path, work_dir: Path, **options: Any) -> Any:
    """A small Mask R-CNN on :func:`crowded_set`, or a small UperNet on ``ade_mini``."""
    if host == "mmdet":
        chosen = runs.coco_options(shared_data / "coco_mini", short_side=128, images=4)
        work_dir.mkdir(parents=True, exist_ok=True)
        annotations = str(crowded_set(shared_data, work_dir))
        for split in ("val", "test"):
            chosen[f"{split}_dataloader.dataset.ann_file"] = annotations
            chosen[f"{split}_evaluator.ann_file"] = annotations
            chosen[f"{split}_dataloader.dataset.indices"] = None
        chosen["val_dataloader.batch_size"] = 2
    else:
        chosen = runs.semantic_options(shared_data / "ade_mini", crop=64)
    chosen |= runs.small_swin(host)
    name = runs.MASK_RCNN if host == "mmdet" else runs.UPERNET
    return runs.load(name, chosen | options, work_dir)


def untrained(cfg: Any, path: Path) -> Any:
    """Save random weights for ``cfg``; return its model with them."""
    model = build_runner(cfg, splits=()).model
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return model


def by_hand(truth: InstanceData, width_scale: float, height_scale: float) -> InstanceData:
    """Bring annotations from the photograph's pixels to the input's."""
    boxes = truth.bboxes.tensor.clone()
    boxes[:, 0::2] *= width_scale
    boxes[:, 1::2] *= height_scale
    masks = truth.masks
    height, width = round(masks.height * height_scale), round(masks.width * width_scale)
    smaller = [
        cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) for mask in masks.masks
    ]
    return InstanceData(
        bboxes=boxes, labels=truth.labels, masks=type(masks)(smaller, height, width)
    )


def losses_by_hand(cfg: Any, model: Any) -> dict[str, float]:
    """Mean losses of the model on what the test pipeline gives, annotations scaled here."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    model.eval()
    totals: dict[str, list[float]] = {}
    for index in range(len(dataset)):
        packed = dataset[index]
        sample = packed["data_samples"]
        if cfg.default_scope == "mmdet":
            width_scale, height_scale = sample.scale_factor
            for field in ("gt_instances", "ignored_instances"):
                setattr(sample, field, by_hand(sample.get(field), width_scale, height_scale))
        else:
            height, width = packed["inputs"].shape[1:]
            labels = sample.gt_sem_seg.data[0].numpy().astype(np.uint8)
            assert labels.shape == sample.ori_shape != (height, width)
            labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
            sample.gt_sem_seg = PixelData(data=torch.from_numpy(labels)[None].long())
        data = model.data_preprocessor(dict(inputs=[packed["inputs"]], data_samples=[sample]))
        torch.manual_seed(0)
        np.random.seed(0)
        with torch.no_grad():
            losses = model.loss(data["inputs"], data["data_samples"])
        parts = {
            name: sum(float(one.mean()) for one in (value if isinstance(value, list) else [value]))
            for name, value in losses.items()
        }
        parts["loss"] = sum(value for name, value in parts.items() if "loss" in name)
        for name, value in parts.items():
            totals.setdefault(name, []).append(value)
    return {f"val/{name}": sum(values) / len(dataset) for name, values in totals.items()}


@pytest.mark.parametrize("host", ["mmdet", "mmseg"])
def test_the_losses_are_those_of_annotations_scaled_by_hand_and_the_same_again(
    host: str, shared_data: Path, tmp_path: Path
) -> None:
    made = config(host, shared_data, tmp_path / "made")
    model = untrained(made, tmp_path / "random.pth")
    expected = losses_by_hand(made, model)
    measured = []
    for run in "ab":
        cfg = config(host, shared_data, tmp_path / run)
        torch.manual_seed(ord(run))
        options = TestOptions(val_loss=True, report=False)
        measured.append(evaluate(cfg, tmp_path / "random.pth", options))
    first, again = measured
    found = {name: value for name, value in first.items() if name.startswith("val/")}
    assert found == pytest.approx(expected, rel=1e-5)
    assert found == {name: again[name] for name in found}
    parts = [value for name, value in found.items() if "loss_" in name]
    assert found["val/loss"] == pytest.approx(sum(parts), rel=1e-6)
    if host == "mmdet":
        assert {"val/loss_rpn_bbox", "val/loss_cls", "val/loss_mask", "val/acc"} <= set(found)
    else:
        assert {"val/decode.loss_ce", "val/aux.loss_ce", "val/decode.acc_seg"} <= set(found)
    assert json.loads((tmp_path / "b" / "metrics.json").read_text()) == again


class Trace(Hook):
    """Keeps the random numbers and the model's mode at each training iteration."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Look, and draw nothing."""
        self.seen.append(
            (
                torch.get_rng_state().sum().item(),
                int(np.random.get_state()[1].astype(np.int64).sum()),  # type: ignore[index]
                hash(random.getstate()),
                runner.model.training,
            )
        )


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Trace]:
    """Every training of the test has a :class:`Trace`, which comes into this list."""
    traces: list[Trace] = []

    def build(*args: Any, **options: Any) -> Any:
        runner = build_runner(*args, **options)
        traces.append(Trace())
        runner.register_hook(traces[-1])
        return runner

    monkeypatch.setattr("swin_dense.engine.train.build_runner", build)
    return traces


@pytest.mark.parametrize("host", ["mmdet", "mmseg"])
def test_training_goes_the_same_way_to_the_last_bit_with_and_without(
    host: str, shared_data: Path, tmp_path: Path, watched: list[Trace]
) -> None:
    weights = []
    for asked in (False, True):
        cfg = config(host, shared_data, tmp_path / str(asked))
        if host == "mmdet":
            cfg.train_cfg.max_epochs = 3
            cfg.default_hooks.checkpoint.interval = 3
        else:
            cfg.train_cfg.update(max_iters=3, val_interval=1)
            cfg.default_hooks.checkpoint.interval = 3
        cfg.param_scheduler = []
        cfg.default_hooks.logger.interval = 1
        if asked:
            cfg.default_hooks.checkpoint.save_best = "val/loss"
        runner = train(cfg, TrainOptions(seed=1, val_loss=asked))
        weights.append({name: value.clone() for name, value in runner.model.state_dict().items()})
    plain, with_losses = watched
    assert len(plain.seen) >= 3
    assert plain.seen == with_losses.seen
    assert all(training for *_, training in plain.seen)
    for name, value in weights[0].items():
        assert torch.equal(weights[1][name], value), name

    log = runs_log(tmp_path / "True")
    logged = [line for line in log if "val/loss" in line]
    history = runner.message_hub.log_scalars["val/val/loss"].data[0].tolist()
    assert len(set(history)) == 3
    # what was measured then, not a mean over the last validations
    assert [line["val/loss"] for line in logged] == pytest.approx(history, rel=1e-12)
    metric = "coco/bbox_mAP" if host == "mmdet" else "mIoU"
    assert all(metric in line for line in logged)
    assert not [line for line in runs_log(tmp_path / "False") if "val/loss" in line]
    best = 1 + int(np.argmin(history))
    unit = "epoch" if host == "mmdet" else "iter"
    assert [path.name for path in (tmp_path / "True").glob("best_*")] == [
        f"best_val_loss_{unit}_{best}.pth"
    ]


def runs_log(work_dir: Path) -> list[dict[str, Any]]:
    """Every line that the run in ``work_dir`` logged."""
    (file,) = work_dir.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in file.read_text().splitlines()]


def refused(cfg: Any, match: str) -> None:
    """Expect a training with ``--val-loss`` to be refused before its first iteration."""
    with pytest.raises(UserError, match=match):
        train(cfg, TrainOptions(val_loss=True))
    assert not list(Path(cfg.work_dir).glob("*/vis_data/scalars.json"))


def test_validation_data_without_annotations_is_refused_at_the_start(
    shared_data: Path, tmp_path: Path
) -> None:
    cfg = config("mmdet", shared_data, tmp_path / "pipeline")
    del cfg.val_dataloader.dataset.pipeline[2]
    refused(cfg, "pipeline of val_dataloader loads no annotations")

    cfg = config("mmdet", shared_data, tmp_path / "kept_back")
    annotations = Path(cfg.val_dataloader.dataset.ann_file)
    content = json.loads(annotations.read_text()) | dict(annotations=[])
    annotations.write_text(json.dumps(content))
    refused(cfg, "no image of val_dataloader has annotations")

    cfg = config("mmdet", shared_data, tmp_path / "boxes")
    cfg.val_dataloader.dataset.pipeline[2].with_mask = False
    refused(cfg, "has a mask head, and the pipeline of val_dataloader loads no masks")


def test_a_model_without_losses_in_evaluation_mode_is_refused_with_the_reason(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmseg.models import EncoderDecoder

    def fail(self: Any, inputs: Any, data_samples: Any) -> None:
        raise RuntimeError("no auxiliary output outside training")

    monkeypatch.setattr(EncoderDecoder, "loss", fail)
    cfg = config("mmseg", shared_data, tmp_path)
    refused(cfg, "EncoderDecoder gave no losses .*no auxiliary output outside training")


def test_options_that_do_not_fit_are_refused(shared_data: Path, tmp_path: Path) -> None:
    cfg = config("mmseg", shared_data, tmp_path / "a", val_loss="often")
    with pytest.raises(UserError, match="val_loss='often' in the config; expected True or False"):
        train(cfg)
    cfg = config("mmseg", shared_data, tmp_path / "b")
    cfg.default_hooks.checkpoint.save_best = "val/loss"
    with pytest.raises(UserError, match="'val/loss' is computed under --val-loss"):
        train(cfg)
    cfg = config("mmseg", shared_data, tmp_path / "c")
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    refused(cfg, "needs a validation to go with")
    untrained(config("mmseg", shared_data, tmp_path / "d"), tmp_path / "random.pth")
    cfg = config("mmseg", shared_data, tmp_path / "d")
    with pytest.raises(UserError, match="a loss has no views to merge"):
        evaluate(cfg, tmp_path / "random.pth", TestOptions(tta=True, val_loss=True))


@pytest.mark.parametrize(
    ("name", "small"),
    [
        (
            "cascade_mask_rcnn/cascade_mask_rcnn_swin_t_p4_w7_fpn_3x_coco.py",
            runs.small_swin("mmdet")
            | {f"model.train_cfg.rcnn.{stage}.sampler.num": 16 for stage in range(3)}
            | {
                "model.train_cfg.rpn_proposal.max_per_img": 50,
                "model.test_cfg.rpn.max_per_img": 50,
                "model.test_cfg.rcnn.score_thr": 0.5,
            },
        ),
        (
            "retinanet/retinanet_swin_t_p4_w7_fpn_1x_coco.py",
            runs.SMALL_SWIN | {"model.neck.in_channels": runs.SMALL_SWIN_CHANNELS[1:]},
        ),
        ("sem_fpn/fpn_pvt_t_8xb4_40k_ade20k_512x512.py", {}),
        ("mmdet::atss/atss_r50_fpn_1x_coco.py", {}),
    ],
)
def test_relatives_report_the_losses_that_their_training_reports(
    name: str, small: dict[str, Any], shared_data: Path, tmp_path: Path
) -> None:
    if name.startswith("sem_fpn"):
        options = runs.semantic_options(shared_data / "ade_mini", crop=64)
    else:
        options = runs.coco_options(shared_data / "coco_mini", short_side=96, images=2)
        options["train_dataloader.dataset.pipeline"][1]["with_mask"] = "mask_rcnn" in name
    heads = ("model.neck.", "model.rpn", "model.roi", "model.train", "model.test", "model.decode")
    options = {key: value for key, value in options.items() if not key.startswith(heads)}
    options.pop("model.auxiliary_head.channels", None)
    cfg = runs.load(name, options | small, tmp_path)
    run = runs.run_iterations if name.startswith("sem_fpn") else runs.run_epochs
    cfg.default_hooks.checkpoint = dict(
        type="CheckpointHook", by_epoch=False, interval=10, save_last=False
    )
    run(cfg, 1, TrainOptions(val_loss=True))
    first, *_, last = runs_log(tmp_path)
    kept = {name for name in first if "loss" in name or name.endswith(("acc", "acc_seg"))}
    assert len(kept) > 1
    assert {name for name in last if name.startswith("val/")} == {f"val/{name}" for name in kept}
    parts = [value for name, value in last.items() if name.startswith("val/") and "loss_" in name]
    assert last["val/loss"] == pytest.approx(sum(parts), rel=1e-6)


def test_a_student_reports_its_distillation_loss_and_shares_its_teachers_weights(
    shared_data: Path, tmp_path: Path
) -> None:
    cfg = config("mmseg", shared_data, tmp_path / "run")
    untrained(config("mmseg", shared_data, tmp_path / "made"), tmp_path / "teacher.pth")
    plain = cfg.model.to_dict()
    cfg.model = dict(
        type="swin_dense.DistilledSegmentor",
        student=plain,
        teacher=plain,
        teacher_checkpoint=str(tmp_path / "teacher.pth"),
    )
    cfg.default_hooks.checkpoint = dict(type="CheckpointHook", by_epoch=False, save_last=False)
    runner = runs.run_iterations(cfg, 1, TrainOptions(val_loss=True))
    (line,) = (line for line in runs_log(tmp_path / "run") if "val/loss" in line)
    parts = [value for name, value in line.items() if name.startswith("val/") and "loss_" in name]
    assert line["val/decode.loss_distill"] > 0
    assert line["val/loss"] == pytest.approx(sum(parts), rel=1e-6)
    own = {id(parameter) for parameter in runner.model.teacher.parameters()}
    assert {id(parameter) for parameter in twin_of(runner.model).teacher.parameters()} == own  # type: ignore[union-attr]
