"""Checkpoints written for other projects: their classes load them, and the way back is exact."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from swin_dense.checkpoints.convert import TARGETS, convert
from swin_dense.checkpoints.formats import unwrap
from swin_dense.checkpoints.read import read_checkpoint
from swin_dense.cli.convert_checkpoint import TARGETS as CHOICES
from swin_dense.cli.convert_checkpoint import main
from tests.checkpoints.peers import (
    DEPTHS,
    HEADS,
    IMAGE,
    WINDOW,
    official_state,
    timm_class,
    v1,
    v2,
)

VERSIONS = {"V1": v1, "V2": v2}
POSITIONS = dict(use_abs_pos_embed=True, pretrain_img_size=64)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return set(first) == set(second) and all(
        torch.equal(value, second[name]) and value.dtype == second[name].dtype
        for name, value in first.items()
    )


def as_published(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an official file: positions as (1, L, C), and the index buffers."""
    return unwrap(convert({"model": official}, "official"), "here")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("version", VERSIONS)
def test_there_and_back_is_bit_identical(
    version: str, target: str, suffix: str, parity: ModuleType, tmp_path: Path
) -> None:
    options = {} if target == "torchvision" else POSITIONS
    source = as_published(official_state(VERSIONS[version](**options), parity))
    torch.save({"model": source}, tmp_path / "a.pth")
    there, back = tmp_path / f"b{suffix}", tmp_path / f"c{suffix}"
    assert main([str(tmp_path / "a.pth"), "--to", target, "-o", str(there)]) == 0
    assert main([str(there), "--to", "official", "-o", str(back)]) == 0
    got = unwrap(read_checkpoint(back), "c")
    if target in ("mmdet", "mmseg"):  # these files have the prefix of a whole model
        got = {name.removeprefix("backbone."): value for name, value in got.items()}
    assert equal(got, source)


def test_mmdets_class_loads_a_converted_file_strictly(parity: ModuleType) -> None:
    from mmdet.models.backbones.swin import SwinTransformer

    state = {**official_state(v1(), parity, head=False)}
    state |= {name: value for name, value in v1().state_dict().items() if name.startswith("norm")}
    written = convert({"model": state}, "mmdet")["state_dict"]
    peer = SwinTransformer(embed_dims=16, depths=DEPTHS, num_heads=HEADS, window_size=WINDOW)
    names = {name.removeprefix("backbone."): value for name, value in written.items()}
    peer.load_state_dict(names, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_timms_class_loads_a_converted_file_strictly(version: str, parity: ModuleType) -> None:
    kind = timm_class("SwinTransformer" + ("V2" if version == "V2" else ""))
    sizes = dict(embed_dim=16, depths=DEPTHS, num_heads=HEADS, window_size=WINDOW, num_classes=5)
    peer = kind(img_size=IMAGE, **sizes)
    state = convert({"model": official_state(VERSIONS[version](), parity)}, "timm")
    peer.load_state_dict(state, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_transformers_loads_a_converted_file_strictly(version: str, parity: ModuleType) -> None:
    transformers = pytest.importorskip("transformers", reason="run `make setup`")
    name = "Swinv2" if version == "V2" else "Swin"
    sizes = dict(embed_dim=16, depths=list(DEPTHS), num_heads=list(HEADS), num_labels=5)
    config = getattr(transformers, f"{name}Config")(**sizes, window_size=WINDOW, image_size=IMAGE)
    kind = getattr(transformers, f"{name}ForImageClassification")
    state = convert({"model": official_state(VERSIONS[version](), parity)}, "hf")
    peer, report = kind.from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(peer.state_dict()["classifier.weight"], state["classifier.weight"])


def test_a_whole_model_keeps_heads_names_and_meta_between_mm_and_official(
    parity: ModuleType,
) -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.neck = v1(), nn.Linear(2, 3)

    state = Whole().state_dict()
    meta = {"dataset_meta": {"classes": ("cat", "dog")}}
    there = convert({"state_dict": state, "meta": meta}, "mmdet")
    assert there["meta"] == meta
    assert torch.equal(there["state_dict"]["neck.weight"], state["neck.weight"])
    assert "backbone.stages.0.blocks.0.attn.w_msa.qkv.weight" in there["state_dict"]
    back = convert(there, "official")
    index = {name: value for name, value in back["model"].items() if "index" in name}
    assert len(index) == 8
    assert equal(back["model"], {**state, **index})
    assert "neck.weight" not in convert(there, "timm")


def test_torchvisions_index_is_flat(parity: ModuleType) -> None:
    state = convert({"model": official_state(v1(), parity)}, "torchvision")
    index = state["features.1.0.attn.relative_position_index"]
    assert index.shape == (WINDOW**4,)
    assert torch.equal(index.view(16, 16), v1().layers[0].blocks[0].attn.relative_position_index)


def test_the_command_and_the_library_know_the_same_targets() -> None:
    assert tuple(TARGETS) == CHOICES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.pth", "--to", "timn", "-o", "b.pth"], ["timn", "torchvision"]),
        (["none.pth", "--to", "timm", "-o", "b.pth"], ["no checkpoint at none.pth"]),
        (["resnet.pth", "--to", "timm", "-o", "b.pth"], ["resnet.pth holds no Swin"]),
        (["a.pth", "--to", "timm", "-o", "b.txt"], ["b.txt", ".safetensors"]),
        (["a.pth", "--to", "timm", "-o", "no/b.pth"], ["no folder no"]),
        (["a.pth", "--to", "torchvision", "-o", "b.pth"], ["position embedding"]),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    arguments: list[str],
    words: list[str],
    parity: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": official_state(v1(**POSITIONS), parity)}, "a.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, "resnet.pth")
    assert main(arguments) == 1
    message = capsys.readouterr().err
    for word in words:
        assert word in message
    assert {path.name for path in tmp_path.iterdir()} == {"a.pth", "resnet.pth"}
