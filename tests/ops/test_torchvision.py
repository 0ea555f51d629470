"""When torchvision's kernels are taken. A stand-in plays torchvision, and the CPU an accelerator.

What the tests prove is the choice and what is handed over, not the values of the real torchvision.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from swin_dense.ops import _nms, _roi_align, _torchvision, nms, roi_align

BOXES = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [8, 8, 9, 9]])
SCORES = torch.tensor([0.5, 0.9, 0.7])
ROIS = torch.tensor([[0, 1.0, 2, 9.3, 8], [0, -3, 4, 5, 6]])


class StandIn(ModuleType):
    """torchvision.ops, counting its calls; ``nms`` and ``roi_align`` agree until replaced."""

    def __init__(self) -> None:
        super().__init__("torchvision.ops")
        self.calls: list[tuple[Any, ...]] = []

    def nms(self, boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        self.calls.append((boxes, scores, threshold))
        return _nms._blocked_nms(boxes, scores, threshold, 0)

    def roi_align(self, *args: Any) -> Tensor:
        self.calls.append(args)
        features, rois, output_hw, scale, ratio, aligned = args
        assert features.dtype == rois.dtype  # as the real one asks
        sampling = _roi_align.RoISampling(output_hw, scale, ratio, aligned)
        pooled: Tensor = _roi_align._RoIAlign.apply(features, rois, sampling, "avg")
        return pooled


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    module = StandIn()
    package = ModuleType("torchvision")
    package.ops = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.ops", module)
    monkeypatch.setattr(_torchvision, "is_accelerator", lambda device: True)
    monkeypatch.setattr(_torchvision, "_VERDICTS", {})
    return module


def test_on_a_cpu_a_stand_in_for_torchvision_is_not_even_asked(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torchvision.ops", stand_in)
    nms(BOXES, SCORES, 0.5)
    roi_align(torch.randn(1, 2, 9, 9), ROIS, 2)
    assert stand_in.calls == []
    assert not _torchvision.is_accelerator(torch.device("cpu"))
    assert _torchvision.is_accelerator(torch.device("cuda"))


def test_an_agreeing_stand_in_is_taken_for_nms_after_one_comparison(stand_in: StandIn) -> None:
    assert nms(BOXES, SCORES, 0.5).tolist() == [1, 2]
    asked = len(stand_in.calls)
    assert nms(BOXES.half(), SCORES.double(), 0.5).tolist() == [1, 2]
    assert len(stand_in.calls) == asked + 1
    boxes, scores, threshold = stand_in.calls[-1]
    assert (boxes.dtype, scores.dtype, threshold) == (torch.float64, torch.float64, 0.5)


def test_nms_with_an_offset_never_takes_a_stand_in(stand_in: StandIn) -> None:
    nms(BOXES, SCORES, 0.5, offset=1)
    assert stand_in.calls == []


def test_an_agreeing_stand_in_pools_half_maps_with_boxes_in_float32(stand_in: StandIn) -> None:
    features = torch.randn(1, 2, 9, 9).bfloat16().requires_grad_()
    pooled = roi_align(features, ROIS, 2, 0.5)
    asked = len(stand_in.calls)
    sampling = _roi_align.RoISampling((2, 2), 0.5)
    expected = _roi_align.average_forward(features.detach(), ROIS, sampling)
    assert torch.equal(pooled, expected)
    assert stand_in.calls[-1][1].dtype == torch.float32
    pooled.sum().backward()
    grad = _roi_align.average_backward(torch.ones_like(expected), ROIS, features.shape, sampling)
    assert torch.equal(features.grad, grad)
    roi_align(features, ROIS, 2, 0.5, pool_mode="max")
    assert len(stand_in.calls) == asked


def test_the_comparison_with_a_stand_in_is_not_swayed_by_the_modes_of_the_first_call(
    stand_in: StandIn,
) -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        roi_align(torch.randn(1, 2, 9, 9), ROIS, 2)
        nms(BOXES, SCORES, 0.5)
    assert None not in _torchvision._VERDICTS.values()
    assert len(_torchvision._VERDICTS) == 2


def _unstable(self: StandIn, boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Ties the other way round."""
    return len(boxes) - 1 - _nms._blocked_nms(boxes.flip(0), scores.flip(0), threshold, 0)


def _missing(*args: Any) -> Tensor:
    raise NotImplementedError("Could not run 'torchvision::nms' with arguments from this backend")


@pytest.mark.parametrize("wrong", [_unstable, _missing])
def test_a_stand_in_that_breaks_ties_otherwise_or_cannot_run_is_left_alone(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Tensor]
) -> None:
    monkeypatch.setattr(StandIn, "nms", wrong)
    assert nms(BOXES, torch.full((3,), 0.5), 0.5).tolist() == [0, 2]
    assert list(_torchvision._VERDICTS.values()) == [None]


@pytest.mark.parametrize("part", ["value", "gradient", "not aligned"])
def test_a_stand_in_with_another_value_or_gradient_is_left_alone(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    right = StandIn.roi_align

    def wrong(self: StandIn, features: Tensor, *rest: Any) -> Tensor:
        if part == "value":
            features = features * 1.01
        elif part == "gradient":
            features = features.detach() + 0 * features
        elif not rest[-1]:
            features = features + 1
        return right(self, features, *rest)

    monkeypatch.setattr(StandIn, "roi_align", wrong)
    features = torch.randn(1, 2, 9, 9)
    expected = _roi_align.average_forward(features, ROIS, _roi_align.RoISampling((2, 2), 1.0))
    assert torch.equal(roi_align(features, ROIS, 2), expected)
    assert list(_torchvision._VERDICTS.values()) == [None]


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError, AttributeError])
def test_a_torchvision_that_fails_on_import_is_as_none(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(name: str) -> ModuleType:
        raise error("operator torchvision::nms does not exist")

    monkeypatch.setattr(_torchvision.importlib, "import_module", fail)
    assert nms(BOXES, SCORES, 0.5).tolist() == [1, 2]
    assert stand_in.calls == []
