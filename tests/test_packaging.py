"""What ``pip install .`` gives: the package, its configs inside, and the one command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_an_installed_package_finds_its_configs_far_from_the_checkout(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "work_dirs", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    done = run(
        *install, "--no-build-isolation", "--target", str(target), str(source), cwd=elsewhere
    )
    assert done.returncode == 0, done.stderr
    shipped = {path.relative_to(target / "swin_dense") for path in target.rglob("configs/**/*.py")}
    assert shipped == {path.relative_to(ROOT) for path in ROOT.glob("configs/**/*.py")}
    parts = Path("swin_dense/visualization/report")
    for kind in ("*.html", "*.css", "*.js"):  # what the report is made of travels along
        shipped_parts = {path.name for path in (target / parts).glob(kind)}
        assert shipped_parts == {path.name for path in (ROOT / parts).glob(kind)} != set()
    name = "mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py"
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r}); "
        "from swin_dense.cli.__main__ import main; import swin_dense; "
        f"assert swin_dense.__file__.startswith({str(target)!r}), swin_dense.__file__; "
        f"raise SystemExit(main(['print_config', {name!r}]))"
    )
    done = run(sys.executable, "-c", code, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert "swin_dense.SwinTransformer" in done.stdout
    assert (
        "swin-dense = swin_dense.cli.__main__:main"
        in next(target.glob("*.dist-info/entry_points.txt")).read_text()
    )
