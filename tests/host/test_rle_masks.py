"""Run lengths that behave as the tensor of masks they stand for."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from torch import Tensor

from swin_dense.host.repairs import repair_hosts
from swin_dense.host.rle_masks import RleMasks

Pair = tuple[RleMasks, Tensor]


@pytest.fixture
def pair() -> Pair:
    """Five random masks of 7 x 9, as run lengths and as pixels."""
    pixels = torch.rand(5, 7, 9) > 0.5
    return RleMasks.encode(pixels), pixels


@pytest.fixture
def _no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> Any:
        raise AssertionError("all masks were decoded")

    monkeypatch.setattr(RleMasks, "decode", refuse)


@pytest.mark.parametrize("shape", [(0, 4, 6), (1, 1, 1), (2, 1, 9), (2, 9, 1), (3, 8, 5)])
def test_encoding_and_decoding_give_the_masks_back(shape: tuple[int, int, int]) -> None:
    pixels = torch.rand(shape) > 0.4
    masks = RleMasks.encode(pixels)
    assert torch.equal(masks.decode(), pixels)
    assert (masks.shape, masks.dtype, len(masks)) == (pixels.shape, torch.bool, shape[0])
    assert np.array_equal(masks.numpy(), pixels.numpy())
    assert RleMasks.encode(pixels.numpy().astype(np.uint8) * 255).rles == masks.rles


INDICES: dict[str, Any] = {
    "slice": slice(1, 4),
    "slice of none": slice(0, 0),
    "every second": slice(None, None, 2),
    "list": [3, 0, 3],
    "list of none": [],
    "long tensor": torch.tensor([4, -1, 0]),
    "bool tensor": torch.tensor([True, False, False, True, True]),
    "bool tensor of none": torch.zeros(5, dtype=torch.bool),
    "array": np.array([2, 1]),
    "bool array": np.array([False, True, True, False, False]),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
@pytest.mark.usefixtures("_no_decoding")
def test_picking_some_masks_keeps_them_compressed(index: Any, pair: Pair) -> None:
    masks, pixels = pair
    picked = masks[index]
    expected = pixels[index]
    assert isinstance(picked, RleMasks)
    assert picked.shape == expected.shape
    assert picked.rles == RleMasks.encode(expected).rles


@pytest.mark.parametrize("place", [0, 4, -1, -5, np.int64(2)])
@pytest.mark.usefixtures("_no_decoding")
def test_one_mask_is_a_plain_tensor(place: int, pair: Pair) -> None:
    masks, pixels = pair
    assert type(masks[place]) is Tensor
    assert torch.equal(masks[place], pixels[int(place)])
    assert masks[place].is_contiguous()
    assert torch.equal(masks[place, 2:4, ::2], pixels[int(place), 2:4, ::2])


@pytest.mark.parametrize("place", [5, -6])
def test_a_mask_that_is_not_there_is_an_index_error(place: int, pair: Pair) -> None:
    with pytest.raises(IndexError, match=f"mask {place} of 5"):
        pair[0][place]


def _saved(masks: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save(masks, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


KEEPING: dict[str, Callable[[Tensor], Tensor]] = {
    "cpu": Tensor.cpu,
    "to": lambda m: m.to("cpu"),
    "to bool": lambda m: m.to("cpu", torch.bool),
    "bool": Tensor.bool,
    "detach": Tensor.detach,
    "clone": Tensor.clone,
    "data": lambda m: m.data,
    "contiguous": Tensor.contiguous,
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "torch.save": _saved,
    "shared memory": lambda m: m.share_memory_(),
    "instances": lambda m: InstanceData(masks=m).masks,
    "instances, to": lambda m: InstanceData(masks=m).to("cpu").masks,
    "instances, cpu": lambda m: InstanceData(masks=m).cpu().detach().masks,
}


@pytest.mark.parametrize("inference", [False, True], ids=["", "inference_mode"])
@pytest.mark.parametrize("keep", KEEPING.values(), ids=KEEPING.keys())
@pytest.mark.usefixtures("_no_decoding")
def test_copies_stay_compressed(
    keep: Callable[[Tensor], Tensor], inference: bool, pair: Pair
) -> None:
    with torch.inference_mode(inference):
        kept = keep(pair[0]._like(pair[0].rles))
    assert isinstance(kept, RleMasks)
    assert kept.rles == pair[0].rles
    assert kept.shape == pair[1].shape


@pytest.mark.usefixtures("_no_decoding")
def test_joined_and_picked_instances_stay_compressed(pair: Pair) -> None:
    masks, _ = pair
    found = InstanceData(masks=masks, scores=torch.linspace(1, 0, 5))
    confident = found[found.scores > 0.4]
    assert isinstance(confident.masks, RleMasks)
    assert confident.masks.rles == masks.rles[:3]
    joined = InstanceData.cat([confident, found[1]])
    assert isinstance(joined.masks, RleMasks)
    assert joined.masks.rles == (*masks.rles[:3], masks.rles[1])


DECODING: dict[str, Callable[[Any], Any]] = {
    "float": Tensor.float,
    "uint8": lambda m: m.to(torch.uint8),
    "sum": lambda m: m.sum(dim=(1, 2)),
    "any": lambda m: torch.any(m, dim=1),
    "invert": lambda m: ~m,
    "flip": lambda m: m.flip(-1),
    "compare": lambda m: m != torch.ones(7, 9, dtype=torch.bool),
    "compare from the left": lambda m: torch.ones(7, 9, dtype=torch.bool) & m,
    "cat with pixels": lambda m: torch.cat([m, torch.ones(1, 7, 9, dtype=torch.bool)]),
    "cat of columns": lambda m: torch.cat([m, m], dim=2),
    "stack": lambda m: torch.stack([m, m]),
    "unbind": lambda m: torch.stack(m.unbind(0)),
    "iterate": lambda m: torch.stack(list(m)),
    "new axis": lambda m: m[None],
    "some rows": lambda m: m[:, 2:4],
    "mask by pixels": lambda m: m[torch.ones(5, 7, dtype=torch.bool)],
    "permute": lambda m: m.permute(1, 2, 0),
    "view": lambda m: m.view(5, -1),
    "where": lambda m: torch.where(m, 1.0, 0.0),
    "interpolate": lambda m: torch.nn.functional.interpolate(m[None].float(), scale_factor=2),
    "asarray": lambda m: torch.from_numpy(np.asarray(m)),
    "asarray uint8": lambda m: torch.from_numpy(np.asarray(m, np.uint8)),
    "dlpack": torch.from_dlpack,
    "tolist": lambda m: torch.tensor(m.tolist()),
    "instances, numpy": lambda m: torch.from_numpy(InstanceData(masks=m).numpy().masks),
}


@pytest.mark.parametrize("compute", DECODING.values(), ids=DECODING.keys())
@pytest.mark.parametrize("inference", [False, True], ids=["", "inference_mode"])
def test_every_other_operation_gives_what_pixels_give(
    compute: Callable[[Any], Any], inference: bool, pair: Pair
) -> None:
    with torch.inference_mode(inference):
        ours, expected = compute(pair[0]._like(pair[0].rles)), compute(pair[1])
    assert type(ours) is Tensor
    assert ours.dtype == expected.dtype
    assert torch.equal(ours, expected)


def test_writing_changes_these_masks_and_no_copy(pair: Pair) -> None:
    masks, pixels = pair
    before, kept = pixels.clone(), masks.clone()
    for each in (masks, pixels):
        each[1] = True
        each[2, 3:, :4] = False
        each &= ~before[0]
    assert isinstance(masks, RleMasks)
    assert torch.equal(masks.decode(), pixels)
    assert not torch.equal(pixels, before)
    assert torch.equal(kept.decode(), before)


def sample_of(masks: Tensor) -> Any:
    from mmdet.structures import DetDataSample

    found = InstanceData(masks=masks, labels=torch.arange(len(masks)) % 2)
    found.bboxes = torch.tensor([[4.0, 4, 40, 30]]).repeat(len(masks), 1)
    found.scores = torch.linspace(0.9, 0.2, len(masks))
    meta = dict(img_id=3, img_path="a.jpg", ori_shape=tuple(masks.shape[1:]))
    return DetDataSample(metainfo=meta, pred_instances=found)


@pytest.fixture
def blobs() -> Pair:
    """Four masks of 60 x 80 in large cells."""
    repair_hosts()
    pixels = torch.rand(4, 6, 8).repeat_interleave(10, 1).repeat_interleave(10, 2) > 0.5
    return RleMasks.encode(pixels), pixels


def test_mmdets_metric_takes_them(blobs: Pair) -> None:
    from mmdet.evaluation import CocoMetric

    stored = []
    for masks in blobs:
        metric = CocoMetric(metric="segm")
        metric.process({}, [sample_of(masks).to_dict() | dict(instances=[])])
        stored.append(metric.results[0][1]["masks"])
    assert stored[0] == stored[1]
    assert [coco_mask.area(rle) for rle in stored[0]] == blobs[1].sum(dim=(1, 2)).tolist()


def test_mmdets_dump_takes_them(blobs: Pair) -> None:
    from mmdet.evaluation import DumpDetResults

    stored = []
    for masks in blobs:
        metric = DumpDetResults(out_file_path="unused.pkl")
        metric.process({}, [sample_of(masks).to_dict()])
        stored.append(metric.results[0]["pred_instances"]["masks"])
    assert stored[0] == stored[1]
    assert len(stored[0]) == 4


def test_mmdets_visualizer_draws_them(blobs: Pair) -> None:
    from mmdet.visualization import DetLocalVisualizer

    drawn = []
    for masks in blobs:
        np.random.seed(0)  # the visualizer's colours are jittered
        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = dict(classes=("a", "b"), palette=[(250, 0, 0), (0, 250, 0)])
        image = np.full((60, 80, 3), 90, np.uint8)
        visualizer.add_datasample("a", image, sample_of(masks), draw_gt=False)
        drawn.append(visualizer.get_image())
    assert np.array_equal(*drawn)
    assert (drawn[0] != 90).mean() > 0.3


def test_mmdets_inferencer_writes_them(blobs: Pair) -> None:
    from mmdet.apis import DetInferencer

    written = [DetInferencer.pred2dict(DetInferencer, sample_of(masks)) for masks in blobs]  # type: ignore[arg-type]
    assert written[0] == written[1]
    assert [coco_mask.area(rle) for rle in written[0]["masks"]] == blobs[1].sum((1, 2)).tolist()
