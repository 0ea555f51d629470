"""A ViT's distillation token under a detector and a segmentor learns from an image classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.nn import functional

from swin_dense.engine.config import load_config
from swin_dense.errors import UserError
from swin_dense.host.repairs import repair_hosts
from swin_dense.registry import MODELS
from tests import runs

CLASSES, IMAGE = 7, (3, 64, 80)
VIT = dict(
    _delete_=True,
    type="swin_dense.VisionTransformer",
    embed_dims=16,
    num_layers=4,
    num_heads=2,
    out_indices=(0, 1, 2, 3),
    with_dist_token=True,
    final_norm=True,
)


class ColourClassifier(nn.Module):
    """Logits of an image's mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.mean((2, 3)))
        return logits


def student_config(host: str) -> Any:
    if host == "mmseg":
        cfg = load_config(runs.UPERNET).model
        cfg.decode_head.update(in_channels=[16] * 4, channels=16, norm_cfg=dict(type="BN"))
        cfg.auxiliary_head.update(in_channels=16, channels=16, norm_cfg=dict(type="BN"))
    else:
        cfg = load_config(runs.MASK_RCNN).model
        cfg.neck = dict(
            type="swin_dense.SimpleFeaturePyramid", in_channels=16, out_channels=256, num_outs=5
        )
    cfg.backbone = {key: value for key, value in VIT.items() if key != "_delete_"}
    return cfg


def batch(host: str) -> dict[str, Any]:
    repair_hosts()
    if host == "mmdet":
        from mmdet.testing import demo_mm_inputs

        made: dict[str, Any] = demo_mm_inputs(2, [IMAGE] * 2, num_classes=80, with_mask=True)
        return made
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=IMAGE[1:], ori_shape=IMAGE[1:]))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 150, (1, *IMAGE[1:])))
        samples.append(sample)
    images = [torch.randint(0, 256, IMAGE, dtype=torch.uint8) for _ in range(2)]
    return dict(inputs=images, data_samples=samples)


def build(host: str, tmp_path: Path, **options: Any) -> Any:
    MODELS.register_module(module=ColourClassifier, force=True)
    torch.save(ColourClassifier().state_dict(), tmp_path / "teacher.pth")
    with DefaultScope.overwrite_default_scope(host):
        return MODELS.build(
            dict(
                type="swin_dense.TokenDistilled",
                student=student_config(host),
                teacher=dict(type="swin_dense.ColourClassifier"),
                teacher_checkpoint=str(tmp_path / "teacher.pth"),
                num_classes=CLASSES,
            )
            | options
        )


def total_of(losses: dict[str, Any]) -> Tensor:
    parts = [value for key, value in losses.items() if "loss" in key]
    return sum((sum(part) if isinstance(part, list) else part for part in parts), torch.zeros(()))


@pytest.mark.parametrize("host", ["mmdet", "mmseg"])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_loss_is_the_one_of_the_paper(host: str, kind: str, tmp_path: Path) -> None:
    model = build(host, tmp_path, kind=kind, alpha=0.3, tau=2.0)
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    model.train()
    data = model.data_preprocessor(batch(host), True)
    torch.manual_seed(1)
    losses = model.loss(**data)
    plain_class = type(model).__bases__[1]
    torch.manual_seed(1)
    plain = plain_class.loss(model, data["inputs"], data["data_samples"])
    assert torch.allclose(
        total_of({k: v for k, v in losses.items() if k != "loss_distill"}), 0.7 * total_of(plain)
    )
    with torch.no_grad():
        token = model.backbone.maps_and_tokens(data["inputs"])[1][:, 1]
        own, theirs = model.backbone.head_dist(token), model.teacher(data["inputs"])
    if kind == "hard":
        expected = functional.cross_entropy(own, theirs.argmax(1))
    else:
        log_own, log_theirs = ((x / 2.0).log_softmax(1) for x in (own, theirs))
        expected = 4.0 * (log_theirs.exp() * (log_theirs - log_own)).sum(1).mean()
    assert torch.allclose(losses["loss_distill"], 0.3 * expected)
    losses["loss_distill"].backward()
    for parameter in (model.backbone.dist_token, model.backbone.head_dist.weight):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


@pytest.mark.parametrize("host", ["mmdet", "mmseg"])
def test_the_plain_student_takes_the_checkpoint_and_predicts_the_same(
    host: str, tmp_path: Path
) -> None:
    model = build(host, tmp_path).eval()
    state = model.state_dict()
    with DefaultScope.overwrite_default_scope(host):
        plain = MODELS.build(student_config(host)).eval()
    missing, unexpected = plain.load_state_dict(state, strict=False)
    assert missing == []
    assert unexpected == ["backbone.head_dist.weight", "backbone.head_dist.bias"]
    images = torch.randn(1, *IMAGE)
    with torch.no_grad():
        for ours, theirs in zip(
            model.extract_feat(images), plain.extract_feat(images), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"alpha` is 2"):
        build("mmseg", tmp_path, alpha=2)
    bare = student_config("mmseg")
    bare.backbone["with_dist_token"] = False
    with pytest.raises(UserError, match=r"no distillation token.*with_dist_token=True"):
        build("mmseg", tmp_path, student=bare)
    model = build("mmseg", tmp_path, num_classes=CLASSES + 1)
    data = model.data_preprocessor(batch("mmseg"), True)
    with pytest.raises(UserError, match=r"\(2, 7\).*\(2, 8\).*num_classes"):
        model.loss(**data)


def test_a_classifier_of_timm_teaches_with_its_own_file(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="run `make setup`")
    options = dict(
        type="swin_dense.TimmClassifier",
        model_name="resnet18",
        num_classes=CLASSES,
        channels=(8, 8, 16, 16),
    )
    teacher = MODELS.build(options)
    torch.save(teacher.state_dict(), tmp_path / "timm.pth")
    model = build("mmseg", tmp_path, teacher=options, teacher_checkpoint=str(tmp_path / "timm.pth"))
    data = model.data_preprocessor(batch("mmseg"), True)
    assert torch.equal(model.teacher(data["inputs"]), teacher.eval()(data["inputs"]))
    assert model.loss(**data)["loss_distill"] > 0
    with pytest.raises(UserError, match="resnet1888"):
        MODELS.build(dict(type="swin_dense.TimmClassifier", model_name="resnet1888"))
