from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swin_dense.errors import UserError
from swin_dense.visualization.draw import draw_instances, draw_semantic, side_by_side
from swin_dense.visualization.images import read_image
from swin_dense.visualization.palette import class_color

NAMES = ("cat", "dog", "bird")
GRAY = np.full((400, 500, 3), 100, np.uint8)


def _one(**changes: Any) -> dict[str, Any]:
    mask = np.zeros((1, 400, 500), bool)
    mask[0, 150:250, 100:300] = True
    arguments = dict(
        boxes_xyxy=[[100, 150, 300, 250]], labels=[1], masks=mask, class_names=NAMES, scores=[0.9]
    )
    return arguments | changes


def test_pixels_inside_a_mask_get_the_class_colour_at_one_opacity() -> None:
    drawn = draw_instances(GRAY, **_one())
    inside = drawn[180:220, 180:220].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) == 1
    shift = inside[0].astype(float) - 100
    wanted = np.array(class_color(1), float) - 100
    opacity = shift @ wanted / (wanted @ wanted)
    assert 0.2 < opacity < 0.5
    assert np.abs(shift - opacity * wanted).max() <= 1
    assert (drawn[300:, 320:] == 100).all()


def test_the_box_is_drawn_on_its_first_and_last_pixels() -> None:
    drawn = draw_instances(GRAY, **_one(masks=None))
    for x, y in ((100, 200), (299, 200), (200, 249)):
        assert tuple(drawn[y, x]) == class_color(1)
    assert tuple(drawn[200, 200]) == (100, 100, 100)


def test_the_picture_given_is_left_as_it_was() -> None:
    image = GRAY.copy()
    draw_instances(image, **_one())
    draw_semantic(image, np.zeros((400, 500), int), class_names=NAMES)
    assert np.array_equal(image, GRAY)


@pytest.mark.parametrize("score", [0.29, float("nan")])
def test_an_instance_under_the_threshold_or_without_a_number_is_left_out(score: float) -> None:
    assert np.array_equal(draw_instances(GRAY, **_one(scores=[score])), GRAY)


def test_a_box_that_is_not_finite_is_left_out() -> None:
    boxes = [[100, 150, float("inf"), 250]]
    assert np.array_equal(draw_instances(GRAY, **_one(boxes_xyxy=boxes)), GRAY)


def test_no_instances_leave_the_picture_as_it_is() -> None:
    nothing = dict(boxes_xyxy=np.zeros((0, 4)), labels=[], scores=[], class_names=NAMES)
    assert np.array_equal(draw_instances(GRAY, **nothing), GRAY)
    assert np.array_equal(draw_instances(GRAY, **nothing, masks=np.zeros((0, 400, 500))), GRAY)


def test_boxes_outside_the_picture_and_without_area_are_drawn_inside_it() -> None:
    boxes = [[-50, -50, 20, 20], [490, 390, 900, 900], [250, 200, 250, 200], [600, 500, 700, 600]]
    drawn = draw_instances(GRAY, boxes_xyxy=boxes, labels=[0, 1, 2, 2], class_names=NAMES)
    assert drawn.shape == GRAY.shape
    assert tuple(drawn[10, 19]) == class_color(0)
    assert tuple(drawn[395, 490]) == class_color(1)


def test_a_small_instance_lies_above_a_large_one() -> None:
    masks = np.zeros((2, 400, 500), bool)
    masks[0, 100:160, 100:160] = True
    masks[1, 50:350, 50:450] = True
    boxes = [[100, 100, 160, 160], [50, 50, 450, 350]]
    one_way = draw_instances(GRAY, boxes_xyxy=boxes, labels=[0, 1], masks=masks, class_names=NAMES)
    other = draw_instances(
        GRAY, boxes_xyxy=boxes[::-1], labels=[1, 0], masks=masks[::-1], class_names=NAMES
    )
    assert np.array_equal(one_way[120:350, 120:450], other[120:350, 120:450])


def test_a_tiny_picture_is_enlarged_by_a_whole_factor_so_that_its_text_reads() -> None:
    tiny = np.full((64, 50, 3), 100, np.uint8)
    arguments = dict(boxes_xyxy=[[10, 20, 30, 40]], labels=[0], class_names=NAMES)
    drawn = draw_instances(tiny, **arguments)
    assert drawn.shape == (64 * 7, 50 * 7, 3)
    assert tuple(drawn[30 * 7, 10 * 7]) == class_color(0)
    assert draw_instances(tiny, **arguments, min_short_side_px=0).shape == tiny.shape


