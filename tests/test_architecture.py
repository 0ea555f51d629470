"""The layers of the package: imports point one way, and the lower layers know no host."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "swin_dense"

ORDER = [
    {"version", "errors"}, {"registry", "ops"}, {"layers"}, {"checkpoints"}, {"backbones"},
    {"host"}, {"models"}, {"data"}, {"evaluation", "visualization"}, {"engine"}, {"inference"},
    {"cli"},
]  # fmt: skip
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
HOSTS = {"mmcv", "mmdet", "mmseg"}
TORCH_ONLY = {"version", "errors", "ops", "layers", "checkpoints"}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Absolute names of every module that ``path`` imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert "*" not in {alias.name for alias in node.names}, f"{path}: star import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_left(path: Path) -> None:
    own = layer_of(path)
    for name in imports(path):
        if name.startswith("swin_dense.") and name != "swin_dense.version":
            other = name.split(".")[1]
            assert other == own or RANK[other] < RANK[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_lower_layers_know_no_host(path: Path) -> None:
    own, roots = layer_of(path), {name.split(".")[0] for name in imports(path)}
    if RANK[own] <= RANK["backbones"]:
        assert not roots & HOSTS
    if own in TORCH_ONLY:
        assert "mmengine" not in roots


def test_every_tool_only_calls_its_command() -> None:
    tools = sorted((PACKAGE.parent / "tools").glob("*.py"))
    assert len(tools) >= 5
    for tool in tools:
        expected = f"from swin_dense.cli.{tool.stem} import main\n"
        assert (
            tool.read_text()
            == expected + '\nif __name__ == "__main__":\n    raise SystemExit(main())\n'
        )
