"""Each repair of a host's hole, on the case that shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from swin_dense.checkpoints.read import read_checkpoint
from swin_dense.errors import UserError
from swin_dense.host.repairs import repair_hosts


@pytest.fixture(autouse=True)
def _repaired() -> None:
    repair_hosts()


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """One image with a cat on the left and a dog on the right; the file lists cat first."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 80, 3), np.uint8))
    boxes = {1: [4, 4, 20, 20], 2: [44, 4, 20, 20]}
    content = dict(
        images=[dict(id=7, file_name="a.png", height=40, width=80)],
        categories=[dict(id=1, name="cat"), dict(id=2, name="dog"), dict(id=9, name="emu")],
        annotations=[
            dict(id=i, image_id=7, category_id=i, bbox=box, area=400, iscrowd=0)
            for i, box in boxes.items()
        ],
    )
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path


def coco(root: Path, classes: tuple[str, ...]) -> Any:
    from mmdet.datasets import CocoDataset

    return CocoDataset(
        ann_file="a.json",
        data_root=str(root),
        data_prefix=dict(img=""),
        metainfo=dict(classes=classes),
    )


@pytest.mark.parametrize("classes", [("cat", "dog"), ("dog", "cat"), ("emu", "dog", "cat")])
def test_coco_labels_follow_the_names_in_the_config_not_the_order_of_the_file(
    classes: tuple[str, ...], animals: Path
) -> None:
    instances = coco(animals, classes).get_data_info(0)["instances"]
    named = {classes[instance["bbox_label"]]: instance["bbox"][0] for instance in instances}
    assert named == {"cat": 4, "dog": 44}


def test_a_class_that_the_file_does_not_have_is_refused(animals: Path) -> None:
    with pytest.raises(UserError, match=r"'dgo' \(did you mean 'dog'\?\).*3: cat, dog, emu"):
        coco(animals, ("cat", "dgo"))


def test_a_class_left_out_on_purpose_is_left_out(animals: Path) -> None:
    (instance,) = coco(animals, ("dog",)).get_data_info(0)["instances"]
    assert (instance["bbox_label"], instance["bbox"][0]) == (0, 44)


def test_mmengines_checkpoint_with_its_history_reads_with_weights_only(tmp_path: Path) -> None:
    from mmengine.logging import HistoryBuffer, MessageHub
    from mmengine.runner.checkpoint import CheckpointLoader

    hub = MessageHub.get_instance("test_repairs")
    for value in (3.0, 1.0, 2.0):
        hub.update_scalar("train/loss", value)
    hub.update_info("numbers", np.arange(3))
    content = dict(message_hub=hub.state_dict(), meta=dict(best=np.float64(0.5)), state_dict={})
    torch.save(content, tmp_path / "a.pth")
    for loaded in (
        read_checkpoint(tmp_path / "a.pth"),
        CheckpointLoader.load_checkpoint(str(tmp_path / "a.pth"), map_location="cpu"),
    ):
        history = loaded["message_hub"]["log_scalars"]["train/loss"]
        assert isinstance(history, HistoryBuffer)
        assert (history.mean(), history.min(), history.current()) == (2.0, 1.0, 2.0)
        assert loaded["meta"]["best"] == 0.5


class _Attribute:
    """Pickles as ``getattr(owner, name)``."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (self.owner, self.name))


def test_getattr_in_a_checkpoint_reaches_nothing_but_a_historys_statistics(tmp_path: Path) -> None:
    from mmengine.logging import HistoryBuffer

    torch.save(_Attribute(HistoryBuffer, "mean"), tmp_path / "good.pth")
    assert read_checkpoint(tmp_path / "good.pth") is HistoryBuffer.mean
    for owner, name in ((HistoryBuffer, "__init__"), (torch.Tensor, "numpy")):
        torch.save(_Attribute(owner, name), tmp_path / "bad.pth")
        with pytest.raises(UserError, match="refused"):
            read_checkpoint(tmp_path / "bad.pth")


def test_eval_of_the_hosts_own_swin_returns_the_model() -> None:
    from mmdet.models.backbones.swin import SwinTransformer as Mmdet
    from mmseg.models.backbones.swin import SwinTransformer as Mmseg

    for host_class in (Mmdet, Mmseg):
        model = host_class(embed_dims=8, depths=(1,), num_heads=(1,), out_indices=(0,))
        assert model.eval() is model
        assert not model.training
        assert model.train() is model
        assert model.training
