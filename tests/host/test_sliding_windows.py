"""Sliding windows summed in place, against mmseg's own padding of each to the picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from torch import Tensor

from swin_dense.errors import UserError
from swin_dense.host.repairs import repair_hosts
from swin_dense.host.sliding_windows import slide

CLASSES = 5


@pytest.fixture(autouse=True)
def _repaired() -> None:
    repair_hosts()


class Segmentor(torch.nn.Module):
    """Logits that depend on where in its window a pixel lies, as a network's with padding do."""

    out_channels = CLASSES

    def __init__(self, crop_size: Any = (16, 24), stride: Any = (11, 16)) -> None:
        super().__init__()
        self.test_cfg = ConfigDict(mode="slide", crop_size=crop_size, stride=stride)
        self.layer = torch.nn.Conv2d(3, CLASSES, 5, padding=2)
        self.windows: list[tuple[int, int]] = []

    @torch.no_grad()
    def encode_decode(self, inputs: Tensor, metas: list[dict[str, Any]]) -> Tensor:
        assert metas[0]["img_shape"] == inputs.shape[2:]
        self.windows.append(tuple(inputs.shape[2:]))
        return self.layer(inputs)


def by_the_host(segmentor: Segmentor, images: Tensor) -> Tensor:
    from mmseg.models import EncoderDecoder

    return EncoderDecoder.slide_inference.__wrapped__(segmentor, images, [{}])


@pytest.mark.parametrize(
    "image_hw",
    [(40, 60), (16, 24), (17, 25), (9, 7), (1, 1), (16, 100), (100, 5), (27, 40)],
    ids=str,
)
@pytest.mark.parametrize("stride", [(11, 16), (16, 24), (5, 1)], ids=str)
def test_logits_are_the_hosts_to_the_last_bit(
    stride: tuple[int, int], image_hw: tuple[int, int]
) -> None:
    segmentor, images = Segmentor(stride=stride), torch.randn(2, 3, *image_hw)
    ours = slide(segmentor, images, [{}])
    expected = by_the_host(segmentor, images)
    assert ours.shape == (2, CLASSES, *image_hw)
    assert torch.equal(ours, expected)
    half = len(segmentor.windows) // 2
    assert segmentor.windows[:half] == segmentor.windows[half:]


def test_windows_of_one_size_that_meet_give_each_pixel_once() -> None:
    segmentor = Segmentor(crop_size=(4, 4), stride=(4, 4))
    images = torch.randn(1, 3, 8, 12)
    ours = slide(segmentor, images, [{}])
    assert len(segmentor.windows) == 6
    assert torch.equal(ours[:, :, 4:, 8:], segmentor.layer(images[:, :, 4:, 8:]).detach())


def test_half_precision_is_summed_in_single_precision() -> None:
    segmentor = Segmentor(stride=(3, 3))
    images = torch.randn(1, 3, 40, 60)
    exact = slide(segmentor, images, [{}])
    half = slide(segmentor.bfloat16(), images.bfloat16(), [{}])
    assert half.dtype == torch.float32
    error = (half - exact).abs().max()
    in_halves = by_the_host(segmentor, images.bfloat16())
    assert error < (in_halves.float() - exact).abs().max() / 2


def test_windows_that_leave_pixels_out_are_refused_with_the_numbers() -> None:
    expected = r"stride 30 and crop_size 24 in width: 12 of the picture's 84 pixels.*\(16\)"
    with pytest.raises(UserError, match=expected):
        slide(Segmentor(stride=(16, 30)), torch.zeros(1, 3, 16, 84), [{}])


def test_a_long_stride_that_leaves_nothing_out_works_as_for_the_host() -> None:
    segmentor, images = Segmentor(stride=(20, 30)), torch.randn(1, 3, 30, 40)
    assert torch.equal(slide(segmentor, images, [{}]), by_the_host(segmentor, images))


@pytest.mark.parametrize("options", [
    dict(crop_size=(16, 0)), dict(stride=(0, 8)), dict(stride=8), dict(stride=(-4, 8)),
    dict(crop_size=None), dict(stride=(8, 8, 8)), dict(crop_size=(16.5, 24)),
], ids=str)  # fmt: skip
def test_sides_that_are_none_are_refused_by_name(options: dict[str, Any]) -> None:
    (key,) = options
    with pytest.raises(UserError, match=rf"got {key}=.*model\.test_cfg\.{key}"):
        slide(Segmentor(**options), torch.zeros(1, 3, 32, 32), [{}])


