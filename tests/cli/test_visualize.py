import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from swin_dense.cli.visualize import distinct_names, find_images, main, spread, track
from swin_dense.engine.browse import DatasetBrowser, annotations_first
from swin_dense.errors import UserError
from swin_dense.inference.predictor import Predictor
from swin_dense.visualization.images import read_image, save_png
from tests.small import save_checkpoint, small_detector, small_segmenter

ROOT = Path(__file__).resolve().parents[2]
FLIPPED = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=1.0),
    dict(type="PackDetInputs"),
]


def _dump(cfg: Config, folder: Path) -> str:
    path = folder / "small.py"
    cfg.dump(path)
    return str(path)


def test_the_browser_shows_a_flipped_photograph_with_its_boxes_and_masks_flipped(
    shared_data: Path,
) -> None:
    cfg = small_detector(shared_data / "coco_mini")
    cfg.train_dataloader.dataset.pipeline = FLIPPED
    browser = DatasetBrowser(cfg, "train")
    shown = browser.sample(3)
    original = browser.original(3, shown.path)
    photo = read_image(shown.path)
    height, width = photo.shape[:2]
    assert np.array_equal(original.image, photo)
    assert shown.image.shape[0] % 32 == shown.image.shape[1] % 32 == 0
    difference = np.abs(shown.image[:height, :width].astype(int) - photo[:, ::-1])
    assert difference.max() <= 1
    assert len(shown.boxes_xyxy) == len(original.boxes_xyxy) > 0
    mirrored = original.boxes_xyxy[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    assert np.allclose(shown.boxes_xyxy, mirrored, atol=1e-3)
    agree = shown.masks[:, :height, :width] == original.masks[:, :, ::-1]
    assert agree.mean() > 0.99
    assert shown.class_names[0] == "person"


def test_padding_shows_as_the_gray_that_the_model_takes_for_zero(shared_data: Path) -> None:
    cfg = small_detector(shared_data / "coco_mini")
    cfg.train_dataloader.dataset.pipeline = FLIPPED
    cfg.model.data_preprocessor.pad_size_divisor = 1000
    shown = DatasetBrowser(cfg, "train").sample(0)
    assert shown.image.shape == (1000, 1000, 3)
    assert tuple(shown.image[-1, -1]) == (124, 116, 104)
    assert not shown.masks[:, -1].any()


def test_annotations_of_the_validation_set_follow_the_picture_through_resizing(
    shared_data: Path,
) -> None:
    browser = DatasetBrowser(small_detector(shared_data / "coco_mini"), "val")
    shown = browser.sample(0)
    original = browser.original(0, shown.path)
    height, width = original.image.shape[:2]
    factor = 160 / max(height, width)
    assert np.allclose(shown.boxes_xyxy, original.boxes_xyxy * factor, rtol=0.02, atol=0.5)


def test_crowd_regions_are_shown_as_ignored(shared_data: Path) -> None:
    browser = DatasetBrowser(small_detector(shared_data / "coco_mini"), "val")
    labels = [browser.sample(index).labels for index in range(len(browser))]
    crowds = [row for row in labels if row is not None and (row == -1).any()]
    assert sum(int((row == -1).sum()) for row in crowds) == 8


def test_label_maps_are_shown_as_trained_with_zero_taken_out(shared_data: Path) -> None:
    cfg = small_segmenter(shared_data / "ade_mini")
    cfg.train_dataloader.dataset.pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", reduce_zero_label=True),
        dict(type="PackSegInputs"),
    ]
    cfg.model.data_preprocessor.size = (1000, 1000)
    shown = DatasetBrowser(cfg, "train").sample(0)
    stored = read_image(shown.path.replace("images", "annotations").replace(".jpg", ".png"))[..., 0]
    height, width = stored.shape
    expected = np.where(stored == 0, 255, stored.astype(int) - 1)
    assert np.array_equal(shown.label_map[:height, :width], expected)
    assert (shown.label_map[height:] == 255).all()
    assert shown.class_names[:2] == ("wall", "building")


def test_a_train_pipeline_that_loads_masks_after_resizing_is_told(shared_data: Path) -> None:
    cfg = small_detector(shared_data / "coco_mini")
    resize = dict(type="Resize", scale=(100, 100), keep_ratio=True)
    cfg.train_dataloader.dataset.pipeline = [FLIPPED[0], resize, FLIPPED[1], FLIPPED[3]]
    with pytest.raises(UserError, match="LoadAnnotations must come before Resize"):
        DatasetBrowser(cfg, "train").sample(0)


