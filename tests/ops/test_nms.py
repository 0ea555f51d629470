"""NMS, soft NMS and NMS groups against loops, by symmetry, and on degenerate boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from swin_dense.errors import UserError
from swin_dense.ops import batched_nms, nms, nms_match, soft_nms
from tests.ops import loops

MIRROR = torch.tensor([-1.0, 1.0, -1.0, 1.0])


def crowded(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes on a grid of quarters, so that IoUs tie exactly, and all scores different."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 80, (count, 2), generator=generator) / 4
    sides = torch.randint(4, 60, (count, 2), generator=generator) / 4
    scores = (torch.randperm(count, generator=generator) + 1) / count
    return torch.cat([corners, corners + sides], dim=1), scores


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 300])
def test_nms_keeps_the_boxes_of_the_loop_across_block_borders(
    count: int, threshold: float, offset: int
) -> None:
    boxes, scores = crowded(count)
    kept = nms(boxes, scores, threshold, offset=offset)
    expected = loops.nms(boxes.double().numpy(), scores.double().numpy(), threshold, offset)
    assert kept.tolist() == expected


def test_nms_by_hand_drops_the_overlap_above_and_keeps_the_overlap_at_the_threshold() -> None:
    # IoU of the first two is 1/3; of the first and the last, 1/2
    boxes = torch.tensor([[0, 0, 2, 2], [1.0, 0, 3, 2], [10, 10, 12, 12], [0, 0, 2, 1]])
    scores = torch.tensor([0.9, 0.8, 0.95, 0.7])
    assert nms(boxes, scores, 0.34).tolist() == [2, 0, 1]
    assert nms(boxes, scores, 0.5).tolist() == [2, 0, 1, 3]
    assert nms(boxes, scores, 0.3).tolist() == [2, 0]


def test_nms_of_a_chain_lets_the_third_live_where_the_second_fell() -> None:
    x1 = torch.arange(300.0)
    chain = torch.stack([x1, torch.zeros(300), x1 + 2, torch.ones(300)], dim=1)
    assert nms(chain, -x1, 0.3).tolist() == list(range(0, 300, 2))


def test_nms_of_duplicates_and_ties_keeps_the_lowest_index() -> None:
    boxes = torch.tensor([[0.0, 0, 5, 5], [9, 9, 12, 12]]).repeat(100, 1)
    assert nms(boxes, torch.full((200,), 0.5), 0.5).tolist() == [0, 1]
    apart = torch.arange(150.0)[:, None] * 10 + torch.tensor([0.0, 0, 5, 5])
    assert nms(apart, torch.full((150,), 0.5), 0.5).tolist() == list(range(150))


def test_nms_does_not_mind_mirrored_moved_scaled_or_permuted_boxes() -> None:
    boxes, scores = crowded(150)
    kept = nms(boxes, scores, 0.4)
    mirrored = (boxes * MIRROR)[:, [2, 1, 0, 3]]
    for same in (mirrored, boxes + 64, boxes * 4, boxes[:, [1, 0, 3, 2]]):
        assert torch.equal(nms(same, scores, 0.4), kept)
    order = torch.randperm(150)
    assert torch.equal(order[nms(boxes[order], scores[order], 0.4)], kept)


def test_nms_of_no_boxes_is_no_index() -> None:
    none = torch.zeros(0, 4), torch.zeros(0)
    assert nms(*none, 0.5).shape == (0,)
    assert batched_nms(*none, torch.zeros(0, dtype=torch.int64), 0.5).dtype == torch.int64
    assert soft_nms(*none)[0].shape == (0, 5)
    assert nms_match(*none, 0.5) == []


def test_nms_leaves_boxes_without_area_alone() -> None:
    points = torch.tensor([[3.0, 3, 3, 3]] * 3 + [[0, 0, 8, 8]])
    scores = torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert nms(points, scores, 0.5).tolist() == [0, 1, 2, 3]
    for method in ("linear", "gaussian", "naive"):
        boxes, indices = soft_nms(points, scores, method=method)  # type: ignore[arg-type]
        assert indices.tolist() == [0, 1, 2, 3]
        torch.testing.assert_close(boxes[:, 4], scores)


def test_nan_scores_rank_first_in_nms_as_in_a_sort_and_drop_out_of_soft_nms() -> None:
    boxes, scores = crowded(200)
    scores[::3] = torch.nan
    as_highest = scores.nan_to_num(nan=2.0)
    assert torch.equal(nms(boxes, scores, 0.5), nms(boxes, as_highest, 0.5))
    groups, expected_groups = nms_match(boxes, scores, 0.5), nms_match(boxes, as_highest, 0.5)
    assert all(torch.equal(*pair) for pair in zip(groups, expected_groups, strict=True))
    scored = (~scores.isnan()).nonzero().squeeze(1)
    lowered, indices = soft_nms(boxes, scores)
    expected, expected_indices = soft_nms(boxes[scored], scores[scored])
    assert torch.equal(indices, scored[expected_indices])
    assert torch.equal(lowered, expected)


def test_nan_boxes_neither_suppress_nor_are_suppressed() -> None:
    boxes, scores = crowded(200)
    boxes[1::3] = torch.nan
    sound = (~boxes.isnan().any(dim=1)).nonzero().squeeze(1)
    kept = nms(boxes, scores, 0.5)
    assert set(range(1, 200, 3)) <= set(kept.tolist())
    assert torch.equal(kept[torch.isin(kept, sound)], sound[nms(boxes[sound], scores[sound], 0.5)])
    lowered, indices = soft_nms(boxes, scores, method="gaussian")
    assert not lowered[:, 4].isnan().any()
    expected = sound[soft_nms(boxes[sound], scores[sound], method="gaussian")[1]]
    assert torch.equal(indices[torch.isin(indices, sound)], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_nms_in_another_type_decides_as_on_the_same_numbers_in_float32(dtype: torch.dtype) -> None:
    boxes, scores = crowded(64)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    assert torch.equal(nms(boxes, scores, 0.5), nms(boxes.float(), scores.float(), 0.5))
    kept, indices = soft_nms(boxes, scores)
    expected, expected_indices = soft_nms(boxes.float(), scores.float())
    assert kept.dtype == dtype
    assert torch.equal(indices, expected_indices)
    torch.testing.assert_close(kept, expected.to(dtype))


def test_nms_under_autocast_and_on_strided_boxes_is_the_same() -> None:
    boxes, scores = crowded(300)
    strided = boxes.t().contiguous().t()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nms(strided, scores, 0.5), nms(boxes, scores, 0.5))
        kept = nms(boxes, scores, 0.5)
        soft, _ = soft_nms(strided, scores)
    assert torch.equal(kept, nms(boxes, scores, 0.5))
    assert torch.equal(soft, soft_nms(boxes, scores)[0])


def test_batched_nms_is_nms_of_each_class_merged_by_score() -> None:
    boxes, scores = crowded(200)
    class_ids = torch.randint(0, 5, (200,))
    expected: list[int] = []
    for class_id in range(5):
        members = (class_ids == class_id).nonzero().squeeze(1)
        kept = loops.nms(boxes[members].double().numpy(), scores[members].double().numpy(), 0.4)
        expected += members[kept].tolist()
    expected.sort(key=lambda index: -float(scores[index]))
    assert batched_nms(boxes, scores, class_ids, 0.4).tolist() == expected


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("min_score", [0.0, 0.05])
def test_soft_nms_picks_and_lowers_as_the_loop(method: str, min_score: float, offset: int) -> None:
    boxes, scores = crowded(60)
    boxes, scores = boxes.double(), scores.double()
    kept, indices = soft_nms(
        boxes,
        scores,
        iou_threshold=0.31,
        sigma=0.4,
        min_score=min_score,
        method=method,  # type: ignore[arg-type]
        offset=offset,
    )
    expected = loops.soft_nms(boxes.numpy(), scores.numpy(), 0.31, 0.4, min_score, method, offset)
    positive = [pair for pair in expected if pair[1] > 0]  # picking order of zeros means nothing
    assert indices.tolist()[: len(positive)] == [index for index, _ in positive]
    assert len(indices) == len(expected)
    np.testing.assert_allclose(kept[:, 4].numpy(), [score for _, score in expected], atol=1e-12)
    assert torch.equal(kept[:, :4], boxes[indices])


def test_soft_nms_leaves_its_inputs_as_they_are() -> None:
    boxes, scores = crowded(20)
    before = boxes.clone(), scores.clone()
    soft_nms(boxes, scores)
    assert torch.equal(boxes, before[0])
    assert torch.equal(scores, before[1])


def test_nms_match_groups_as_the_loop() -> None:
    boxes, scores = crowded(150)
    groups = nms_match(boxes, scores, 0.4)
    expected = loops.nms_match(boxes.double().numpy(), scores.double().numpy(), 0.4)
    assert [group.tolist() for group in groups] == expected


def test_wrong_shapes_are_named_with_what_was_expected() -> None:
    with pytest.raises(UserError, match=r"got boxes of shape \(3, 5\).*expected \(N, 4\)"):
        nms(torch.zeros(3, 5), torch.zeros(3), 0.5)
    with pytest.raises(UserError, match=r"scores of \(2,\).*expected \(N, 4\) and \(N,\)"):
        soft_nms(torch.zeros(3, 4), torch.zeros(2))
    with pytest.raises(UserError, match=r"class_ids of shape \(2,\) for 3 boxes; expected \(3,\)"):
        batched_nms(torch.zeros(3, 4), torch.zeros(3), torch.zeros(2), 0.5)
    with pytest.raises(UserError, match=r"method='hard'; expected 'naive'"):
        soft_nms(torch.zeros(1, 4), torch.zeros(1), method="hard")  # type: ignore[arg-type]
