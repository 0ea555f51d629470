from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from swin_dense.errors import UserError
from swin_dense.host.rle_masks import RleMasks
from swin_dense.inference.predictor import Prediction, Predictor
from swin_dense.visualization.images import read_image
from tests.small import save_checkpoint, small_detector, small_segmenter


@pytest.fixture(scope="module")
def detector() -> Predictor:
    torch.manual_seed(0)
    return Predictor(small_detector(), device="cpu")


@pytest.fixture(scope="module")
def segmenter() -> Predictor:
    torch.manual_seed(0)
    return Predictor(small_segmenter(), device="cpu")


@pytest.fixture(scope="module")
def photo(shared_data: Path) -> Path:
    return sorted((shared_data / "coco_mini/val2017").glob("*.jpg"))[0]


def _batch(predictor: Predictor, photo: Path) -> dict[str, object]:
    data = predictor._from_file(dict(img_path=str(photo), img_id=0))
    return predictor.model.data_preprocessor({key: [value] for key, value in data.items()}, False)


def test_boxes_are_in_the_pixels_of_the_photograph(detector: Predictor, photo: Path) -> None:
    found = detector(photo)
    height, width = read_image(photo).shape[:2]
    assert found.image_hw == (height, width)
    batch = _batch(detector, photo)
    with torch.no_grad():
        raw = detector.model.predict(batch["inputs"], batch["data_samples"], rescale=False)[0]
    factor = np.array(raw.scale_factor * 2)  # (x, y, x, y)
    assert factor[0] < 0.5
    assert len(found.boxes_xyxy) > 5
    expected = raw.pred_instances.bboxes.numpy() / factor
    assert np.abs(found.boxes_xyxy - expected).max() < 1e-2
    assert found.boxes_xyxy[:, [0, 2]].max() <= width
    assert found.boxes_xyxy[:, [0, 2]].max() > 160


