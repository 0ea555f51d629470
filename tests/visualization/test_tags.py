import numpy as np
import pytest

from swin_dense.visualization.palette import class_color, contrast_ratio
from swin_dense.visualization.tags import (
    MIN_FONT_PX,
    PlacedTag,
    TagRequest,
    draw_tags,
    fit_text,
    font_size_px,
    load_font,
    place_tags,
)

CORNERS = [(0, 0, 30, 20), (610, 0, 640, 20), (0, 460, 30, 480), (610, 460, 640, 480)]


def _overlap(first: PlacedTag, second: PlacedTag) -> bool:
    a, b = np.array(first.box_xyxy), np.array(second.box_xyxy)
    return bool((np.minimum(a[2:], b[2:]) > np.maximum(a[:2], b[:2])).all())


def _crowd(count: int) -> list[TagRequest]:
    rng = np.random.default_rng(count)
    corners = rng.uniform(0, 1, (count, 2)) * [640, 480]
    sizes = rng.uniform(5, 150, (count, 2))
    return [
        TagRequest("traffic light 0.87", class_color(i), (*corners[i], *(corners[i] + sizes[i])))
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 10, 100])
def test_tags_lie_inside_the_picture_and_never_on_each_other(count: int) -> None:
    tags = place_tags(_crowd(count), (480, 640))
    assert len(tags) >= 0.6 * count
    for index, tag in enumerate(tags):
        left, top, right, bottom = tag.box_xyxy
        assert 0 <= left < right <= 640
        assert 0 <= top < bottom <= 480
        assert tag.font_px >= MIN_FONT_PX
        assert not any(_overlap(tag, other) for other in tags[:index])


def test_a_tag_stands_on_top_of_its_box_where_there_is_room() -> None:
    (tag,) = place_tags([TagRequest("dog", (255, 0, 0), (100, 200, 300, 400))], (480, 640))
    assert (tag.box_xyxy[0], tag.box_xyxy[3]) == (100, 200)


@pytest.mark.parametrize("target", CORNERS)
def test_a_tag_of_a_box_in_a_corner_is_moved_inside(
    target: tuple[float, float, float, float],
) -> None:
    (tag,) = place_tags([TagRequest("parking meter 0.99", (0, 0, 0), target)], (480, 640))
    left, top, right, bottom = tag.box_xyxy
    assert left >= 0
    assert top >= 0
    assert right <= 640
    assert bottom <= 480
    assert tag.text == "parking meter 0.99"


def test_a_name_wider_than_the_picture_is_shortened() -> None:
    name = "a very long name of a class that nobody can print on a postage stamp"
    (tag,) = place_tags([TagRequest(name, (0, 0, 0), (5, 5, 50, 50))], (64, 100))
    assert tag.text.endswith("…")
    assert tag.box_xyxy[2] <= 100
    assert load_font(tag.font_px).getlength(fit_text(name, tag.font_px, 80)) <= 80


def test_text_grows_with_the_picture_and_never_gets_tiny() -> None:
    assert font_size_px((64, 64)) == 13
    assert font_size_px((480, 640)) == 13
    assert font_size_px((4000, 6000)) > 100


@pytest.mark.parametrize("index", range(12))
def test_drawn_text_has_a_contrast_of_at_least_4_5(index: int) -> None:
    color = class_color(index)
    canvas = np.full((60, 200, 3), 127, np.uint8)
    tags = place_tags([TagRequest("MMMM", color, (20, 30, 180, 50))], (60, 200))
    draw_tags(canvas, tags)
    left, top, right, bottom = tags[0].box_xyxy
    inside = canvas[top + 3 : bottom - 3, left + 3 : right - 3].reshape(-1, 3)
    ground = (inside == color).all(axis=1)
    contrast = np.array([contrast_ratio(tuple(map(int, pixel)), color) for pixel in inside])
    assert ground.mean() > 0.3
    assert (contrast >= 4.5).mean() > 0.05  # the strokes; their smoothed edges have less
    outside = canvas.copy()
    outside[top:bottom, left:right] = 127
    assert (outside == 127).all()


def test_a_tag_that_had_to_move_away_is_joined_to_its_target_by_a_line() -> None:
    canvas = np.zeros((200, 200, 3), np.uint8)
    request = TagRequest("x", (255, 0, 0), (20, 150, 30, 160))
    draw_tags(canvas, [PlacedTag(request, "x", (100, 20, 120, 36), 13)])
    reached = canvas[140:161, 15:45, 0] > 100
    assert reached.any()
    draw_tags(blank := np.zeros_like(canvas), [PlacedTag(request, "x", (20, 134, 40, 150), 13)])
    assert not blank[:130].any()
