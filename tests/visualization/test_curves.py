import json
from pathlib import Path

import numpy as np
import pytest

from swin_dense.errors import UserError
from swin_dense.visualization.curves import plot_curves, read_scalars, running_mean
from swin_dense.visualization.images import read_image


def _write(folder: Path, lines: list[object], tail: str = "") -> Path:
    file = folder / "20260101_000000" / "vis_data" / "scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return file


def _run_by_epoch() -> list[object]:
    lines: list[object] = []
    for epoch in (1, 2):
        for iteration in (50, 100):
            step = (epoch - 1) * 100 + iteration
            lines.append({"lr": 0.1, "loss": 1 / step, "epoch": epoch, "iter": step, "step": step})
        lines.append({"coco/bbox_mAP": epoch / 10, "val/loss": 1.0, "time": 0.1, "step": epoch})
    return lines


def test_curves_are_read_with_their_iterations(tmp_path: Path) -> None:
    _write(tmp_path, _run_by_epoch())
    curves = read_scalars(tmp_path)
    assert curves["loss"].steps.tolist() == [50, 100, 150, 200]
    assert curves["loss"].values.tolist() == [1 / 50, 1 / 100, 1 / 150, 1 / 200]
    assert "epoch" not in curves
    assert "step" not in curves


def test_a_metric_logged_by_epoch_stands_at_the_iteration_it_was_measured_at(
    tmp_path: Path,
) -> None:
    curves = read_scalars(_write(tmp_path, _run_by_epoch()))
    assert curves["coco/bbox_mAP"].steps.tolist() == [100, 200]
    assert curves["coco/bbox_mAP"].values.tolist() == [0.1, 0.2]
    assert curves["val/loss"].steps.tolist() == [100, 200]
    assert curves["loss"].steps.tolist() == [50, 100, 150, 200]


def test_the_half_line_of_a_killed_run_is_passed_over_and_a_broken_one_is_not(
    tmp_path: Path,
) -> None:
    file = _write(tmp_path, _run_by_epoch(), tail='{"lr": 0.')
    assert len(read_scalars(file)["lr"].steps) == 4
    file.write_text("garbage\n" + file.read_text())
    with pytest.raises(UserError, match="line 1: got 'garbage'"):
        read_scalars(file)


def test_a_folder_without_scalars_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no scalars\.json at"):
        read_scalars(tmp_path)


def test_the_running_mean_passes_over_values_that_are_not_finite() -> None:
    values = np.array([1.0, np.nan, 3.0, 5.0])
    assert running_mean(values, 2).tolist() == [1.0, 1.0, 3.0, 4.0]


def test_a_plot_has_a_panel_for_each_kind_and_marks_a_loss_that_broke(tmp_path: Path) -> None:
    lines = _run_by_epoch()
    lines.append({"loss": float("nan"), "lr": 0.1, "iter": 250, "step": 250})
    curves = read_scalars(_write(tmp_path, lines))
    picture = read_image(plot_curves(curves, tmp_path / "new" / "curves.png", dpi=100))
    assert picture.shape[:2] == (380, 1920)
    assert (picture == (255, 0, 0)).all(axis=2).sum() > 20
    only = read_image(plot_curves({"lr": curves["lr"]}, tmp_path / "lr.png", dpi=100))
    assert only.shape[:2] == (380, 640)
    assert not (only == (255, 0, 0)).all(axis=2).any()


def test_an_unknown_picture_format_leaves_nothing_behind(tmp_path: Path) -> None:
    curves = read_scalars(_write(tmp_path, _run_by_epoch()))
    with pytest.raises(UserError, match=r"cannot write .*curves\.xyz"):
        plot_curves(curves, tmp_path / "curves.xyz")
    assert not list(tmp_path.glob("curves*"))
    with pytest.raises(UserError, match="nothing to plot"):
        plot_curves({}, tmp_path / "none.png")
