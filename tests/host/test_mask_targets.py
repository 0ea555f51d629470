"""Mask targets of proposals, against mmdet's own cutting of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict

from swin_dense.host import mask_targets
from swin_dense.host.repairs import repair_hosts


@pytest.fixture(autouse=True)
def _repaired() -> None:
    repair_hosts()


def proposals(count: int, height: int, width: int) -> np.ndarray[Any, Any]:
    draw = np.random.default_rng(1)
    corners = draw.uniform(-5, 1.1, (count, 2, 2)) * (width, height)
    return np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)


@pytest.mark.parametrize("binarize", [True, False])
@pytest.mark.parametrize("together_px", [1, 5000, 1 << 24])
def test_targets_are_the_hosts_to_the_last_bit(
    together_px: int, binarize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmdet.structures.mask import BitmapMasks

    monkeypatch.setattr(mask_targets, "MASKS_AT_ONCE_PX", together_px)
    draw = np.random.default_rng(0)
    masks = BitmapMasks((draw.random((5, 37, 53)) > 0.5).astype(np.uint8), 37, 53)
    boxes, owners = proposals(30, 37, 53), draw.integers(0, 4, 30)  # the last mask has no box
    found, expected = (
        cut(masks, boxes, (7, 11), owners, binarize=binarize)
        for cut in (BitmapMasks.crop_and_resize, BitmapMasks.crop_and_resize.__wrapped__)
    )
    assert found.masks.dtype == expected.masks.dtype
    assert np.array_equal(found.masks, expected.masks)
    assert 0 < found.masks.mean() < 1
    assert (found.height, found.width) == (7, 11)


def test_no_boxes_and_no_masks_pass_as_ever() -> None:
    from mmdet.structures.mask import BitmapMasks

    none = BitmapMasks(np.empty((0, 9, 9), np.uint8), 9, 9)
    assert none.crop_and_resize(proposals(3, 9, 9), (4, 4), np.zeros(3, int)).masks.shape[1:] == (
        4,
        4,
    )
    some = BitmapMasks(np.ones((2, 9, 9), np.uint8), 9, 9)
    assert len(some.crop_and_resize(proposals(0, 9, 9), (4, 4), np.zeros(0, int)).masks) == 0


def test_mmdets_mask_targets_take_this_way() -> None:
    from mmdet.structures.mask import BitmapMasks, mask_target

    masks = np.zeros((2, 8, 8), np.uint8)
    masks[0, :4], masks[1, :, 4:] = 1, 1  # the upper half; the right half
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0], [4.0, 0.0, 8.0, 8.0]])
    owners = torch.tensor([0, 1, 1])
    found = mask_target([boxes], [owners], [BitmapMasks(masks, 8, 8)], ConfigDict(mask_size=4))
    upper = torch.tensor([1.0, 1.0, 0.0, 0.0])[:, None].expand(4, 4)
    right = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(4, 4)
    assert torch.equal(found, torch.stack([upper, right, torch.ones(4, 4)]))


SCRIPT = """
import json, sys
import numpy as np
from swin_dense.host.repairs import repair_hosts
from tests.peak import peak_bytes
repair_hosts()
from mmdet.structures.mask import BitmapMasks
masks = BitmapMasks(np.ones((4, 800, 1333), np.uint8), 800, 1333)
boxes = np.tile(np.float32([10, 10, 90, 70]), (128, 1))
masks.crop_and_resize(boxes[:1], (28, 28), np.zeros(1, int))
before = peak_bytes()
masks.crop_and_resize(boxes, (28, 28), np.arange(128) % 4)
print(json.dumps(peak_bytes() - before))
"""


def test_128_proposals_at_800_by_1333_take_no_half_gigabyte() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) < 60_000_000  # the four masks are 17 MB
