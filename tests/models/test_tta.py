"""Test-time augmentation of small models with random weights, in double precision."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import Tensor

from swin_dense.engine.config import load_config
from swin_dense.errors import UserError
from swin_dense.host.repairs import repair_hosts
from swin_dense.models.tta import DetectorTTA, SegmentorTTA
from swin_dense.registry import MODELS
from tests import runs

CASCADE = "cascade_mask_rcnn/cascade_mask_rcnn_swin_t_p4_w7_fpn_3x_coco.py"
RETINANET = "retinanet/retinanet_swin_t_p4_w7_fpn_1x_coco.py"

HEIGHT, WIDTH = 64, 90
"""No multiple of 32, so that padding is there on the right: a mirror about the padded width, or
padding that is mirrored too, would break every symmetry below. Both views are padded in the same
way, so that a right merge keeps it exactly, whatever the network makes of padding."""


def detector(config: str = runs.MASK_RCNN) -> Any:
    options = runs.coco_options(Path("unused")) | runs.small_swin("mmdet")
    if config != runs.MASK_RCNN:
        options = {k: v for k, v in options.items() if k.startswith("model.backbone")}
        options["model.neck.in_channels"] = runs.SMALL_SWIN_CHANNELS[
            -3 if config == RETINANET else -4 :
        ]
    return build(load_config(config, options).model, "mmdet")


def segmentor() -> Any:
    options = runs.semantic_options(Path("unused")) | runs.small_swin("mmseg")
    return build(load_config(runs.UPERNET, options).model, "mmseg")


def build(cfg: Any, host: str) -> Any:
    repair_hosts()
    torch.manual_seed(0)
    for norm in (cfg.get("decode_head"), cfg.get("auxiliary_head")):
        if norm is not None:
            norm.norm_cfg = dict(type="BN")
    test_cfg = cfg.get("test_cfg") or {}
    for group in (test_cfg, test_cfg.get("rpn"), test_cfg.get("rcnn")):  # few, of any score
        few = dict(score_thr=0.0, max_per_img=20, nms_pre=30)
        for key in set(few) & set(group or ()):
            group[key] = few[key]
    with DefaultScope.overwrite_default_scope(host):
        model = MODELS.build(cfg).double().eval()
        model.backbone.register_forward_pre_hook(lambda module, args: (args[0].double(),))
        for parameter in model.parameters():  # far from the small weights of a fresh head
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=1.2 / parameter[0].numel() ** 0.5)
    return model


def photograph() -> Tensor:
    return torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8)


def batch(image: Tensor, flips: list[str | None], host: str) -> dict[str, Any]:
    """``image`` in one view for each of ``flips``, at its own size, as a loader collates them."""
    if host == "mmdet":
        from mmdet.structures import DetDataSample as Sample
    else:
        from mmseg.structures import SegDataSample as Sample
    inputs, samples = [], []
    for flip in flips:
        dims = {None: (), "horizontal": (2,), "vertical": (1,), "diagonal": (1, 2)}[flip]
        inputs.append([image.flip(dims)])
        shape = tuple(image.shape[1:])
        meta = dict(img_id=0, img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
        samples.append([Sample(metainfo=meta | dict(flip=bool(flip), flip_direction=flip))])
    return dict(inputs=inputs, data_samples=samples)


def predict(model: Any, image: Tensor) -> Any:
    host = "mmdet" if hasattr(model, "rpn_head") or hasattr(model, "bbox_head") else "mmseg"
    data = batch(image, [None], host)
    with torch.no_grad():
        return model.test_step({key: value[0] for key, value in data.items()})[0]


def assert_same_detections(one: Any, other: Any) -> None:
    assert len(one.scores) > 5
    assert torch.equal(one.labels, other.labels)
    assert torch.allclose(one.scores.double(), other.scores.double(), atol=1e-6)
    assert torch.allclose(one.bboxes.double(), other.bboxes.double(), atol=1e-3)
    if "masks" in one:
        assert one.masks.any()
        # pasting is in single precision: a pixel at the very threshold may fall either way
        assert (one.masks != other.masks).double().mean() < 1e-4


@pytest.mark.parametrize("config", [runs.MASK_RCNN, CASCADE, RETINANET])
@pytest.mark.parametrize("views", [1, 2])
def test_plain_views_change_nothing_in_a_detection(config: str, views: int) -> None:
    model, image = detector(config), photograph()
    alone = predict(model, image).pred_instances
    merged = DetectorTTA(model).test_step(batch(image, [None] * views, "mmdet"))[0].pred_instances
    assert ("masks" in merged) == (config != RETINANET)
    assert_same_detections(merged, alone)
    if views == 1:
        assert torch.equal(merged.bboxes, alone.bboxes)
        assert torch.equal(merged.scores, alone.scores)
    if "masks" in merged:
        assert merged.masks.shape == (len(alone.masks), HEIGHT, WIDTH)


@pytest.mark.parametrize("config", [runs.MASK_RCNN, CASCADE, RETINANET])
@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
def test_a_mirrored_photograph_gives_mirrored_boxes_and_masks(config: str, direction: str) -> None:
    tta, image = DetectorTTA(detector(config)), photograph()
    dims = (2,) if direction == "horizontal" else (1,)
    plain, mirrored = (
        tta.test_step(batch(shown, [None, direction], "mmdet"))[0].pred_instances
        for shown in (image, image.flip(dims))
    )
    alone = predict(tta.module, image).pred_instances
    assert not torch.equal(alone.scores, plain.scores)  # the mirror view has its say
    left, top, right, bottom = mirrored.bboxes.unbind(-1)
    if direction == "horizontal":
        left, right = WIDTH - right, WIDTH - left
    else:
        top, bottom = HEIGHT - bottom, HEIGHT - top
    mirrored.bboxes = torch.stack([left, top, right, bottom], dim=-1)
    if "masks" in mirrored:
        mirrored.masks = mirrored.masks.flip(dims)
    assert_same_detections(plain, mirrored)


def test_the_boxes_of_a_scaled_view_are_in_the_photographs_pixels() -> None:
    model, image = detector(), photograph()
    data = batch(image, [None, None], "mmdet")
    for view in data["data_samples"]:
        view[0].set_metainfo(dict(ori_shape=(HEIGHT // 2, WIDTH // 3), scale_factor=(3.0, 2.0)))
    found = DetectorTTA(model).test_step(data)[0].pred_instances
    alone = predict(model, image).pred_instances
    assert found.masks.shape[1:] == (HEIGHT // 2, WIDTH // 3)
    assert torch.allclose(found.bboxes, alone.bboxes / found.bboxes.new_tensor([3, 2, 3, 2]))


@pytest.mark.parametrize("views", [1, 3])
def test_plain_views_change_nothing_in_a_label_map(views: int) -> None:
    model, image = segmentor(), photograph()
    alone = predict(model, image)
    merged = SegmentorTTA(model).test_step(batch(image, [None] * views, "mmseg"))[0]
    assert len(alone.pred_sem_seg.data.unique()) > 3
    assert torch.equal(merged.pred_sem_seg.data, alone.pred_sem_seg.data)
    shares = merged.seg_logits.data.softmax(dim=0)
    assert torch.allclose(shares, alone.seg_logits.data.softmax(dim=0), atol=1e-12)


@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
def test_a_mirrored_photograph_gives_a_mirrored_label_map(direction: str) -> None:
    tta, image = SegmentorTTA(segmentor()), photograph()
    dims = (2,) if direction == "horizontal" else (1,)
    plain, mirrored = (
        tta.test_step(batch(shown, [None, direction], "mmseg"))[0]
        for shown in (image, image.flip(dims))
    )
    assert not torch.equal(predict(tta.module, image).pred_sem_seg.data, plain.pred_sem_seg.data)
    assert torch.equal(plain.pred_sem_seg.data, mirrored.pred_sem_seg.data.flip(dims))


def test_a_view_counts_as_much_as_another_in_the_average() -> None:
    model, image = segmentor(), photograph()
    shares = [
        predict(model, image.flip(dims)).seg_logits.data.softmax(dim=0).flip(dims)
        for dims in ((), (2,))
    ]
    merged = SegmentorTTA(model).test_step(batch(image, [None, "horizontal"], "mmseg"))[0]
    assert torch.allclose(merged.seg_logits.data.exp(), sum(shares) / 2, atol=1e-12)


def test_what_cannot_be_merged_is_refused_by_name() -> None:
    model = detector()
    data = batch(photograph(), [None], "mmdet")
    data["data_samples"][0][0].set_metainfo(dict(flip=True, flip_direction="sideways"))
    tta = DetectorTTA(model)
    with pytest.raises(UserError, match="'sideways'"):
        tta.test_step(data)
    bare = deepcopy(model)
    bare.roi_head.test_cfg.pop("nms")
    with pytest.raises(UserError, match="MaskRCNN has no NMS"):
        DetectorTTA(bare)
    with pytest.raises(UserError, match="does not know how EncoderDecoder predicts"):
        DetectorTTA(segmentor())