def test_masks_have_the_size_of_the_photograph_and_lie_in_their_boxes(
    detector: Predictor, photo: Path
) -> None:
    found = detector(photo)
    assert found.masks.shape == (len(found.boxes_xyxy), *found.image_hw)
    assert found.masks.dtype == bool
    assert found.masks.any()
    for mask, (left, top, right, bottom) in zip(found.masks, found.boxes_xyxy, strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert columns.min() >= left - 1
            assert columns.max() <= right + 1
            assert rows.min() >= top - 1
            assert rows.max() <= bottom + 1


def test_masks_stay_compressed_until_they_are_asked_for(
    detector: Predictor, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, image = detector(photo), read_image(photo)
    expected = found.draw(image, score_threshold=0.0)
    one_by_one = np.array([mask.numpy() for mask in found.rle_masks])
    areas = [int(coco_mask.area(rle)) for rle in found.rle_masks.rles]
    assert areas == one_by_one.sum(axis=(1, 2)).tolist()
    assert np.array_equal(found.masks, one_by_one)
    again = detector(photo)
    monkeypatch.setattr(RleMasks, "decode", None)  # of all at once
    assert np.array_equal(again.draw(image, score_threshold=0.0), expected)


def test_scores_fall_and_labels_have_names(detector: Predictor, photo: Path) -> None:
    found = detector(photo)
    assert (np.diff(found.scores) <= 0).all()
    assert found.class_names[:3] == ("person", "bicycle", "car")
    assert len(found.class_names) == 80
    assert found.labels.max() < 80
    assert found.label_map is None


def test_an_array_in_rgb_gives_what_its_file_gives(detector: Predictor, photo: Path) -> None:
    from_file, from_array = detector([photo, read_image(photo)])
    assert np.array_equal(from_file.boxes_xyxy, from_array.boxes_xyxy)
    assert np.array_equal(from_file.masks, from_array.masks)


def test_a_label_map_is_the_argmax_of_the_logits_at_the_size_of_the_photograph(
    segmenter: Predictor, photo: Path
) -> None:
    found = segmenter(photo)
    batch = _batch(segmenter, photo)
    with torch.no_grad():
        metas = [batch["data_samples"][0].metainfo]
        logits = segmenter.model.encode_decode(batch["inputs"], metas)
    large = torch.nn.functional.interpolate(
        logits, size=found.image_hw, mode="bilinear", align_corners=False
    )
    assert found.label_map.shape == read_image(photo).shape[:2]
    assert (found.label_map == large[0].argmax(0).numpy()).mean() > 0.999
    assert found.class_names[:3] == ("wall", "building", "sky")
    assert found.boxes_xyxy is None


def test_both_hosts_work_in_one_process_in_any_order(
    detector: Predictor, segmenter: Predictor, photo: Path
) -> None:
    first = detector(photo)
    segmenter(photo)
    assert np.array_equal(detector(photo).boxes_xyxy, first.boxes_xyxy)


def test_gray_photographs_are_predicted_on_as_files_and_as_arrays(
    detector: Predictor, photo: Path, tmp_path: Path
) -> None:
    gray = Image.open(photo).convert("L")
    gray.save(tmp_path / "gray.png")
    from_file, from_array = detector([tmp_path / "gray.png", np.asarray(gray)])
    assert from_file.image_hw == (gray.height, gray.width)
    assert np.array_equal(from_file.boxes_xyxy, from_array.boxes_xyxy)


def test_a_photograph_without_predictions_gives_empty_arrays_and_draws(photo: Path) -> None:
    cfg = small_detector(**{"model.test_cfg.rcnn.score_thr": 0.99})
    found = Predictor(cfg, device="cpu")(photo)
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.masks.shape == (0, *found.image_hw)
    image = read_image(photo)
    assert np.array_equal(found.draw(image), image)


def test_a_drawn_prediction_changes_the_photograph_where_a_mask_is(
    detector: Predictor, photo: Path
) -> None:
    found, image = detector(photo), read_image(photo)
    drawn = found.draw(image, score_threshold=float(found.scores[0]))
    changed = (drawn != image).any(axis=2)
    assert changed[found.masks[0]].mean() > 0.9
    with pytest.raises(UserError, match="same photograph"):
        found.draw(image[:-1])


def test_a_label_map_draws_at_the_size_of_the_photograph() -> None:
    found = Prediction((400, 400), ("a",), label_map=np.zeros((400, 400), np.int32))
    assert found.draw(np.zeros((400, 400, 3), np.uint8)).shape == (400, 400, 3)


def test_weights_and_class_names_come_from_the_checkpoint(
    detector: Predictor, photo: Path, tmp_path: Path
) -> None:
    names = tuple(f"thing {index}" for index in range(80))
    file = save_checkpoint(detector, tmp_path / "a.pth", dataset_meta=dict(classes=names))
    loaded = Predictor(small_detector(), file, device="cpu")
    assert loaded.class_names == names
    assert np.array_equal(loaded(photo).boxes_xyxy, detector(photo).boxes_xyxy)


def test_names_are_read_from_the_older_checkpoints_key(detector: Predictor, tmp_path: Path) -> None:
    file = save_checkpoint(detector, tmp_path / "a.pth", CLASSES=("x", "y"))
    assert Predictor(small_detector(), file, device="cpu").class_names == ("x", "y")


def test_a_checkpoint_of_another_model_is_refused_with_the_names(
    segmenter: Predictor, tmp_path: Path
) -> None:
    file = save_checkpoint(segmenter, tmp_path / "seg.pth")
    with pytest.raises(UserError, match=r"seg\.pth does not fit.*missing in the file \(neck\."):
        Predictor(small_detector(), file, device="cpu")


def test_a_checkpoint_of_another_number_of_classes_is_refused_with_the_shapes(
    detector: Predictor, tmp_path: Path
) -> None:
    file = save_checkpoint(detector, tmp_path / "a.pth")
    cfg = small_detector(**{"model.roi_head.bbox_head.num_classes": 3})
    with pytest.raises(UserError, match=r"fc_cls\.weight is \[81, 32\] in the file and \[4, 32\]"):
        Predictor(cfg, file, device="cpu")


def test_a_missing_checkpoint_config_image_and_device_are_named(
    detector: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"no checkpoint at .*none\.pth"):
        Predictor(small_detector(), tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"no config at .*none\.py"):
        Predictor(tmp_path / "none.py")
    with pytest.raises(UserError, match=r"no image at .*none\.jpg"):
        detector(tmp_path / "none.jpg")
    with pytest.raises(UserError, match="device nonsense does not work here"):
        Predictor(small_detector(), device="nonsense")


def test_a_file_that_is_no_image_is_named(detector: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"a\.jpg could not be read"):
        detector(tmp_path / "a.jpg")
