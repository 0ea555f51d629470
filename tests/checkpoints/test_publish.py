"""Published checkpoints: small, self-describing, held to their checksum."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from swin_dense import load_pretrained
from swin_dense.checkpoints.publish import normalisation, weights_sha256
from swin_dense.checkpoints.read import read_checkpoint
from swin_dense.cli.publish_model import main
from swin_dense.engine.config import load_config
from tests.checkpoints.peers import v1
from tests.small import MASK_RCNN

CLASSES = ("cat", "dog")


def run_checkpoint(path: Path, **meta: object) -> dict[str, torch.Tensor]:
    """What a run of mmengine leaves."""
    model = v1()
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    content = dict(
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        message_hub=dict(log_scalars={"loss": HistoryBuffer([1.0, 2.0], [1, 1])}),
        meta=meta,
    )
    torch.save(content, path)
    return model.state_dict()


def test_a_published_file_has_weights_names_config_and_normalisation_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = load_config(MASK_RCNN).pretty_text
    dataset = dict(classes=CLASSES, palette=[(1, 2, 3), (4, 5, 6)])
    weights = run_checkpoint(tmp_path / "epoch_12.pth", cfg=text, dataset_meta=dataset, epoch=12)
    assert main([str(tmp_path / "epoch_12.pth"), str(tmp_path / "mine.pth")]) == 0
    (path,) = tmp_path.glob("mine*")
    assert path.name == f"mine-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    assert path.stat().st_size < 0.4 * (tmp_path / "epoch_12.pth").stat().st_size
    content = read_checkpoint(path)
    assert set(content) == {"state_dict", "meta"}
    assert all(torch.equal(content["state_dict"][name], weights[name]) for name in weights)
    meta = content["meta"]
    assert meta["dataset_meta"] == dataset
    assert (meta["cfg"], meta["epoch"]) == (text, 12)
    assert meta["normalisation"] == dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    )
    assert meta["weights_sha256"] == weights_sha256(weights)
    assert meta["weights_sha256"] in capsys.readouterr().out
    assert load_pretrained(v1(), path).coverage == 1.0


def test_names_and_config_may_be_given(tmp_path: Path) -> None:
    run_checkpoint(tmp_path / "a.pth")
    arguments = [str(tmp_path / "a.pth"), str(tmp_path / "b")]
    assert main([*arguments, "--config", MASK_RCNN, "--classes", *CLASSES]) == 0
    (path,) = tmp_path.glob("b-*.pth")
    assert read_checkpoint(path)["meta"]["dataset_meta"] == {"classes": CLASSES}


@pytest.mark.parametrize(
    ("meta", "arguments", "words"),
    [
        (dict(), [], "--config"),
        (dict(cfg="a = 1"), [], "--classes"),
        (dict(cfg="a = 1", CLASSES=CLASSES), ["--classes", "cat"], "got 1 class names, expected 2"),
    ],
)
def test_what_is_lacking_is_named_and_nothing_is_written(
    meta: dict[str, object],
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_checkpoint(tmp_path / "a.pth", **meta)
    assert main([str(tmp_path / "a.pth"), str(tmp_path / "b"), *arguments]) == 1
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_config_is_parsed_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    text = f"data_preprocessor = dict(mean=open({str(mark)!r}, 'w'), std=[1, 2, 3])"
    assert normalisation(text) == {"std": [1, 2, 3]}
    assert normalisation("model = {'data_preprocessor': {'mean': [0]}}") == {"mean": [0]}
    assert normalisation("not a config") == {}
    assert not mark.exists()