def test_a_hundred_instances_on_24_megapixels_are_drawn() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1, (100, 2)) * [5500, 3500]
    boxes = np.concatenate([corners, corners + 400], axis=1)
    drawn = draw_instances(
        np.full((4000, 6000, 3), 50, np.uint8),
        boxes_xyxy=boxes,
        labels=np.arange(100),
        scores=np.linspace(0.3, 1, 100),
        class_names=[f"class {index}" for index in range(100)],
    )
    edges = boxes.astype(int)
    hits = [
        tuple(drawn[(top + bottom) // 2, left]) == class_color(index)
        for index, (left, top, _, bottom) in enumerate(edges)
    ]
    assert sum(hits) > 60


def test_a_label_without_a_name_and_gray_photographs_are_drawn() -> None:
    drawn = draw_instances(GRAY[..., 0], **_one(labels=[7]))
    assert drawn.shape == (400, 500, 3)
    assert np.abs(drawn[200, 100].astype(int) - class_color(7)).max() < 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(labels=[1, 2]), "got 1 boxes and 2 labels"),
        (dict(scores=[]), "got 1 boxes and 0 scores"),
        (dict(masks=np.zeros((1, 40, 50))), r"got masks of shape \(1, 40, 50\); expected \(1, 400"),
    ],
)
def test_shapes_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_instances(GRAY, **_one(**changes))


def test_regions_get_their_class_colour_and_ignored_pixels_keep_the_photograph() -> None:
    labels = np.full((400, 500), 255)
    labels[:, :250] = 2
    drawn = draw_semantic(GRAY, labels, class_names=NAMES, opacity=0.5)
    wanted = 0.5 * 100 + 0.5 * np.array(class_color(2))
    assert np.abs(drawn[20, 20] - wanted).max() <= 1
    assert (drawn[:, 260:] == 100).all()


def test_every_class_that_occurs_is_named_on_its_own_ground() -> None:
    labels = np.zeros((400, 500), int)
    labels[200:], labels[300:, 250:] = 1, 2
    drawn = draw_semantic(GRAY, labels, class_names=NAMES)
    for label in range(3):
        assert (drawn == class_color(label)).all(axis=2).sum() > 200


def test_opacity_0_shows_the_photograph_and_1_the_colours() -> None:
    labels = np.ones((400, 500), int)
    assert tuple(draw_semantic(GRAY, labels, class_names=NAMES, opacity=0.0)[5, 5]) == (
        100,
        100,
        100,
    )
    assert tuple(draw_semantic(GRAY, labels, class_names=NAMES, opacity=1.0)[5, 5]) == class_color(
        1
    )


def test_a_map_of_ignored_pixels_alone_is_the_photograph() -> None:
    for label in (255, -1):
        drawn = draw_semantic(GRAY, np.full((400, 500), label), class_names=NAMES)
        assert np.array_equal(drawn, GRAY)


def test_a_label_map_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match=r"got a label map of shape \(40, 50\)"):
        draw_semantic(GRAY, np.zeros((40, 50), int), class_names=NAMES)


def test_real_scenes_are_tinted_everywhere_but_where_unlabelled(shared_data: Path) -> None:
    folder = shared_data / "ade_mini"
    for path in sorted((folder / "annotations/validation").glob("*.png")):
        labels = read_image(path)[..., 0].astype(int) - 1
        photo = read_image(folder / "images/validation" / f"{path.stem}.jpg")
        drawn = draw_semantic(
            photo, labels, class_names=(), ignore_index=-1, opacity=1.0, min_short_side_px=0
        )
        known = labels >= 0
        colors = np.array([class_color(index) for index in range(150)], np.uint8)
        share = (drawn[known] == colors[labels[known]]).all(axis=1).mean()
        assert share > 0.7  # the rest is tags and border lines


def test_side_by_side_scales_to_the_tallest_and_titles_read() -> None:
    small = np.full((100, 60, 3), 10, np.uint8)
    sheet = side_by_side([GRAY, small], ["first", "second"])
    band = sheet.shape[0] - 400
    assert band > 20
    assert (sheet[band + 10 : -10, :500] == 100).all()
    assert sheet.shape[1] - 500 - 240 >= 8
    assert (sheet[band:, -240:] == 10).all()
    for title in (sheet[:band, :500], sheet[:band, -240:]):
        assert title.min() < 60
        assert (title == 255).mean() > 0.7


def test_side_by_side_refuses_another_number_of_titles() -> None:
    with pytest.raises(UserError, match="got 2 pictures and 1 titles"):
        side_by_side([GRAY, GRAY], ["one"])