def test_annotations_are_moved_right_behind_the_image() -> None:
    steps = [dict(type=name) for name in ("LoadImageFromFile", "Resize", "LoadAnnotations", "Pack")]
    moved = [step["type"] for step in annotations_first(steps)]
    assert moved == ["LoadImageFromFile", "LoadAnnotations", "Resize", "Pack"]


def test_dataset_writes_pictures_beside_their_originals(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _dump(small_detector(shared_data / "coco_mini"), tmp_path)
    out = tmp_path / "out"
    arguments = ["dataset", config, "--split", "val", "--number", "3", "--out-dir", str(out)]
    assert main(arguments) == 0
    alone = sorted(out.glob("*.png"))
    assert len(alone) == 3
    assert alone[0].name.startswith("000000_")
    assert "3 of 66 pictures of the val set" in capsys.readouterr().out
    width = read_image(alone[0]).shape[1]
    assert main([*arguments, "--original"]) == 0
    assert read_image(alone[0]).shape[1] > width
    assert len(list(out.iterdir())) == 3


@pytest.mark.parametrize("build", [small_detector, small_segmenter])
def test_predict_draws_files_folders_and_patterns(
    build: Callable[[], Config], shared_data: Path, tmp_path: Path
) -> None:
    photos = sorted((shared_data / "coco_mini/val2017").glob("*.jpg"))[:2]
    folder = tmp_path / "folder"
    for photo in photos:
        save_png(folder / f"{photo.stem}.png", read_image(photo))
    config = _dump(build(), tmp_path)
    checkpoint = save_checkpoint(Predictor(build(), device="cpu"), tmp_path / "a.pth")
    out = tmp_path / "out"
    images = [str(photos[0]), str(folder), f"{folder}/*{photos[1].stem}*"]
    arguments = [config, str(checkpoint), *images, "--score-thr", "0.0", "--device", "cpu"]
    assert main(["predict", *arguments, "--out-dir", str(out)]) == 0
    stems = {photos[0].stem, f"{photos[0].stem}_2", photos[1].stem}
    assert {path.stem for path in out.iterdir()} == stems
    drawn = read_image(out / f"{photos[0].stem}.png")
    assert drawn.shape == read_image(photos[0]).shape
    assert (drawn != read_image(photos[0])).any(axis=2).mean() > 0.05


def test_predict_draws_every_kind_of_photograph_at_its_size_and_turned_as_it_shows(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    rgb = cv2.resize(rng.integers(0, 256, (8, 12, 3), np.uint8), (480, 320))
    folder = tmp_path / "kinds"
    folder.mkdir()
    Image.fromarray(rgb).save(folder / "rgb.png")
    Image.fromarray(rgb[..., 0]).save(folder / "gray.png")
    Image.fromarray(np.dstack([rgb, np.full((320, 480), 90, np.uint8)])).save(folder / "alpha.png")
    cv2.imwrite(str(folder / "deep.png"), rgb[..., 0].astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "deep_rgb.tif"), rgb[..., ::-1].astype(np.uint16) * 257)
    turned = Image.fromarray(rgb)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    turned.save(folder / "turned.jpg", exif=exif, quality=98)
    config = _dump(small_segmenter(), tmp_path)
    checkpoint = save_checkpoint(Predictor(small_segmenter(), device="cpu"), tmp_path / "a.pth")
    out = tmp_path / "out"
    arguments = [config, str(checkpoint), str(folder), "--original", "--out-dir", str(out)]
    assert main(["predict", *arguments, "--device", "cpu"]) == 0
    shown = {path.stem: read_image(path) for path in out.iterdir()}
    assert set(shown) == {"rgb", "gray", "alpha", "deep", "deep_rgb", "turned"}
    flat = {name: picture.shape for name, picture in shown.items() if name != "turned"}
    assert len(set(flat.values())) == 1
    bare = {  # the left picture is the photograph, below its title
        name: picture[-320:, :480].astype(int) for name, picture in shown.items() if name in flat
    }
    assert np.abs(bare["rgb"] - rgb).max() == 0
    assert np.abs(bare["deep_rgb"] - rgb).max() <= 1
    assert np.abs(bare["gray"] - rgb[..., :1]).max() == 0
    assert np.abs(bare["deep"] - rgb[..., :1]).max() <= 1
    assert np.abs(bare["alpha"] - (rgb * (90 / 255) + 255 * (165 / 255))).max() <= 2
    upright = np.rot90(rgb, -1).astype(int)
    assert np.abs(shown["turned"][-480:, :320] - upright).mean() < 4
    right = shown["rgb"][-320:, -480:].astype(int)
    assert np.abs(right - rgb).mean() > 10  # the prediction is drawn on it


def test_one_broken_image_among_others_is_named_and_the_others_are_drawn(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = sorted((shared_data / "coco_mini/val2017").glob("*.jpg"))[0]
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    config = _dump(small_segmenter(), tmp_path)
    checkpoint = save_checkpoint(Predictor(small_segmenter(), device="cpu"), tmp_path / "a.pth")
    arguments = [config, str(checkpoint), str(broken), str(photo), "--out-dir", str(tmp_path / "o")]
    assert main(["predict", *arguments]) == 1
    said = capsys.readouterr()
    assert "broken.jpg could not be read" in said.err
    assert "1 of 2 pictures" in said.out
    assert [path.stem for path in (tmp_path / "o").iterdir()] == [photo.stem]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset", "none.py"], "no config at none.py"),
        (["dataset", "CONFIG", "--split", "tran"], "got split 'tran' (did you mean 'train'?)"),
        (["dataset", "CONFIG", "--number", "0"], "--number 0: expected 1 or more"),
        (["dataset", "CONFIG"], "data_root data/coco/ is not a folder"),
        (["predict", "CONFIG", "a.pth", "none.jpg"], "no image at none.jpg"),
        (["predict", "CONFIG", "a.pth", "none*.jpg"], "expected a pattern that files match"),
        (["predict", "CONFIG", "none.pth", "PHOTO"], "no checkpoint at none.pth"),
        (
            ["predict", "CONFIG", "a.pth", "PHOTO", "--score-thr", "7"],
            "--score-thr 7.0: expected 0",
        ),
        (["predict", "CONFIG"], "the following arguments are required: checkpoint, images"),
    ],
)
def test_a_mistake_is_one_clear_error_and_exit_code_1(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    photo = save_png(tmp_path / "photo.png", np.zeros((4, 4, 3), np.uint8))
    named = {"CONFIG": _dump(small_detector(), tmp_path), "PHOTO": str(photo)}
    assert main([named.get(argument, argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "small.py"]


def test_the_tool_shows_its_help_and_its_traceback_on_demand() -> None:
    tool = [sys.executable, str(ROOT / "tools/visualize.py")]
    done = subprocess.run([*tool, "--help"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0
    assert "dataset|predict" in done.stdout
    failing = [*tool, "dataset", "none.py", "--debug"]
    done = subprocess.run(failing, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_indices_are_spread_over_the_set_without_repeats() -> None:
    assert spread(10, 3) == [0, 3, 6]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(0, 4) == []


def test_files_of_equal_stems_get_distinct_names() -> None:
    paths = [Path("a/x.jpg"), Path("b/x.png"), Path("x_2.jpg")]
    assert distinct_names(paths) == ["x.png", "x_2.png", "x_2_2.png"]


def test_a_file_named_twice_is_taken_once_and_others_in_a_folder_are_passed_over(
    tmp_path: Path,
) -> None:
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).write_text("")
    found = find_images([str(tmp_path), f"{tmp_path}/a*"])
    assert [path.name for path in found] == ["a.png", "b.JPG"]


def test_a_file_whose_name_has_brackets_is_a_file_and_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").write_text("")
    assert [path.name for path in find_images([str(tmp_path / "a[1].png")])] == ["a[1].png"]


def test_progress_tells_the_time_left_only_when_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(track([1, 2, 3], "pictures")) == [1, 2, 3]
    assert capsys.readouterr().err == ""
    clock = iter(float(10 * second) for second in range(100))
    monkeypatch.setattr(
        "swin_dense.cli.visualize.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    assert list(track([1, 2, 3], "pictures")) == [1, 2, 3]
    assert capsys.readouterr().err == "1/3 pictures, ETA 0:40\n2/3 pictures, ETA 0:15\n"
