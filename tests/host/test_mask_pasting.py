"""Masks as run lengths of the picture, against mmdet's own pasting and pycocotools' encoding."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from torch import Tensor

from swin_dense.host.mask_pasting import CHUNK_PX, paste
from swin_dense.host.repairs import repair_hosts
from swin_dense.host.rle_masks import RleMasks

GIGABYTE = 1 << 30


@pytest.fixture(autouse=True)
def _repaired() -> None:
    repair_hosts()


def hosts_rles(
    shares: Tensor, boxes: Tensor, image_hw: tuple[int, int], threshold: float, tight: bool
) -> list[Any]:
    """mmdet's pasting of one mask after the other, then pycocotools' encoding."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    rles = []
    for share, box in zip(shares, boxes, strict=True):
        whole = torch.zeros(1, *image_hw, dtype=torch.bool)
        arguments = (share[None], box[None], *image_hw, tight)
        if tight and lies_outside(box, image_hw):
            with pytest.raises(RuntimeError, match="inconsistent with step sign"):
                _do_paste_mask(*arguments)
        else:
            pasted, window = _do_paste_mask(*arguments)
            whole[(slice(None), *window)] = pasted >= threshold
        rles.append(coco_mask.encode(np.asfortranarray(whole[0].numpy(), dtype=np.uint8)))
    return rles


def lies_outside(box: Tensor, image_hw: tuple[int, int]) -> bool:
    """Whether the box, with a pixel more on each side, ends before it begins inside the picture."""
    left, top, right, bottom = box.tolist()
    return any(
        min(math.ceil(end) + 1, limit) < max(math.floor(start) - 1, 0)
        for start, end, limit in ((left, right, image_hw[1]), (top, bottom, image_hw[0]))
    )


def probabilities(count: int, height: int = 28, width: int = 28) -> Tensor:
    return (torch.randn(count, 1, height, width) * 3).sigmoid()


def random_boxes(count: int, image_hw: tuple[int, int]) -> Tensor:
    """Boxes of any size; some reach out of the picture or lie outside it."""
    height, width = image_hw
    corners = torch.rand(2, count, 2) * torch.tensor([width, height]) * 1.4
    corners -= 0.2 * torch.tensor([width, height])
    return torch.cat([corners.amin(dim=0), corners.amax(dim=0)], dim=1)


@pytest.mark.parametrize("tight", [True, False], ids=["as on the CPU", "as on a GPU"])
@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.0, 1.0])
def test_random_masks_are_the_hosts_run_lengths(threshold: float, tight: bool) -> None:
    for image_hw in ((1, 1), (1, 40), (37, 1), (64, 48), (33, 81)):
        for cells in ((28, 28), (14, 7), (1, 1)):
            shares, boxes = probabilities(12, *cells), random_boxes(12, image_hw)
            boxes[6:] = boxes[6:].round()  # whole pixels, whose samples meet the mask's edges
            expected = hosts_rles(shares, boxes, image_hw, threshold, tight)
            assert paste(shares, boxes, image_hw, threshold, tight=tight) == expected


@pytest.mark.parametrize("tight", [True, False], ids=["as on the CPU", "as on a GPU"])
@pytest.mark.parametrize(
    "box",
    [
        pytest.param((0, 0, 50, 40), id="the whole picture"),
        pytest.param((-20, -9, 70, 61), id="more than the picture"),
        pytest.param((0, 0, 50, 12.5), id="all columns"),
        pytest.param((20.2, 0, 31.7, 40), id="all rows"),
        pytest.param((49, 39, 50, 40), id="the last pixel"),
        pytest.param((60, 50, 80, 70), id="outside, right and below"),
        pytest.param((-30, -30, -10, -10), id="outside, left and above"),
        pytest.param((-9, 5, 0, 20), id="touching the left edge from outside"),
        pytest.param((12.5, 8.5, 12.5, 8.5), id="no area, at a pixel's centre"),
        pytest.param((12, 8, 12, 20), id="no width"),
        pytest.param((12, 8, 30, 8), id="no height"),
        pytest.param((30, 20, 12, 8), id="the wrong way round"),
        pytest.param((10.25, 10.25, 10.5, 10.5), id="less than a pixel"),
    ],
)
def test_boxes_at_the_limits_have_the_hosts_run_lengths(
    box: tuple[float, ...], tight: bool
) -> None:
    shares = torch.cat([probabilities(3), torch.ones(1, 1, 28, 28), torch.zeros(1, 1, 28, 28)])
    boxes = torch.tensor(box, dtype=torch.float32).expand(5, 4)
    expected = hosts_rles(shares, boxes, (40, 50), 0.5, tight)
    assert paste(shares, boxes, (40, 50), 0.5, tight=tight) == expected


