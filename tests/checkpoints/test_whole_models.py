"""Whole detectors and segmentors: bodies are filled, rows of heads go by class name."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from swin_dense import UserError, load_pretrained
from swin_dense.checkpoints.families.swin import LAYOUTS
from swin_dense.checkpoints.heads import is_class_wise, map_rows
from tests.checkpoints.peers import official_state, v1
from tests.small import small_detector, small_segmenter

ANIMALS, MIXED = ("cat", "dog", "cow"), ("bus", "cow", "cat", "tram")


def build(cfg: Any) -> nn.Module:
    from mmdet.registry import MODELS

    from swin_dense.host.repairs import repair_hosts

    repair_hosts()
    init_default_scope(cfg.get("default_scope", "mmdet"))
    return MODELS.build(cfg.model)


def detector(num_classes: int) -> nn.Module:
    cfg = small_detector()
    cfg.model.roi_head.bbox_head.num_classes = num_classes
    cfg.model.roi_head.mask_head.num_classes = num_classes
    return build(cfg)


def segmenter(num_classes: int) -> nn.Module:
    cfg = small_segmenter()
    cfg.model.decode_head.num_classes = num_classes
    cfg.model.auxiliary_head.num_classes = num_classes
    cfg.model.pop("data_preprocessor", None)
    return build(cfg)


def saved(model: nn.Module, classes: tuple[str, ...] | None) -> dict[str, Any]:
    meta = {"dataset_meta": {"classes": classes}} if classes else {}
    return {"state_dict": model.state_dict(), "meta": meta}


def mm_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a whole model as mmdet's own backbone would write it."""
    backbone = {k[9:]: v for k, v in state.items() if k.startswith("backbone.")}
    renamed = LAYOUTS["mm"].from_official(backbone)
    rest = {k: v for k, v in state.items() if not k.startswith("backbone.")}
    return {**{f"backbone.{k}": v for k, v in renamed.items()}, **rest}


def test_rows_follow_class_names_by_hand() -> None:
    value, target = torch.arange(4.0) + 10, -torch.arange(5.0)
    mapped = map_rows("bbox_head.fc_cls.bias", value, target, ANIMALS, MIXED)
    assert mapped.tolist() == [0.0, 12.0, 10.0, -3.0, 13.0]  # cow, cat and background are known
    value, target = torch.arange(12.0).view(12, 1), torch.zeros(16, 1) - 1
    mapped = map_rows("bbox_head.fc_reg.weight", value, target, ANIMALS, MIXED)
    assert mapped.view(4, 4).tolist() == [[-1] * 4, [8, 9, 10, 11], [0, 1, 2, 3], [-1] * 4]
    value, target = torch.arange(6.0), torch.zeros(8) - 1  # two anchors
    mapped = map_rows("bbox_head.retina_cls.bias", value, target, ANIMALS, MIXED)
    assert mapped.tolist() == [-1, 2, 0, -1, -1, 5, 3, -1]
    assert torch.equal(target, torch.zeros(8) - 1)


def test_a_class_agnostic_layer_is_taken_whole_and_another_shape_is_refused() -> None:
    value, target = torch.arange(4.0), torch.zeros(4)
    classes = ("a", "b", "c", "d", "e", "f")
    mapped = map_rows("bbox_head.fc_reg.bias", value, target, classes, classes[::-1])
    assert torch.equal(mapped, value)
    assert (
        map_rows("decode_head.conv_seg.bias", torch.zeros(7), torch.zeros(4), ANIMALS, MIXED)
        is None
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("roi_head.bbox_head.0.fc_cls.weight", True),
        ("roi_head.mask_head.conv_logits.bias", True),
        ("auxiliary_head.conv_seg.weight", True),
        ("bbox_head.retina_cls.weight", True),
        ("rpn_head.rpn_cls.weight", False),
        ("rpn_head.rpn_reg.weight", False),
        ("neck.lateral_convs.0.conv.weight", False),
    ],
)
def test_class_wise_layers_are_known_by_name(name: str, expected: bool) -> None:
    assert is_class_wise(name) is expected


@pytest.mark.parametrize("layout", ["official", "mm"])
def test_a_whole_detector_of_equal_classes_is_filled_to_the_last_number(layout: str) -> None:
    theirs, ours = detector(3), detector(3)
    checkpoint = saved(theirs, None)
    if layout == "mm":
        checkpoint["state_dict"] = mm_layout(checkpoint["state_dict"])
    report = load_pretrained(ours, checkpoint)
    assert (report.scope, report.coverage, report.format) == ("model", 1.0, layout)
    assert report.missing == report.unexpected == report.mapped == []
    expected = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_detector_with_another_class_list_keeps_its_body_and_the_known_rows() -> None:
    theirs, ours = detector(3), detector(4)
    fresh = {name: value.clone() for name, value in ours.state_dict().items()}
    report = load_pretrained(ours, saved(theirs, ANIMALS), classes=MIXED)
    assert (report.classes_kept, report.classes_fresh) == (["cow", "cat"], ["bus", "tram"])
    assert len(report.mapped) == 6
    assert report.reinitialised == []
    assert "classes that start fresh" in str(report)
    expected, got = theirs.state_dict(), ours.state_dict()
    for name, value in got.items():
        if not is_class_wise(name):
            assert torch.equal(value, expected[name]), name
    logits = "roi_head.mask_head.conv_logits.weight"
    for row, source in ((1, 2), (2, 0)):
        assert torch.equal(got[logits][row], expected[logits][source])
    for row in (0, 3):
        assert torch.equal(got[logits][row], fresh[logits][row])
    scores = "roi_head.bbox_head.fc_cls.weight"
    assert torch.equal(got[scores][4], expected[scores][3])  # background