def built(**test_cfg: Any) -> Any:
    from mmengine.registry import MODELS, DefaultScope

    head = dict(
        type="FCNHead", in_channels=128, channels=8, num_convs=1, in_index=-1, num_classes=CLASSES,
        norm_cfg=dict(type="BN"), align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    )  # fmt: skip
    backbone = dict(type="FastSCNN", norm_cfg=dict(type="BN"))
    cfg = dict(type="EncoderDecoder", backbone=backbone, decode_head=head, test_cfg=test_cfg)
    with DefaultScope.overwrite_default_scope("mmseg"):
        return MODELS.build(ConfigDict(cfg)).eval()


def predict(model: Any, image: Tensor, ori_shape: tuple[int, int], **meta: Any) -> Any:
    from mmseg.structures import SegDataSample

    shape = tuple(image.shape[2:])
    sample = SegDataSample(metainfo=dict(img_shape=shape, ori_shape=ori_shape, **meta))
    with torch.no_grad():
        return model.predict(image, [sample])[0]


@pytest.mark.parametrize("ori_shape", [(96, 150), (64, 100), (130, 203)], ids=str)
@pytest.mark.parametrize(
    "meta", [{}, dict(flip=True, flip_direction="horizontal"), dict(padding_size=(0, 6, 0, 4))],
    ids=["plain", "flipped", "padded"],
)  # fmt: skip
def test_a_segmentors_result_is_the_hosts(
    ori_shape: tuple[int, int], meta: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mmseg.models.segmentors.base as base
    from mmseg.models import EncoderDecoder

    model = built(mode="slide", crop_size=(64, 64), stride=(42, 42))
    image = torch.randn(1, 3, 96, 150)
    ours = predict(model, image, ori_shape, **meta)
    slide_inference = EncoderDecoder.slide_inference.__wrapped__
    monkeypatch.setattr(EncoderDecoder, "slide_inference", slide_inference)
    monkeypatch.setattr(base, "resize", base.resize.__wrapped__)
    expected = predict(model, image, ori_shape, **meta)
    assert ours.seg_logits.data.shape == (CLASSES, *ori_shape)
    assert torch.allclose(ours.seg_logits.data, expected.seg_logits.data, rtol=0, atol=1e-6)
    assert torch.equal(ours.pred_sem_seg.data, expected.pred_sem_seg.data)
    assert len(ours.pred_sem_seg.data.unique()) > 1


def test_logits_of_the_photographs_size_are_not_copied() -> None:
    model = built(mode="whole")
    logits = torch.randn(1, CLASSES, 30, 40)
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(ori_shape=(30, 40)))
    (result,) = model.postprocess_result(logits, [sample])
    assert result.seg_logits.data.data_ptr() == logits.data_ptr()
    assert torch.equal(result.pred_sem_seg.data[0], logits[0].argmax(dim=0))
    # one of a batch is a copy: it would keep the whole batch in memory, and in a file
    both = torch.randn(2, CLASSES, 30, 40)
    samples = [SegDataSample(metainfo=dict(ori_shape=(30, 40))) for _ in both]
    for place, found in enumerate(model.postprocess_result(both, samples)):
        assert found.seg_logits.data.untyped_storage().nbytes() == CLASSES * 30 * 40 * 4
        assert torch.equal(found.seg_logits.data, both[place])


PEAK = """
import json, torch
from mmengine.config import ConfigDict
from swin_dense.host.sliding_windows import slide
from tests.peak import peak_bytes

class Segmentor:
    out_channels = 100
    test_cfg = ConfigDict(mode="slide", crop_size=(256, 256), stride=(170, 170))
    def encode_decode(self, inputs, metas):
        return inputs.mean(dim=1, keepdim=True).repeat(1, 100, 1, 1)

image = torch.ones(1, 3, 1024, 2048)
segmentor = Segmentor()
slide(segmentor, image[:, :, :300, :300], [{}])
before = peak_bytes()
logits = slide(segmentor, image, [{}])
extra = peak_bytes() - before
print(json.dumps(dict(extra=extra, least=float(logits.min()), most=float(logits.max()))))
"""


def test_peak_memory_is_the_logits_one_count_and_a_window() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["least"] == found["most"] == 1
    logits_bytes = 100 * 1024 * 2048 * 4
    bound = logits_bytes + 1024 * 2048 * 4 + 2 * 100 * 256 * 256 * 4
    assert logits_bytes * 0.9 < found["extra"] < bound  # the host needs more than twice as much
