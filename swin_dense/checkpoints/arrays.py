"""``.safetensors`` and ``.npz`` files: tensors by name and nothing else."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as the format asks: a header's length, then its opening brace."""
    with path.open("rb") as stream:
        head = stream.read(9)
    return len(head) == 9 and head[8:] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 10**8


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file (https://github.com/huggingface/safetensors).

    Raises:
        ValueError: it is cut short or contradicts itself.
    """
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    if start > len(content):
        raise ValueError(f"its header should have {start - 8} bytes")
    header: dict[str, Any] = json.loads(content[8:start])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        tensors[name] = _tensor(content, start, name, entry)
    return tensors


def write_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name, in the format that :func:`read_safetensors` reads.

    Raises:
        ValueError: a tensor's dtype is none of the format's.
    """
    names = {dtype: name for name, dtype in _SAFETENSORS_DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, value in tensors.items():
        if value.dtype not in names:
            raise ValueError(
                f"{name} has dtype {value.dtype}, which .safetensors files cannot hold"
            )
        end = offset + value.numel() * value.dtype.itemsize
        shape = list(value.shape)
        header[name] = dict(dtype=names[value.dtype], shape=shape, data_offsets=[offset, end])
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for value in tensors.values():
            flat = value.detach().cpu().contiguous().flatten()
            stream.write(flat.view(torch.uint8).numpy().tobytes())


def _tensor(content: bytearray, start: int, name: str, entry: dict[str, Any]) -> Tensor:
    first, last = entry["data_offsets"]
    if entry["dtype"] not in _SAFETENSORS_DTYPES:
        raise ValueError(f"{name} has dtype {entry['dtype']}")
    dtype, shape = _SAFETENSORS_DTYPES[entry["dtype"]], entry["shape"]
    count = math.prod(shape)
    if not 0 <= first <= last <= len(content) - start or last - first != count * dtype.itemsize:
        raise ValueError(f"the bytes of {name} are not all there")
    if not count:
        return torch.empty(shape, dtype=dtype)
    # a copy, so that one tensor does not keep the whole file in memory, and is aligned
    values = bytearray(content[start + first : start + last])
    return torch.frombuffer(values, dtype=dtype).reshape(shape)


def is_npz(path: Path) -> bool:
    """Whether a file is a zip archive of ``.npy`` members alone."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def read_npz(path: Path) -> dict[str, Tensor]:
    """Return the arrays of an ``.npz`` file as tensors.

    Raises:
        ValueError: it is damaged, or holds Python objects.
    """
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}