def test_the_same_classes_in_another_order_are_reordered() -> None:
    theirs, ours = segmenter(3), segmenter(3)
    ours.dataset_meta = {"classes": ANIMALS[::-1]}
    report = load_pretrained(ours, saved(theirs, ANIMALS))
    assert report.classes_fresh == []
    assert len(report.mapped) == 4
    name = "decode_head.conv_seg.weight"
    assert torch.equal(ours.state_dict()[name], theirs.state_dict()[name].flip(0))


def test_without_names_rows_of_another_count_are_left_fresh_and_said() -> None:
    theirs, ours = segmenter(3), segmenter(4)
    before = ours.state_dict()["decode_head.conv_seg.weight"].clone()
    report = load_pretrained(ours, saved(theirs, None))
    assert len(report.reinitialised) == 4
    assert torch.equal(ours.state_dict()["decode_head.conv_seg.weight"], before)
    batch_norm = "decode_head.bottleneck.bn.running_var"
    assert torch.equal(ours.state_dict()[batch_norm], theirs.state_dict()[batch_norm])


def test_a_classifier_fills_the_backbone_of_a_detector(parity: ModuleType) -> None:
    cfg = small_detector()
    cfg.model.backbone = dict(cfg.model.backbone, depths=(2, 2, 2, 2), window_size=4)
    ours = build(cfg)
    neck = ours.state_dict()["neck.lateral_convs.0.conv.weight"].clone()
    report = load_pretrained(ours, {"model": official_state(v1(), parity)})
    assert report.scope == "backbone"
    assert report.coverage > 0.99
    assert report.missing_suspicious == []
    assert any(name.startswith("neck.") for name in report.missing_expected)
    assert torch.equal(ours.state_dict()["neck.lateral_convs.0.conv.weight"], neck)


def test_a_segmentors_checkpoint_gives_a_detector_its_backbone_alone() -> None:
    ours = detector(3)
    theirs = segmenter(3)
    report = load_pretrained(ours, saved(theirs, ANIMALS))
    assert report.scope == "backbone"
    assert report.coverage == 1.0
    assert any(name.startswith("decode_head.") for name in report.unexpected)


def test_a_model_without_a_swin_of_ours_is_refused(parity: ModuleType) -> None:
    with pytest.raises(UserError, match="Linear has no backbone of swin_dense"):
        load_pretrained(nn.Linear(2, 2), official_state(v1(), parity))


@pytest.mark.parametrize("kind", ["Pretrained", "swin_dense.Pretrained"])
def test_init_cfg_of_a_backbone_loads(kind: str, parity: ModuleType, tmp_path: Path) -> None:
    state = official_state(v1(), parity)
    torch.save({"model": state}, tmp_path / "a.pth")
    ours = v1(init_cfg=dict(type=kind, checkpoint=str(tmp_path / "a.pth")))
    ours.init_weights()
    assert torch.equal(
        ours.state_dict()["patch_embed.proj.weight"], state["patch_embed.proj.weight"]
    )


def test_init_cfg_of_a_backbone_takes_the_loaders_options_and_no_others(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "a.pth")
    options = dict(type="swin_dense.Pretrained", checkpoint=str(tmp_path / "a.pth"))
    with pytest.raises(UserError, match="sha256"):
        v1(init_cfg=dict(**options, sha256="0" * 64)).init_weights()
    with pytest.raises(UserError, match="min_covrage"):
        v1(init_cfg=dict(**options, min_covrage=0.5)).init_weights()


def test_init_cfg_of_a_whole_detector_survives_its_childrens_initialisation(
    tmp_path: Path,
) -> None:
    theirs = detector(3)
    torch.save(saved(theirs, ANIMALS), tmp_path / "a.pth")
    cfg = small_detector()
    cfg.model.roi_head.bbox_head.num_classes = 4
    cfg.model.roi_head.mask_head.num_classes = 4
    cfg.model.init_cfg = dict(
        type="swin_dense.Pretrained", checkpoint=str(tmp_path / "a.pth"), classes=MIXED
    )
    ours = build(cfg)
    ours.init_weights()
    expected, got = theirs.state_dict(), ours.state_dict()
    for name in got:
        if not is_class_wise(name):
            assert torch.equal(got[name], expected[name]), name
    name = "roi_head.bbox_head.fc_cls.weight"
    assert torch.equal(got[name][2], expected[name][0])
