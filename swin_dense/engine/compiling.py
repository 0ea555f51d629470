"""``compile_backbone`` in a config: torch.compile for the backbone and the neck."""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from swin_dense.engine.runtime import on_cpu
from swin_dense.errors import UserError

PARTS = ("backbone", "neck")


def compile_parts(model: nn.Module, cfg: Config) -> list[str]:
    """Compile what ``compile_backbone`` asks for, in place; return a line for the log.

    The key is ``True`` or a dict of options of :func:`torch.compile`. The graph has symbolic
    sizes, so that images of a new size use it as it is; heads and losses stay eager.

    Raises:
        UserError: the key is neither, or the machine has no compiler for what the graph becomes.
    """
    options = cfg.get("compile_backbone")
    if not options:
        return []
    if options is not True and not isinstance(options, dict):
        raise UserError(
            f"compile_backbone={options!r}; expected True, False or a dict of options of "
            "torch.compile, for example dict(mode='max-autotune-no-cudagraphs')."
        )
    options = {"dynamic": True, **({} if options is True else options)}
    if options.get("backend", "inductor") == "inductor" and on_cpu():
        _check_compiler()
    while not hasattr(model, "backbone") and hasattr(model, "module"):
        model = model.module  # type: ignore[assignment]
    compiled = [name for name in PARTS if isinstance(getattr(model, name, None), nn.Module)]
    for name in compiled:
        getattr(model, name).compile(**options)
    return [
        f"torch.compile: {' and '.join(compiled)} will be compiled in the first iterations, "
        "which takes minutes"
    ]


def _check_compiler() -> None:
    compiler: Any = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(
            f"compile_backbone on the CPU needs a C++ compiler, and there is no {compiler} (torch "
            f"{torch.__version__} turns the graph into C++). Install g++, set CXX, or take "
            "compile_backbone out."
        )
