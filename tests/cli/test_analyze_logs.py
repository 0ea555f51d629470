"""Curves and speed of runs, from the files that mmengine writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swin_dense.cli.analyze_logs import main
from swin_dense.visualization.curves import iteration_times
from swin_dense.visualization.images import read_image


def write_run(folder: Path, *, epochs: bool = True, slope: float = 1.0) -> Path:
    lines: list[dict[str, Any]] = []
    times = {1: [9.0, 0.5, 0.25, 0.75], 2: [3.0, 1.0, 1.0, 2.5]}
    step = 0
    for epoch, values in times.items():
        for time in values:
            step += 10
            line = dict(lr=0.1, loss=slope / step, loss_mask=0.5, time=time, iter=step, step=step)
            lines.append(line | (dict(epoch=epoch) if epochs else {}))
        lines.append({"coco/bbox_mAP": 0.1 * epoch, "val/loss": 0.3, "time": 77.0, "step": epoch})
    file = folder / "20261121_100000" / "vis_data" / "scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return folder


def test_the_first_value_of_each_epoch_and_validation_do_not_count(tmp_path: Path) -> None:
    times = iteration_times(write_run(tmp_path / "a"))
    assert times.count == 6
    assert times.mean == pytest.approx(1.0)  # of 0.5 0.25 0.75 1 1 2.5
    assert times.median == pytest.approx(0.875)
    assert (times.slowest, times.slowest_at) == (2.5, 80)
    assert times.epochs == {1: pytest.approx(0.5), 2: pytest.approx(1.5)}


def test_a_run_that_counts_iterations_leaves_out_its_first_value_alone(tmp_path: Path) -> None:
    times = iteration_times(write_run(tmp_path / "a", epochs=False))
    assert times.count == 7
    assert times.slowest == 3.0
    assert times.epochs == {}
    assert iteration_times(tmp_path / "a", drop_first=False).slowest == 9.0


def test_the_command_prints_the_times_of_each_run(tmp_path: Path, capsys: Any) -> None:
    runs = [str(write_run(tmp_path / name)) for name in "ab"]
    assert main(["cal_train_time", *runs]) == 0
    said = capsys.readouterr().out
    assert said.count("mean    1.0000 s/iter over 6 logged values") == 2
    assert "slowest 2.5000 s/iter, logged at iteration 80" in said
    assert "slowest epoch 2, 1.5000 s/iter" in said
    assert main(["cal_train_time", runs[0], "--include-outliers"]) == 0
    assert "slowest 9.0000" in capsys.readouterr().out


def test_scalars_of_two_runs_are_plotted_together(tmp_path: Path, capsys: Any) -> None:
    runs = [str(write_run(tmp_path / name, slope=slope)) for name, slope in (("a", 1), ("b", 3))]
    out = tmp_path / "loss.png"
    arguments = ["plot_curve", *runs, "--keys", "loss", "coco/bbox_mAP", "--legend", "one", "two",
                 "three", "four", "--out", str(out), "--title", "Two runs"]  # fmt: skip
    assert main(arguments) == 0
    assert f"done: {out}" in capsys.readouterr().out
    picture = read_image(out)
    assert picture.shape == (528, 880, 3)
    colors = {tuple(int(v) for v in color) for color in np.unique(picture.reshape(-1, 3), axis=0)}
    assert len([color for color in colors if max(color) - min(color) > 120]) >= 4  # four hues
    svg = tmp_path / "loss.svg"
    assert main(["plot_curve", runs[0], "--out", str(svg)]) == 0
    assert "<svg" in svg.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plot_curve", "RUN", "--keys", "loss_maks"], "no 'loss_maks' (did you mean 'loss_mask"),
        (["plot_curve", "RUN", "--legend", "a", "b"], "--legend has 2 texts for 1 runs with 1 key"),
        (["plot_curve", "RUN", "RUN"], "two curves are called"),
        (["cal_train_time", "NOWHERE"], "no scalars.json at"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    tmp_path: Path, capsys: Any, arguments: list[str], message: str
) -> None:
    run = str(write_run(tmp_path / "a"))
    places = {"RUN": run, "NOWHERE": str(tmp_path / "nowhere")}
    assert main([places.get(argument, argument) for argument in arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_log_of_validation_alone_has_no_times(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "scalars.json").write_text('{"coco/bbox_mAP": 0.1, "time": 7.0, "step": 1}\n')
    assert main(["cal_train_time", str(tmp_path)]) == 1
    assert "has no time of a training iteration" in capsys.readouterr().err
