"""What the report's page and the pictures beside it hold, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from swin_dense.cli.compare import main as compare
from swin_dense.engine.report.compare import compare_runs
from swin_dense.engine.report.runs import read_run
from swin_dense.engine.report.write import STAMP, write_report
from swin_dense.errors import UserError
from swin_dense.evaluation.analysis.detection import analyse_detection
from swin_dense.visualization.report.page import as_script_data
from swin_dense.visualization.report.shots import (
    LONG_SIDE_PX,
    PIXEL_COLORS,
    outline,
    small_size,
    write_overlay,
)
from tests.engine.report.saved import sample, save_detection, save_segmentation


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    data = sample(root / "data", 6)
    save_detection(data, root / "det")
    save_detection(data, root / "better", skill=1.0, seed=1)
    save_segmentation(data, root / "seg")
    save_segmentation(data, root / "sharper", shift_px=0, seed=0)
    return root


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script id="data"[^>]*>(.*?)</script>', page.read_text(), re.S)
    assert found is not None
    return json.loads(found.group(1))


def test_the_page_holds_the_figures_of_the_analysis(root: Path) -> None:
    data = data_of(write_report(root / "det", previous={"coco/bbox_mAP": 0.25}))
    analysis = analyse_detection(read_run(root / "det").table)
    tiles = {tile["label"]: tile for tile in data["summary"]}
    assert tiles["Box AP"]["value"] == pytest.approx(100 * analysis.mean_ap)
    assert tiles["Box AP"]["previous"] == 25
    assert tiles["Box AP50"]["previous"] is None
    assert "Mask AP" in tiles
    box = data["views"][0]
    assert [row[0] for row in box["table"]["rows"]] == list(analysis.table.class_names)
    assert {error["name"]: error["cost"] for error in box["errors"]} == pytest.approx(
        {name: 100 * analysis.costs[name] for name in analysis.counts}
    )
    assert np.array(box["confusion"]["counts"]).tolist() == analysis.confusion.tolist()
    image = data["gallery"]["images"][0]
    right, wrong, lost = analysis.image_counts[0]
    assert image["r"][0]["n"] == [right, wrong, lost]
    assert len(image["t"]) == 5 * (analysis.table.truth.image == 0).sum()


def test_metrics_that_were_measured_go_before_those_worked_out(root: Path) -> None:
    data = data_of(write_report(root / "det", metrics={"coco/bbox_mAP": 0.4321}))
    assert data["summary"][0]["value"] == pytest.approx(43.21)


def test_every_picture_lies_beside_the_page_and_the_last_reports_are_gone(root: Path) -> None:
    folder = root / "det" / "report_files"
    write_report(root / "det")
    (folder / "old.jpg").touch()
    data = data_of(write_report(root / "det"))
    stems = {image["u"] for image in data["gallery"]["images"]}
    assert {path.name for path in folder.iterdir()} - {STAMP} == {
        f"{stem}{ending}" for stem in stems for ending in (".jpg", ".js")
    }
    text = (folder / "000000.js").read_text()
    outlines = json.loads(text[text.index(",") + 1 : text.rindex(")")])
    image = data["gallery"]["images"][0]
    assert len(outlines["t"]) == len(image["t"]) // 5
    assert len(outlines["r"][0]) == len(image["r"][0]["d"]) // 8


def test_a_segmenters_page_has_its_miou_and_its_overlays(root: Path) -> None:
    data = data_of(write_report(root / "seg"))
    miou = {tile["label"]: tile["value"] for tile in data["summary"]}["mIoU"]
    iou = [row[2] for row in data["views"][0]["table"]["rows"]]
    assert miou == pytest.approx(np.mean([value for value in iou if value is not None]))
    run = read_run(root / "seg")
    truth, found = run.label_maps(run.images[0])
    files = root / "seg" / "report_files"
    shown = np.asarray(Image.open(files / "000000_0.png").convert("RGBA"))
    assert (shown[..., :3] == np.array(run.colors)[found]).all()
    assert (shown[..., 3] == 255).all()
    wrong = np.asarray(Image.open(files / "000000_0e.png").convert("RGBA"))
    assert ((wrong[..., 3] == 255) == ((truth != found) & (truth != 255))).all()


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 150, 255, 256, 300])
def test_an_overlay_has_each_class_in_its_colour_and_the_rest_see_through(
    tmp_path: Path, classes: int
) -> None:
    rng = np.random.default_rng(classes)
    colors = [tuple(int(v) for v in color) for color in rng.integers(0, 256, (classes, 3))]
    labels = rng.integers(-1, classes + 1, (20, 30))
    write_overlay(tmp_path / "a.png", labels, colors)
    shown = np.asarray(Image.open(tmp_path / "a.png").convert("RGBA"))
    known = (labels >= 0) & (labels < classes)
    assert ((shown[..., 3] == 255) == known).all()
    assert (shown[known][:, :3] == np.array(colors)[labels[known]]).all()
    assert len(PIXEL_COLORS) == 3


def test_outlines_are_in_thousandths_and_large_pictures_are_made_small() -> None:
    mask = np.zeros((200, 400), bool)
    mask[50:151, 100:301] = True
    (points,) = outline(mask)
    assert sorted(zip(points[::2], points[1::2], strict=True)) == [
        (250, 250), (250, 750), (750, 250), (750, 750),
    ]  # fmt: skip
    assert outline(np.zeros((5, 5))) == []
    assert small_size((3000, 4000)) == (600, LONG_SIDE_PX)
    assert small_size((100, 50)) == (100, 50)


def test_names_cannot_end_the_script_and_nan_becomes_null() -> None:
    text = as_script_data({"name": "</script><b>", "line": "\u2028", "value": float("nan")})
    assert "<" not in text
    assert json.loads(text) == {"name": "</script><b>", "line": "\u2028", "value": None}


def test_photographs_that_are_gone_are_counted_and_do_not_stop_the_report(
    root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "det" / "predictions", tmp_path / "predictions")
    index = json.loads((tmp_path / "predictions" / "index.json").read_text())
    index["image_root"] = str(tmp_path / "nowhere")
    (tmp_path / "predictions" / "index.json").write_text(json.dumps(index))
    data = data_of(write_report(tmp_path))
    assert data["about"][-1][0]["text"].startswith("6 photographs could not be read")


def test_a_folder_of_somebody_elses_is_not_emptied(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out_files").mkdir()
    (tmp_path / "out_files" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="holds something else than a report's pictures"):
        compare_runs(root / "det", root / "better", tmp_path / "out.html", resamples=10)
    assert (tmp_path / "out_files" / "thesis.txt").read_text() == "precious"


def test_a_comparison_has_the_differences_of_figures_classes_and_pictures(root: Path) -> None:
    page, found = compare_runs(root / "det", root / "better", root / "c.html", resamples=100)
    data = data_of(page)
    ap = [analyse_detection(read_run(root / name).table).mean_ap for name in ("det", "better")]
    assert found["Box AP"].change == pytest.approx(ap[1] - ap[0])
    assert data["differences"][0]["change"] == pytest.approx(100 * (ap[1] - ap[0]))
    assert found["Box AP"].low < found["Box AP"].change < found["Box AP"].high
    row = data["views"][0]["table"]["rows"][0]
    assert row[3] == pytest.approx(row[2] - row[1])
    assert len(data["gallery"]["images"][0]["r"]) == 2


def test_a_run_beside_itself_has_no_difference(root: Path) -> None:
    _, found = compare_runs(root / "seg", root / "seg", root / "same.html", resamples=50)
    assert [(one.change, one.low, one.high) for one in found.values()] == [(0, 0, 0)] * 2
    _, found = compare_runs(root / "seg", root / "sharper", root / "other.html", resamples=50)
    assert found["aAcc"].change > 0


def test_the_command_prints_the_differences(root: Path, capsys: Any) -> None:
    out = root / "cli.html"
    assert compare([str(root / "det"), str(root / "better"), "--out", str(out),
                    "--resamples", "50"]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert re.search(r"^Box AP50 +\d+\.\d +\d+\.\d +\+\d+\.\d +[+-]\d+\.\d to ", said, re.M)
    assert f"done: {out}" in said
    assert compare([str(root / "det"), str(root / "seg")]) == 1
    assert "expected one task" in capsys.readouterr().err


def test_runs_on_other_images_or_classes_are_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "seg" / "predictions", tmp_path / "a" / "predictions")
    file = tmp_path / "a" / "predictions" / "index.json"
    index = json.loads(file.read_text())
    file.write_text(json.dumps(index | {"images": index["images"][1:]}))
    with pytest.raises(UserError, match="share 5 images of 6 and 5"):
        compare_runs(root / "seg", tmp_path / "a", tmp_path / "c.html")
    file.write_text(json.dumps(index | {"classes": ["x", *index["classes"][1:]]}))
    with pytest.raises(UserError, match="8 and 8 classes, such as"):
        compare_runs(root / "seg", tmp_path / "a", tmp_path / "c.html")
    with pytest.raises(UserError, match="no predictions at"):
        read_run(tmp_path / "nothing")
