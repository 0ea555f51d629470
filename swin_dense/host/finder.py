"""Make ``mmcv._ext`` importable where mmcv was installed without its compiled part (mmcv-lite).

The finder stands last on ``sys.meta_path``: Python asks it only when no compiled ``mmcv._ext``
exists, so a compiled mmcv always wins, and nothing is imported before somebody asks for the module.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from types import ModuleType

EXT_NAME = "mmcv._ext"
PORTABLE_MODULE = "swin_dense.host.mmcv_ext"


class _MmcvExtFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != EXT_NAME:
            return None
        portable = find_spec(PORTABLE_MODULE)
        assert portable is not None
        assert portable.origin is not None
        return spec_from_file_location(EXT_NAME, portable.origin)


def install_mmcv_ext_finder() -> None:
    """Add the finder once; also give back ``pkgutil.find_loader``, which Python 3.14 removed.

    mmcv and mmengine still call ``find_loader`` to ask whether ``mmcv._ext`` exists.
    """
    if not any(isinstance(finder, _MmcvExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MmcvExtFinder())
    if not hasattr(pkgutil, "find_loader"):

        def find_loader(fullname: str) -> object | None:
            spec = find_spec(fullname)
            return spec.loader if spec else None

        pkgutil.find_loader = find_loader  # type: ignore[assignment]
