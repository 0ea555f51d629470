"""Predictions on disk: what is written comes back, and a broken folder is refused by name."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from swin_dense.errors import UserError
from swin_dense.evaluation.prediction_writers import DetectionWriter, RunHeader, SegmentationWriter
from swin_dense.evaluation.predictions import (
    DetectionPredictions,
    PredictedImage,
    SegmentationPredictions,
    load_predictions,
)

HEADER = RunHeader(classes=("cat", "dog"), palette=[[1, 2, 3], [4, 5, 6]], image_root="/photos")


def picture(number: int) -> PredictedImage:
    return PredictedImage(id=number, file=f"a/{number}.jpg", height=4, width=6)


def result(number: int, score: float = 0.5) -> dict[str, object]:
    return dict(image_id=number, category_id=1, bbox=[0.0, 1.0, 2.0, 3.0], score=score)


def write_detections(folder: Path) -> Path:
    writer = DetectionWriter(folder)
    writer.append(picture(7), [result(7), result(7, 0.25)])
    writer.append(picture(3), [])
    writer.close()
    writer.finish(HEADER)
    return folder


def test_detections_come_back_as_written_with_pictures_that_have_none(tmp_path: Path) -> None:
    loaded = load_predictions(write_detections(tmp_path / "predictions"))
    assert isinstance(loaded, DetectionPredictions)
    assert loaded.images == (picture(7), picture(3))
    assert loaded.results == [result(7), result(7, 0.25)]
    assert loaded.run.classes == ("cat", "dog")
    assert loaded.run.palette == ((1, 2, 3), (4, 5, 6))
    assert loaded.run.image_root == "/photos"
    assert not loaded.with_masks
    assert sorted(path.name for path in loaded.folder.iterdir()) == [
        "detections.json",
        "index.json",
    ]


def test_parts_of_three_processes_merge_in_the_order_of_the_data_and_drop_the_padding(
    tmp_path: Path,
) -> None:
    # seven pictures on three processes: the sampler fills up to nine with the first two
    writers = [DetectionWriter(tmp_path, rank=rank, world_size=3) for rank in range(3)]
    for place in range(9):
        number = place % 7
        writers[place % 3].append(picture(number), [result(number)])
    for writer in writers:
        writer.close()
    writers[0].finish(HEADER)
    loaded = DetectionPredictions.load(tmp_path)
    assert [image.id for image in loaded.images] == list(range(7))
    assert [found["image_id"] for found in loaded.results] == list(range(7))


def test_a_part_that_another_machine_kept_to_itself_is_named(tmp_path: Path) -> None:
    writer = DetectionWriter(tmp_path, rank=0, world_size=2)
    writer.append(picture(1), [])
    writer.close()
    with pytest.raises(UserError, match="predictions of process 1 are not in"):
        writer.finish(HEADER)
    with pytest.raises(UserError, match="no predictions at"):
        DetectionPredictions.load(tmp_path)


@pytest.mark.parametrize("num_classes", [150, 300])
def test_label_maps_and_confidence_counts_come_back_as_written(
    num_classes: int, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    maps = [generator.integers(0, num_classes, (4, 6)) for _ in range(2)]
    writer = SegmentationWriter(tmp_path, num_classes=num_classes)
    for number, label_map in enumerate(maps):
        writer.append(picture(number), label_map, ([1, 2], [0, number]))
    writer.close()
    writer.finish(HEADER, reduce_zero_label=True, ignore_index=255)
    loaded = load_predictions(tmp_path)
    assert isinstance(loaded, SegmentationPredictions)
    for image, label_map in zip(loaded.images, maps, strict=True):
        assert np.array_equal(loaded.prediction(image), label_map)
        assert loaded.ground_truth(image) is None
    assert loaded.calibration is not None
    assert loaded.calibration.n.tolist() == [2, 4]
    assert loaded.calibration.correct.tolist() == [0, 1]


def test_ground_truth_is_read_as_the_hosts_read_it(tmp_path: Path) -> None:
    from PIL import Image

    stored = np.array([[0, 1, 2, 3, 255, 1]] * 4, np.uint8)
    Image.fromarray(stored).save(tmp_path / "truth.png")
    writer = SegmentationWriter(tmp_path / "p", num_classes=3)
    image = PredictedImage("x", "x.jpg", 4, 6, labels=str(tmp_path / "truth.png"))
    writer.append(image, np.zeros((4, 6), int))
    writer.close()
    writer.finish(HEADER, reduce_zero_label=True, ignore_index=255, label_map={0: 1, 1: 0})
    loaded = SegmentationPredictions.load(tmp_path / "p")
    truth = loaded.ground_truth(loaded.images[0])
    assert truth is not None
    # 1 -> 0 -> 1, 2 -> 1 -> 0, 3 -> 2, and 0 and 255 -> 255
    assert truth[0].tolist() == [255, 1, 0, 2, 255, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.update(format=9), "got format 9; expected 1"),
        (lambda index: index.update(task="depth"), "got predictions of a 'depth' run"),
        (lambda index: index.pop("classes"), "the fields classes are missing"),
        (lambda index: index["images"][0].pop("height"), "entry of images does not fit"),
        (lambda index: index["images"].pop(0), "image 7, which index.json does not list"),
    ],
)
def test_a_damaged_index_is_refused_by_what_is_wrong(
    change: object, message: str, tmp_path: Path
) -> None:
    path = write_detections(tmp_path) / "index.json"
    index = json.loads(path.read_text())
    change(index)  # type: ignore[operator]
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        DetectionPredictions.load(tmp_path)


def test_a_label_map_of_the_wrong_size_or_a_missing_one_is_refused(tmp_path: Path) -> None:
    writer = SegmentationWriter(tmp_path, num_classes=3)
    writer.append(picture(1), np.zeros((5, 6), int))
    writer.close()
    writer.finish(HEADER)
    loaded = SegmentationPredictions.load(tmp_path)
    with pytest.raises(UserError, match=r"shape \(5, 6\); expected the picture's \(4, 6\)"):
        loaded.prediction(loaded.images[0])
    (tmp_path / "labels" / "a" / "1.jpg.png").unlink()
    with pytest.raises(UserError, match="is missing"):
        SegmentationPredictions.load(tmp_path)


def test_merging_large_parts_takes_little_memory_and_loses_no_digit(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    runs = ['\\"' + "é" * int(length) for length in generator.integers(1000, 3000, 300)]
    writers = [DetectionWriter(tmp_path, rank=rank, world_size=2) for rank in range(2)]
    expected = []
    for number, counts in enumerate(runs):
        score = float(generator.random())
        found = [result(number, score) | dict(segmentation=dict(size=[4, 6], counts=counts))] * 5
        writers[number % 2].append(picture(number), found)
        expected += found
    for writer in writers:
        writer.close()
    tracemalloc.start()
    writers[0].finish(HEADER)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "detections.json").stat().st_size > 10_000_000
    assert peak < 1_000_000
    assert DetectionPredictions.load(tmp_path).results == expected


def test_pictures_without_any_detection_make_an_empty_list(tmp_path: Path) -> None:
    writer = DetectionWriter(tmp_path)
    writer.append(picture(1), [])
    writer.append(picture(2), [])
    writer.close()
    writer.finish(HEADER)
    assert json.loads((tmp_path / "detections.json").read_text()) == []
    assert len(DetectionPredictions.load(tmp_path).images) == 2