def test_a_box_of_several_chunks_has_the_hosts_run_lengths() -> None:
    image_hw = (700, 1501)
    assert image_hw[0] * image_hw[1] > 4 * CHUNK_PX
    shares = probabilities(3)
    boxes = torch.tensor([[0, 0, 1501, 700], [3.3, 2.2, 1490.1, 699.4], [-40, -30, 1600, 900]])
    expected = hosts_rles(shares, boxes, image_hw, 0.5, tight=True)
    assert paste(shares, boxes, image_hw, 0.5) == expected


def test_a_mask_worked_by_hand() -> None:
    # a box of 2 x 2 pixels at column 1, row 0 of 3 x 4, one cell of the mask to a pixel
    share = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    (rle,) = paste(share, torch.tensor([[1.0, 0, 3, 2]]), (3, 4), 0.5)
    assert coco_mask.decode(rle).tolist() == [[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    by_hand = dict(counts=[3, 2, 2, 1, 4], size=[3, 4])
    assert rle == coco_mask.frPyObjects(by_hand, 3, 4)


def test_a_box_that_is_no_number_has_an_empty_mask() -> None:
    boxes = torch.tensor([[float("nan")] * 4, [2.0, 2, float("nan"), 9]])
    for rle in paste(probabilities(2), boxes, (20, 30), 0.5, tight=True):
        assert not coco_mask.decode(rle).any()


def head(**options: Any) -> Any:
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead

    return FCNMaskHead(num_convs=0, num_classes=4, **options)


@pytest.mark.parametrize("activated", [False, True], ids=["logits", "probabilities"])
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_a_batch_of_pictures_is_predicted_as_by_the_host(
    class_agnostic: bool, rescale: bool, activated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead

    metas = [
        dict(ori_shape=(50, 71), scale_factor=(1.3, 1.27)),
        dict(ori_shape=(64, 30), scale_factor=(0.5, 0.5)),
        dict(ori_shape=(9, 9), scale_factor=(1.0, 1.0)),
    ]
    counts, channels = (6, 3, 0), 1 if class_agnostic else 4
    logits = [torch.randn(count, channels, 14, 14) * 3 for count in counts]
    if activated:
        logits = [each.sigmoid() for each in logits]
    boxes = [
        random_boxes(count, meta["ori_shape"]).clamp(min=0) * meta["scale_factor"][0]
        for count, meta in zip(counts, metas, strict=True)
    ]
    labels = [torch.randint(0, 4, (count,)) for count in counts]

    def predict() -> list[Any]:
        found = [
            InstanceData(bboxes=b.clone(), labels=c) for b, c in zip(boxes, labels, strict=True)
        ]
        cfg = ConfigDict(mask_thr_binary=0.5)
        return head(class_agnostic=class_agnostic).predict_by_feat(
            logits, found, metas, cfg, rescale=rescale, activate_map=activated
        )

    ours = predict()
    assert [type(each.masks) for each in ours] == [RleMasks, RleMasks, Tensor]
    repaired = FCNMaskHead._predict_by_feat_single
    monkeypatch.setattr(FCNMaskHead, "_predict_by_feat_single", repaired.__wrapped__)
    for one, other in zip(ours, predict(), strict=True):
        assert type(other.masks) is Tensor
        assert torch.equal(one.bboxes, other.bboxes)
        assert one.masks.shape == other.masks.shape
        assert torch.equal(RleMasks.encode(one.masks).decode(), other.masks)
    assert ours[0].masks.any()


def test_a_negative_threshold_gives_the_hosts_soft_masks() -> None:
    boxes, meta = torch.tensor([[2.0, 3, 20, 25]]), dict(ori_shape=(30, 40), scale_factor=(1, 1))
    masks = head()._predict_by_feat_single(
        torch.randn(1, 4, 28, 28), boxes, torch.tensor([1]), meta, ConfigDict(mask_thr_binary=-1)
    )
    assert type(masks) is Tensor
    assert masks.dtype == torch.uint8
    assert len(masks.unique()) > 50


def test_heads_of_cascades_and_pointrend_inherit_the_pasting() -> None:
    from mmdet.models.roi_heads import mask_heads

    repaired = mask_heads.FCNMaskHead._predict_by_feat_single
    for name in ("HTCMaskHead", "SCNetMaskHead", "CoarseMaskHead", "DynamicMaskHead"):
        assert getattr(mask_heads, name)._predict_by_feat_single is repaired


WHOLE_WAY = """
import json, sys
import numpy as np, torch
import swin_dense
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from swin_dense.evaluation.coco_metric import CocoMetric
from swin_dense.host.repairs import repair_hosts
from swin_dense.inference.predictor import _to_prediction
from tests.peak import peak_bytes

folder, share = sys.argv[1], float(sys.argv[2])
height, width, count = 4000, 6000, 100
repair_hosts()
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.structures import DetDataSample

image = dict(id=7, file_name="a.jpg", height=height, width=width)
with open(folder + "/a.json", "w") as file:
    json.dump(dict(images=[image], annotations=[], categories=[dict(id=1, name="a")]), file)
torch.manual_seed(0)
corner = torch.rand(count, 2) * torch.tensor([width, height]) * (1 - share)
boxes = torch.cat([corner, corner + share * torch.tensor([width, height])], dim=1)
found = InstanceData(bboxes=boxes, labels=torch.zeros(count, dtype=torch.long))
found.scores = torch.linspace(0.9, 0.1, count)
meta = dict(img_id=7, img_path="a.jpg", ori_shape=(height, width), scale_factor=(1.0, 1.0))
logits = torch.nn.functional.interpolate(torch.randn(count, 1, 7, 7), size=28, mode="bicubic")
(found,) = FCNMaskHead(num_convs=0, num_classes=1).predict_by_feat(
    [logits], [found], [meta], ConfigDict(mask_thr_binary=0.5), rescale=True
)
sample = DetDataSample(metainfo=meta, pred_instances=found)
metric = CocoMetric(folder + "/a.json", metric="segm", format_only=True,
                    predictions_dir=folder + "/predictions")
metric.dataset_meta = dict(classes=("a",))
metric.process(None, [sample.cpu().to_dict()])
metric.evaluate(1)
drawn = _to_prediction(sample, ("a",)).draw(np.zeros((height, width, 3), np.uint8))
assert (drawn > 0).mean() > share / 4
print(json.dumps(dict(peak=peak_bytes())))
"""


@pytest.mark.parametrize(
    "share", [0.3, pytest.param(1.0, marks=pytest.mark.slow, id="1.0-the picture itself")]
)
def test_a_hundred_masks_on_24_megapixels_stay_under_2_gb_from_head_to_disk_and_drawing(
    share: float, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHOLE_WAY, str(tmp_path), str(share)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["peak"] < 2 * GIGABYTE
    results = json.loads((tmp_path / "predictions/detections.json").read_text())
    assert len(results) == 100
    areas = [int(coco_mask.area(result["segmentation"])) for result in results]
    assert min(areas) > 0.1 * share**2 * 24e6  # random blobs fill about half of their boxes
    assert max(areas) < 0.9 * share**2 * 24e6
