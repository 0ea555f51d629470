"""Read a plain pickle of numpy arrays, as detectron2's model zoo has, without running anything in
it.

Nothing the file names is ever looked up: the few names that such files need stand for functions
written here, which make arrays, and every other name is refused.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.errors import UserError

_KINDS = "biufcSUV"


class _Dtype:
    """What a pickle says about a numpy dtype: a code, then in its state the byte order."""

    def __init__(self, code: Any, *unused: Any) -> None:
        self.code = str(code)
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def dtype(self) -> np.dtype[Any]:
        dtype = np.dtype(self.code)
        if dtype.kind not in _KINDS or dtype.hasobject:
            raise pickle.UnpicklingError(f"an array of dtype {self.code!r}")
        return dtype.newbyteorder(self.order)  # type: ignore[arg-type]


class _Array:
    """Stands where an array will be; its state has shape, dtype, order and bytes."""

    array: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, is_fortran, content = state[-4:]
        flat = np.frombuffer(_as_bytes(content), dtype=dtype.dtype())
        self.array = flat.reshape(shape, order="F" if is_fortran else "C").copy()


def _as_bytes(content: Any) -> bytes:
    if isinstance(content, str):  # what Python 2 wrote
        return content.encode("latin1")
    return bytes(content)


def _scalar(dtype: _Dtype, content: Any) -> Any:
    return np.frombuffer(_as_bytes(content), dtype=dtype.dtype())[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def _from_buffer(content: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    made = _Array()
    made.__setstate__((shape, dtype, order == "F", content))
    return made


def _allowed() -> dict[str, Callable[..., Any]]:
    """Return fresh stand-ins, so that no file can leave a trace in them for the next."""
    numpy_names: dict[str, Callable[..., Any]] = {
        "multiarray._reconstruct": lambda *unused: _Array(),
        "multiarray.scalar": lambda *given: _scalar(*given),
        "numeric._frombuffer": lambda *given: _from_buffer(*given),
    }
    return {
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": lambda *given: _encode(*given),
        "numpy.ndarray": lambda *unused: _Array(),
        "numpy.dtype": lambda *given: _Dtype(*given),
        **{f"numpy.{core}.{n}": f for core in ("core", "_core") for n, f in numpy_names.items()},
    }


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream, encoding="latin1")
        self._stand_ins = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self._stand_ins:
            raise UserError(f"{module}.{name}")
        return self._stand_ins[f"{module}.{name}"]


def read_pickle(path: Path) -> Any:
    """Return what a pickle of containers, numbers, strings and numpy arrays holds.

    Raises:
        UserError: the file names anything else; the message is that name alone.
        pickle.UnpicklingError, EOFError, ValueError: it is damaged.
    """
    with path.open("rb") as stream:
        return _with_arrays(_Unpickler(stream).load())


def _with_arrays(value: Any) -> Any:
    """Return ``value`` with every stand-in replaced by its array, in dicts, lists and tuples."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {key: _with_arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_arrays(item) for item in value)
    return value
