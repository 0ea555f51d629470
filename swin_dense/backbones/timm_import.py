"""Import timm, with or without torchvision.

timm imports torchvision for its image transforms, and there is not a build of that for every torch.
Its models use none of it, so that an empty stand-in serves while timm is imported, and is gone
afterwards. A torchvision that is installed is used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from swin_dense.errors import UserError

_STAND_IN = "torchvision"
_LEFT_OUT = "torchvision.models"  # timm asks for this one with a way out, and takes it


def import_timm(name: str = "timm") -> ModuleType:
    """Return ``timm`` or a module of it.

    Raises:
        UserError: there is no timm here, or it does not import.
    """
    if find_spec("timm") is None:
        raise UserError(
            "models of timm need timm, which is not installed; expected timm 1.0 or newer. Where "
            "torchvision has a build for your torch: pip install timm. Where it has none, it is "
            "not needed here: pip install --no-deps timm huggingface_hub safetensors."
        )
    try:
        with _stand_in():
            return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch is the latter
        raise UserError(
            f"timm is installed and does not import: {error}. Expected timm 1.0 or newer, and a "
            "torchvision that fits this torch or none: pip install --upgrade --no-deps timm "
            "huggingface_hub safetensors, and pip uninstall torchvision if that is what breaks."
        ) from error


class _Absent(type):
    """What a stand-in's names are: good for annotations and ``isinstance``, not for use."""

    def __getattr__(cls, name: str) -> type:
        return _absent(name)

    def __call__(cls, *args: Any, **options: Any) -> Any:
        raise UserError(
            f"{cls.__name__} is torchvision's, which was not there when timm was imported; "
            "expected it for timm's image transforms. Install the torchvision of your torch."
        )


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> type:
        return _absent(name)


def _absent(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Absent(name, (), {})


class _EmptyFinder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != _STAND_IN or fullname.startswith(_LEFT_OUT):
            return None
        loader: Any = self
        return ModuleSpec(fullname, loader, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty."""


@contextmanager
def _stand_in() -> Iterator[None]:
    """Answer for torchvision where there is none; what was put in its place is taken away."""
    if find_spec(_STAND_IN) is not None:
        yield
        return
    finder = _EmptyFinder()
    before = set(sys.modules)
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if isinstance(sys.modules[name], _Empty):
                del sys.modules[name]
