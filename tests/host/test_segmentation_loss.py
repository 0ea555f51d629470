"""The losses of mmseg's heads without resized logits, against the host's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.structures import PixelData
from torch import Tensor

from swin_dense.host.repairs import repair_hosts
from swin_dense.ops import fused

CROSS_ENTROPY = dict(type="CrossEntropyLoss", loss_weight=0.4)


@pytest.fixture(autouse=True)
def _repaired() -> None:
    repair_hosts()


def head_of(**options: Any) -> Any:
    from mmseg.models import FCNHead

    torch.manual_seed(0)
    sizes = dict(in_channels=4, channels=8, num_classes=5, num_convs=1)
    return FCNHead(**sizes, **(dict(loss_decode=CROSS_ENTROPY) | options)).double()


def losses_of(head: Any, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    from mmseg.structures import SegDataSample

    samples = []
    for each in labels:
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=each[None])
        samples.append(sample)
    losses: dict[str, Tensor] = head.loss_by_feat(logits, samples)
    return losses


def draw() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    labels = torch.randint(0, 5, (2, 24, 33))
    labels[0, :5] = 255
    return torch.randn(2, 5, 6, 8, dtype=torch.float64, requires_grad=True), labels


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(align_corners=True),
        dict(ignore_index=2),
        dict(loss_decode=CROSS_ENTROPY | dict(avg_non_ignore=True)),
        dict(loss_decode=[CROSS_ENTROPY, CROSS_ENTROPY]),
        dict(loss_decode=[CROSS_ENTROPY, dict(type="CrossEntropyLoss", loss_name="loss_b")]),
    ],
    ids=str,
)
def test_losses_and_gradients_are_the_hosts(options: dict[str, Any]) -> None:
    head = head_of(**options)
    logits, labels = draw()
    labels[labels == 255] = head.ignore_index
    found = losses_of(head, logits, labels)
    with fused.plain():
        expected = losses_of(head, logits, labels)
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value.double(), rtol=1e-6, atol=0)
        assert found[name].shape == value.shape
    grads = []
    for losses in (found, expected):
        total = sum(value for name, value in losses.items() if name.startswith("loss"))
        grads.append(torch.autograd.grad(total, logits)[0])  # type: ignore[arg-type]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    "options",
    [
        dict(loss_decode=CROSS_ENTROPY | dict(class_weight=[1.0, 2.0, 1.0, 0.5, 1.0])),
        dict(loss_decode=[CROSS_ENTROPY, dict(type="DiceLoss")]),
        dict(sampler=dict(type="OHEMPixelSampler", min_kept=40)),
    ],
    ids=["class weights", "another loss", "a sampler"],
)
def test_other_losses_keep_the_hosts_way(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from swin_dense.host import segmentation_loss

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("not for this loss")

    monkeypatch.setattr(segmentation_loss, "resized_cross_entropy", never)
    logits, labels = draw()
    labels[labels == 255] = 0  # which the host's class weights do not take
    losses = losses_of(head_of(**options), logits, labels)
    assert all(value.isfinite().all() for value in losses.values())
    with pytest.raises(AssertionError, match="not for this loss"):
        losses_of(head_of(), *draw())


def test_pictures_without_a_pixel_that_counts_give_what_the_host_gives() -> None:
    head = head_of(loss_decode=CROSS_ENTROPY | dict(avg_non_ignore=True))
    logits, labels = draw()
    labels[:] = 255
    found = losses_of(head, logits, labels)
    with fused.plain():
        expected = losses_of(head, logits, labels)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value.double())
