"""The sample data set: what is written is what the painter saw, in both formats."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from swin_dense.data.sample import (
    CATEGORY_IDS,
    SEMANTIC_CLASSES,
    SampleData,
    generate_sample_data,
    run_lengths,
)
from swin_dense.data.sample_ground import STUFF_CLASSES
from swin_dense.data.sample_objects import THING_CLASSES
from swin_dense.data.sample_scene import paint_scene
from swin_dense.errors import UserError

NUM_TRAIN, NUM_VAL, IMAGE_HW = 24, 8, (96, 128)


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> SampleData:
    root = tmp_path_factory.mktemp("sample") / "data"
    return generate_sample_data(
        root, num_train=NUM_TRAIN, num_val=NUM_VAL, image_hw=IMAGE_HW, seed=5
    )


@pytest.fixture(scope="module")
def coco(sample) -> COCO:
    return COCO(str(sample.coco_root / "annotations" / "instances_train2017.json"))


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def visible_masks(coco: COCO, image_id: int) -> tuple[list[dict], np.ndarray]:
    annotations = coco.loadAnns(coco.getAnnIds(image_id))
    return annotations, np.stack([coco.annToMask(a).astype(bool) for a in annotations])


def test_equal_arguments_give_equal_bytes_and_another_seed_does_not(sample, tmp_path):
    arguments = dict(num_train=NUM_TRAIN, num_val=NUM_VAL, image_hw=IMAGE_HW)
    again = generate_sample_data(tmp_path / "again", seed=5, **arguments)
    assert contents(again.root) == contents(sample.root)
    other = generate_sample_data(tmp_path / "other", seed=6, **arguments)
    name = "coco/train2017/000000000001.jpg"
    assert (other.root / name).read_bytes() != (sample.root / name).read_bytes()


def test_a_smaller_set_is_the_beginning_of_a_larger_one(sample, tmp_path):
    fewer = generate_sample_data(
        tmp_path / "few", num_train=2, num_val=1, image_hw=IMAGE_HW, seed=5
    )
    for split in ("train2017", "val2017"):
        for file in (fewer.coco_root / split).iterdir():
            assert file.read_bytes() == (sample.coco_root / split / file.name).read_bytes()


def test_coco_lists_every_image_with_valid_annotations(sample, coco):
    assert len(coco.getImgIds()) == NUM_TRAIN
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(THING_CLASSES)
    assert coco.getCatIds() == list(CATEGORY_IDS)
    for image in coco.loadImgs(coco.getImgIds()):
        pixels = cv2.imread(str(sample.coco_root / "train2017" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3) == (*IMAGE_HW, 3)
        assert coco.getAnnIds(image["id"])


def test_boxes_and_areas_are_those_of_the_masks(coco):
    for annotation in coco.loadAnns(coco.getAnnIds()):
        rle = coco.annToRLE(annotation)
        assert mask_utils.toBbox(rle).tolist() == annotation["bbox"]
        assert int(mask_utils.area(rle)) == annotation["area"] >= 15
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= IMAGE_HW[1]
        assert 0 <= y < y + height <= IMAGE_HW[0]


def test_visible_masks_of_one_scene_do_not_overlap_and_some_boxes_do(coco):
    overlapping_boxes = 0
    for image_id in coco.getImgIds():
        annotations, masks = visible_masks(coco, image_id)
        assert masks.sum(0).max() == 1
        boxes = np.array([a["bbox"] for a in annotations], float)
        ious = mask_utils.iou(boxes, boxes, [0] * len(boxes))
        overlapping_boxes += int((np.triu(ious, 1) > 0.02).sum())
    assert overlapping_boxes > NUM_TRAIN / 2  # objects do hide one another


@pytest.mark.parametrize(("split", "folder"), [("train", "training"), ("val", "validation")])
def test_label_maps_agree_with_the_instance_masks_pixel_by_pixel(sample, split, folder):
    coco = COCO(str(sample.coco_root / "annotations" / f"instances_{split}2017.json"))
    label_of = {c: SEMANTIC_CLASSES.index(coco.cats[c]["name"]) + 1 for c in coco.cats}
    for image in coco.loadImgs(coco.getImgIds()):
        stem = Path(image["file_name"]).stem
        file = sample.ade_root / "annotations" / folder / f"{stem}.png"
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint8
        assert labels.shape == IMAGE_HW
        annotations, masks = visible_masks(coco, image["id"])
        expected = np.zeros(IMAGE_HW, np.uint8)
        for annotation, mask in zip(annotations, masks, strict=True):
            expected[mask] = label_of[annotation["category_id"]]
        assert (labels[masks.any(0)] == expected[masks.any(0)]).all()
        assert labels[~masks.any(0)].max() <= len(STUFF_CLASSES)
        photo = sample.ade_root / "images" / folder / f"{stem}.jpg"
        twin = sample.coco_root / f"{split}2017" / f"{stem}.jpg"
        assert photo.read_bytes() == twin.read_bytes()


def test_classes_are_balanced_and_every_ground_and_the_unlabeled_border_occur():
    things = np.zeros(len(THING_CLASSES))
    ground_px = np.zeros(len(STUFF_CLASSES) + 1)
    for seed in range(60):
        scene = paint_scene(np.random.default_rng(seed), (80, 80))
        things += np.bincount(scene.classes, minlength=len(THING_CLASSES))
        ground_px += np.bincount(scene.ground_map.ravel() + 1, minlength=len(ground_px))
    assert things.max() < 2 * things.min()
    unlabeled, *stuff = ground_px / ground_px.sum()
    assert min(stuff) > 0.15
    assert 0.005 < unlabeled < 0.12


def test_no_held_out_scene_is_a_training_scene(sample):
    def thumbnails(split: str) -> np.ndarray:
        files = sorted((sample.coco_root / split).iterdir())
        return np.stack([cv2.resize(cv2.imread(str(f)), (16, 16)).astype(float) for f in files])

    train, held_out = thumbnails("train2017"), thumbnails("val2017")
    differences = np.abs(train[:, None] - held_out[None]).mean((2, 3, 4))
    assert differences.min() > 8  # grey levels of 255


def test_a_second_call_touches_nothing_and_a_damaged_set_is_made_anew(tmp_path):
    arguments = dict(num_train=3, num_val=2, image_hw=(64, 64), seed=0)
    data = generate_sample_data(tmp_path / "data", **arguments)
    before, times = contents(data.root), [p.stat().st_mtime_ns for p in data.root.rglob("*")]
    calls: list[int] = []
    generate_sample_data(data.root, progress=lambda done, total: calls.append(done), **arguments)
    assert calls == []
    assert times == [p.stat().st_mtime_ns for p in data.root.rglob("*")]

    (data.ade_root / "annotations" / "validation" / "000000100001.png").unlink()
    generate_sample_data(data.root, progress=lambda done, total: calls.append(done), **arguments)
    assert calls == [1, 2, 3, 4, 5]
    assert contents(data.root) == before


def test_an_interrupted_call_leaves_nothing(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_sample_data(
            tmp_path / "data", num_train=3, num_val=1, image_hw=(64, 64), progress=interrupt
        )
    assert list(tmp_path.iterdir()) == []


def test_somebody_elses_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds something else"):
        generate_sample_data(tmp_path, num_train=1, num_val=1)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}
    with pytest.raises(UserError, match="num_val=0"):
        generate_sample_data(tmp_path / "data", num_train=1, num_val=0)


def test_run_lengths_by_hand():
    mask = np.array([[0, 1, 1], [0, 1, 0]], bool)
    assert run_lengths(mask) == [2, 3, 1]
    assert run_lengths(~mask) == [0, 2, 3, 1]
    assert run_lengths(np.zeros((2, 2), bool)) == [4]
    assert run_lengths(np.ones((2, 2), bool)) == [0, 4]


def test_the_stamp_says_what_the_data_was_made_from(sample):
    recipe = json.loads((sample.root / "sample.json").read_text())
    assert recipe["seed"] == 5
    assert (recipe["num_train"], recipe["num_val"]) == (NUM_TRAIN, NUM_VAL)
    assert tuple(recipe["image_hw"]) == IMAGE_HW
