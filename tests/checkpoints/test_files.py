"""Kinds of files, and what can be wrong: one clear error each, and the model stays as it was."""

from __future__ import annotations

import argparse
import builtins
import contextlib
import hashlib
import io
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from swin_dense import UserError, load_pretrained
from swin_dense.checkpoints.fetch import MIRRORS, OFFLINE, cached_path
from swin_dense.checkpoints.read import read_checkpoint
from tests.checkpoints.peers import official_state, v1, v2


@pytest.fixture
def state(parity: ModuleType) -> dict[str, Tensor]:
    return official_state(v1(), parity)


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    """An empty download cache."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield tmp_path / "hub"
    torch.hub.set_dir(before)


def to_safetensors(state: dict[str, Tensor], path: Path) -> None:
    """Write the format by its definition: a length, a JSON header, the bytes."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, value in state.items():
        end = offset + value.numel() * 4
        header[name] = dict(dtype="F32", shape=list(value.shape), data_offsets=[offset, end])
        offset = end
    text = json.dumps(header).encode()
    content = b"".join(value.numpy().tobytes() for value in state.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


def to_detectron2(state: dict[str, Tensor], path: Path, *, protocol: int = 2) -> None:
    arrays = {f"backbone.bottom_up.{name}": value.numpy() for name, value in state.items()}
    content = {"model": arrays, "__author__": "zoo", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content, protocol=protocol))


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], Any]] = {
    "a.pth": lambda state, path: torch.save({"model": state}, path),
    "old.pt": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "a.safetensors": to_safetensors,
    "a.npz": lambda state, path: np.savez(path, **{k: v.numpy() for k, v in state.items()}),
    "zoo2.pkl": to_detectron2,
    "zoo4.pkl": lambda state, path: to_detectron2(state, path, protocol=4),
    "zoo5.pkl": lambda state, path: to_detectron2(state, path, protocol=5),
    "misnamed.txt": lambda state, path: torch.save(state, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_kind_of_file_is_read_by_its_content(
    name: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    WRITERS[name](state, tmp_path / name)
    ours = v1()
    report = load_pretrained(ours, tmp_path / name)
    assert report.missing_suspicious == []
    for key, value in ours.state_dict().items():
        assert key.startswith("norm") or torch.equal(value, state[key]), key


def test_safetensors_of_every_dtype_equal_the_reference_reader(tmp_path: Path) -> None:
    reference = pytest.importorskip("safetensors.torch", reason="run `make setup`")
    dtypes = (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
        torch.int16, torch.int8, torch.uint8, torch.bool,
    )  # fmt: skip
    given = {str(d): torch.arange(6).reshape(2, 3).to(d) for d in dtypes}
    given |= {"scalar": torch.tensor(3.0), "none": torch.zeros(0, 4)}
    reference.save_file(given, tmp_path / "a.safetensors")
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert set(read) == set(given)
    for name, value in given.items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)


def test_arrays_of_a_pickle_keep_order_dtype_and_scalars(tmp_path: Path) -> None:
    given = {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big endian": np.arange(4, dtype=">i4"),
        "half": np.arange(4, dtype=np.float16),
        "scalar": np.float64(2.5),
        "list": [np.arange(2), "text", 3, None],
    }
    for protocol in (2, 3, 4, 5):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(given, protocol=protocol))
        read = read_checkpoint(tmp_path / "a.pkl")
        for name in ("fortran", "big endian", "half", "scalar"):
            assert np.array_equal(read[name], given[name]), (protocol, name)
            assert read[name].dtype.kind == given[name].dtype.kind
        assert read["list"][0].tolist() == [0, 1]
        assert read["list"][1:] == ["text", 3, None]


def test_options_saved_beside_weights_are_read_as_plain_containers(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({"model": state, "args": argparse.Namespace(lr=1, out="x")}, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")
    assert not isinstance(read["args"], argparse.Namespace)
    assert load_pretrained(v1(), tmp_path / "a.pth").missing_suspicious == []


def test_a_checkpoint_of_a_run_is_read_without_mmengines_classes(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    code = f"""
import torch, numpy as np
from mmengine.logging.history_buffer import HistoryBuffer
scalars = dict(loss=HistoryBuffer([1.0, 2.0], [1, 1]))
meta = dict(seed=np.int64(3), values=np.arange(3))
torch.save(dict(a=torch.ones(2), hub=scalars, meta=meta), {str(tmp_path / "run.pth")!r})
from swin_dense.checkpoints.read import read_checkpoint
read = read_checkpoint({str(tmp_path / "run.pth")!r})
assert type(read["hub"]["loss"]) is not HistoryBuffer
print(read["a"].tolist(), int(read["meta"]["seed"]), read["meta"]["values"].tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[1.0, 1.0] 3 [0, 1, 2]"


class Calls:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


ATTACKS: dict[str, Callable[[Path], tuple[Any, str]]] = {
    "os.system": lambda mark: (Calls(os.system, f"touch {mark}"), "system"),
    "eval": lambda mark: (Calls(builtins.eval, f"open({str(mark)!r}, 'w')"), "eval"),
    "open": lambda mark: (Calls(open, str(mark), "w"), "open"),
    "getattr": lambda mark: (Calls(getattr, "text", "upper"), "getattr"),
    "path": lambda mark: (Calls(Path, str(mark)), "Path"),
    "numpy load": lambda mark: (Calls(np.load, str(mark)), "load"),
    "object array": lambda mark: (np.array([Calls(os.system, f"touch {mark}")]), "system"),
}


@pytest.mark.parametrize("kind", ["torch", "torch legacy", "pickle 2", "pickle 4"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_crafted_file_is_refused_by_name_and_does_not_run(
    attack: str, kind: str, tmp_path: Path
) -> None:
    mark, path = tmp_path / "ran", tmp_path / "bad.pth"
    content, name = ATTACKS[attack](mark)
    content = {"model": {"patch_embed.proj.weight": content}}
    if kind.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    else:
        path.write_bytes(pickle.dumps(content, protocol=int(kind[-1])))
    ours = v1()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(UserError, match=r"could run code|no checkpoint") as caught:
        load_pretrained(ours, path)
    if attack != "object array":
        assert name in str(caught.value)
    assert not mark.exists()
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def test_a_stand_in_cannot_be_bent_by_a_file(tmp_path: Path) -> None:
    """BUILD on a name itself would set attributes of what the name stands for."""
    for name in ("numpy\ndtype", "numpy\nndarray", "collections\nOrderedDict"):
        crafted = b"\x80\x02c" + name.encode() + b"\n}X\x04\x00\x00\x00evilK\x01sb."
        (tmp_path / "a.pkl").write_bytes(crafted)
        with contextlib.suppress(UserError):
            read_checkpoint(tmp_path / "a.pkl")
    to_detectron2({"a": torch.arange(3.0)}, tmp_path / "good.pkl")
    assert read_checkpoint(tmp_path / "good.pkl")["model"]["backbone.bottom_up.a"].tolist() == [
        0.0,
        1.0,
        2.0,
    ]


def broken(kind: str, state: dict[str, Tensor], path: Path) -> None:
    whole = io.BytesIO()
    torch.save(state, whole)
    if kind == "truncated":
        path.write_bytes(whole.getvalue()[:5000])
    elif kind == "truncated safetensors":
        to_safetensors(state, path)
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "truncated pickle":
        to_detectron2(state, path)
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "truncated npz":
        np.savez(path.with_suffix(".npz"), **{k: v.numpy() for k, v in state.items()})
        path.write_bytes(path.with_suffix(".npz").read_bytes()[:4000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "web page":
        path.write_text("<!DOCTYPE html><html><body>Not Found</body></html>")
    elif kind == "git lfs":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    elif kind == "text":
        path.write_text("hello, this is no checkpoint at all")
    elif kind == "foreign":
        torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(9)}, path)
    elif kind == "no tensors":
        torch.save({"epoch": 3, "lr": 0.1}, path)
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "half of it":
        torch.save({k: v for k, v in state.items() if "layers.2" not in k or "qkv" in k}, path)


BROKEN = {
    "missing": ["no checkpoint at", "found nothing"],
    "truncated": ["truncated or damaged", "5000 bytes"],
    "truncated safetensors": ["truncated or damaged", "not all there"],
    "truncated pickle": ["truncated or damaged|no checkpoint"],
    "truncated npz": ["truncated or damaged"],
    "empty": ["is empty"],
    "web page": ["web page"],
    "git lfs": ["git lfs pull"],
    "text": ["a.pth"],
    "foreign": ["holds no Swin", "conv1.weight", "timm"],
    "no tensors": ["holds no tensors", "epoch"],
    "list": ["holds no tensors", "list"],
    "half of it": ["fills too little", "layers.2.blocks.0.attn.proj"],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_gives_one_clear_error_and_changes_nothing(
    kind: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    broken(kind, state, path)
    ours = v1()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_pretrained(ours, path)
    for words in BROKEN[kind]:
        assert any(word in str(caught.value) for word in words.split("|")), str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: v1(depths=(2, 2, 4, 2)), ["(2, 2, 2, 2)", "(2, 2, 4, 2)"]),
        (lambda: v1(embed_dims=32), ["embed_dims=16", "embed_dims=32"]),
        (lambda: v2(), ["Swin V1", "Swin V2"]),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused_with_both_sizes(
    model: Callable[[], Any], words: list[str], state: dict[str, Tensor]
) -> None:
    with pytest.raises(UserError) as caught:
        load_pretrained(model(), state)
    for word in words:
        assert word in str(caught.value)


def test_the_floor_is_the_callers_choice(state: dict[str, Tensor]) -> None:
    partial = {key: value for key, value in state.items() if not key.startswith("layers.3")}
    partial["layers.3.blocks.1.attn.qkv.weight"] = state["layers.3.blocks.1.attn.qkv.weight"]
    partial["layers.3.blocks.0.attn.qkv.weight"] = state["layers.3.blocks.0.attn.qkv.weight"]
    with pytest.raises(UserError, match="less than 90%"):
        load_pretrained(v1(), partial)
    report = load_pretrained(v1(), partial, min_coverage=0.1)
    assert 0.3 < report.coverage < 0.6
    assert "layers.3.blocks.0.mlp.fc1.weight" in report.missing_suspicious
    assert "norm0.weight" in report.missing_expected
    assert "MISSING, suspicious" in str(report)


def test_checksums(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    load_pretrained(v1(), path, sha256=digest)
    load_pretrained(v1(), path, sha256=digest[:8].upper())
    with pytest.raises(UserError, match=f"has sha256 {digest}, expected 00000000"):
        load_pretrained(v1(), path, sha256="0" * 64)


def test_a_url_is_downloaded_once(state: dict[str, Tensor], tmp_path: Path, hub: Path) -> None:
    path = tmp_path / "swin.pth"
    torch.save(state, path)
    load_pretrained(v1(), path.as_uri())
    path.unlink()
    load_pretrained(v1(), path.as_uri())
    assert cached_path(path.as_uri()) == hub / "checkpoints" / "swin.pth"


def test_urls_with_a_common_file_name_do_not_share_a_cache_entry(hub: Path) -> None:
    first = cached_path("https://example.org/a/resolve/main/model.safetensors")
    second = cached_path("https://example.org/b/resolve/main/model.safetensors")
    assert first != second
    assert first.name == second.name == "model.safetensors"


def test_mirrors_are_tried_in_turn(
    state: dict[str, Tensor], tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state, tmp_path / "swin.pth")
    gone = (tmp_path / "gone").as_uri() + "/swin.pth"
    load_pretrained(v1(), gone, mirrors=[(tmp_path / "swin.pth").as_uri()])
    cached_path(gone).unlink()
    monkeypatch.setenv(MIRRORS, f"https://x.org/=y {tmp_path.as_uri()}/gone/={tmp_path.as_uri()}/")
    load_pretrained(v1(), gone)


def test_a_download_is_held_to_the_checksum_in_its_name(tmp_path: Path, hub: Path) -> None:
    path = tmp_path / "swin-0123abcd.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="expected 0123abcd"):
        load_pretrained(v1(), path.as_uri())
    assert list((hub / "checkpoints").iterdir()) == []


def test_a_downloaded_web_page_is_not_kept(tmp_path: Path, hub: Path) -> None:
    (tmp_path / "swin.pth").write_text("<html>log in</html>")
    with pytest.raises(UserError, match="web page"):
        load_pretrained(v1(), (tmp_path / "swin.pth").as_uri())
    assert list((hub / "checkpoints").iterdir()) == []


def test_no_network_says_where_to_put_the_file(hub: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(UserError) as caught:
        load_pretrained(v1(), f"http://127.0.0.1:{port}/swin.pth")
    assert "could not download" in str(caught.value)
    assert str(hub / "checkpoints" / "swin.pth") in str(caught.value)


def test_offline_mode_never_tries(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]
) -> None:
    torch.save(state, tmp_path / "swin.pth")
    url = (tmp_path / "swin.pth").as_uri()
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(UserError, match=f"{OFFLINE} is set"):
        load_pretrained(v1(), url)
    monkeypatch.setenv(OFFLINE, "0")
    load_pretrained(v1(), url)
    monkeypatch.setenv(OFFLINE, "1")
    load_pretrained(v1(), url)  # from the cache
