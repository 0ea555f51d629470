"""NMS of boxes with gaps between them goes part by part; its twin takes all of them at once."""

from __future__ import annotations

import pytest
import torch

from swin_dense.ops import _nms, nms


def random_boxes(generator: torch.Generator, count: int, side: float) -> torch.Tensor:
    corners = torch.rand(count, 2, generator=generator) * 300
    return torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * side], dim=1)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("iou_threshold", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("whole_pixels", [False, True])
def test_boxes_with_gaps_between_them_survive_as_if_there_were_none(
    monkeypatch: pytest.MonkeyPatch, whole_pixels: bool, iou_threshold: float, offset: int
) -> None:
    monkeypatch.setattr(_nms, "_RUN", 8)
    parted = 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        boxes = random_boxes(generator, 60 + seed, 4.0 if seed % 2 else 12.0)
        scores = torch.rand(len(boxes), generator=generator).mul(20).round()  # with ties
        if whole_pixels:
            boxes = boxes.round()  # neighbours then touch, and some have no area
        parted += len(_nms._separate_runs(boxes, iou_threshold, offset)) > 1
        expected = _nms._greedy_nms(boxes, scores, iou_threshold, offset)
        assert nms(boxes, scores, iou_threshold, offset=offset).tolist() == expected.tolist()
    assert parted >= 10


def test_classes_shifted_apart_are_runs_of_their_own() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(generator, 3000, 200.0)
    classes = torch.arange(3000) % 3
    shifted = boxes + classes[:, None] * (boxes.max() + 1)
    runs = _nms._separate_runs(shifted, 0.5, 0)
    assert [run.tolist() for run in runs] == [list(range(first, 3000, 3)) for first in range(3)]


def test_boxes_that_touch_share_a_run_only_where_the_last_pixel_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_nms, "_RUN", 1)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0]])
    assert [run.tolist() for run in _nms._separate_runs(boxes, 0.5, 0)] == [[0], [1]]
    assert [run.tolist() for run in _nms._separate_runs(boxes, 0.5, 1)] == [[0, 1]]


def test_a_negative_threshold_leaves_one_box_however_far_apart_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_nms, "_RUN", 1)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [50.0, 0.0, 51.0, 1.0], [90.0, 0.0, 91.0, 1.0]])
    assert nms(boxes, torch.tensor([0.1, 0.9, 0.5]), -0.5).tolist() == [1]


def test_boxes_that_are_not_numbers_neither_part_the_rest_nor_stop_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_nms, "_RUN", 4)
    generator = torch.Generator().manual_seed(0)
    boxes, scores = random_boxes(generator, 90, 6.0), torch.rand(90, generator=generator)
    boxes[::9] = torch.nan
    boxes[4::9, 2] = torch.inf
    scores[3] = torch.nan
    expected = _nms._greedy_nms(boxes, scores, 0.3, 0)
    assert nms(boxes, scores, 0.3).tolist() == expected.tolist()
