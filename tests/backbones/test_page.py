"""``docs/backbones.md``: its table says what is counted, and what it teaches works."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from swin_dense import UserError, load_pretrained
from swin_dense.backbones.base import Backbone
from swin_dense.engine.config import load_config, shipped_configs
from swin_dense.engine.counting import build_on_meta
from swin_dense.evaluation.complexity import count_model
from swin_dense.registry import MODELS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "backbones.md"
ROW = re.compile(
    r"^\| (\w+) \| (\w+) \| ([\d.]+)M \| ([\d.]+)G \| ([\d.]+) s \| (\d+) MiB \|$", re.M
)


class Whole(torch.nn.Module):
    """A model that is a backbone alone."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


ROWS = ROW.findall(PAGE.read_text())


def test_every_published_size_of_every_backbone_has_a_row() -> None:
    import swin_dense.backbones  # noqa: F401

    sizes = {
        (name, arch)
        for name, kind in MODELS.module_dict.items()
        if isinstance(kind, type) and issubclass(kind, Backbone)
        for arch in kind.architectures
    }
    assert sizes - {("PVTv2", "b2_linear")} == {(row[0], row[1]) for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_parameters_and_macs_of_a_row_are_those_counted(row: tuple[str, ...]) -> None:
    with torch.device("meta"):
        model = Whole(MODELS.get(row[0])(row[1])).eval()
    cost = count_model(model, (800, 1280))[0]
    assert (f"{cost.parameters / 1e6:.2f}", f"{cost.macs / 1e9:.1f}") == (row[2], row[3])


@pytest.fixture
def taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, Path]]:
    """The module and the config that the page teaches, in a folder as it says."""
    text = PAGE.read_text()
    lesson = text[text.index("## Add your own") :]
    code, config = re.findall(r"```python\n(.*?)```", lesson, re.DOTALL)
    (tmp_path / "my_backbone.py").write_text(code)
    (tmp_path / "my_plain.py").write_text(config)
    (tmp_path / "configs").symlink_to(shipped_configs())
    monkeypatch.syspath_prepend(tmp_path)
    import my_backbone

    yield my_backbone, tmp_path / "my_plain.py"
    MODELS.module_dict.pop("PlainNet")
    del sys.modules["my_backbone"]


def test_the_backbone_of_the_page_works_as_it_says(taught: tuple[Any, Path]) -> None:
    module, config = taught
    model = build_on_meta(load_config(config))
    assert type(model.backbone) is module.PlainNet
    assert tuple(load_config(config).model.neck.in_channels) == model.backbone.out_channels
    first, second = module.PlainNet(), module.PlainNet(frozen_stages=1, with_cp=True)
    assert load_pretrained(second, first.state_dict()).coverage == 1.0
    images = torch.randn(1, 3, 70, 93)
    for got, want, stride in zip(second(images), first(images), first.out_strides, strict=True):
        assert torch.equal(got, want)
        assert got.shape[2:] == (-(-70 // stride), -(-93 // stride))
    assert not second.stages[0][0].bias.requires_grad
    for mistake, words in (
        (dict(with_pc=True), "did you mean 'with_cp'"),
        (dict(arch="smal"), "did you mean 'small'"),
        (dict(out_indices=(5,)), "0 to 3"),
    ):
        with pytest.raises(UserError, match=words):
            module.PlainNet(**mistake)
    with pytest.raises(UserError, match="a PlainNet with width=16; the model is a PlainNet with"):
        load_pretrained(module.PlainNet("large"), first.state_dict())
