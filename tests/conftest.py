"""Shared fixtures: the real photographs and the recorded outputs of the official code."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def _shared_root() -> Path:
    return Path(os.environ.get("SWIN_DENSE_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the test photographs (``data/``) and records (``parity/``)."""
    root = _shared_root()
    if not (root / "parity").is_dir():
        pytest.skip(
            f"the shared test data is not at {root}: put the folder with data/ and parity/ there, "
            "or "
            "point SWIN_DENSE_SHARED at it"
        )
    return root


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """The photographs with annotations: coco_mini, ade_mini, cocosem_mini, coco_eval."""
    return shared / "data"


@pytest.fixture(scope="session")
def parity(shared: Path) -> ModuleType:
    """The module that fills models by parameter name and compares them with the records."""
    spec = importlib.util.spec_from_file_location("parity", shared / "parity" / "parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same random state."""
    torch.manual_seed(0)
