import numpy as np
import pytest

from swin_dense.errors import UserError
from swin_dense.visualization.palette import (
    class_color,
    class_palette,
    contrast_ratio,
    oklab,
    text_color,
)


def test_a_class_has_the_same_colour_whatever_the_number_of_classes() -> None:
    many = class_palette(400)
    assert np.array_equal(class_palette(20), many[:20])
    assert [class_color(index) for index in (0, 79, 300)] == [
        tuple(many[index]) for index in (0, 79, 300)
    ]
    assert class_color(0) == (255, 112, 32)


@pytest.mark.parametrize(
    ("num_classes", "least"), [(10, 0.15), (20, 0.11), (80, 0.05), (150, 0.04)]
)
def test_colours_are_well_apart_in_oklab(num_classes: int, least: float) -> None:
    lab = oklab(class_palette(num_classes))
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert distance[~np.eye(num_classes, dtype=bool)].min() > least


def test_a_thousand_classes_have_a_thousand_colours() -> None:
    assert len(np.unique(class_palette(1000), axis=0)) == 1000


def test_no_classes_give_an_empty_palette() -> None:
    assert class_palette(0).shape == (0, 3)


def test_a_negative_class_is_refused() -> None:
    with pytest.raises(UserError, match="got class index -1"):
        class_color(-1)


def test_oklab_of_white_and_red_are_the_published_values() -> None:
    assert np.allclose(oklab(np.array([255, 255, 255])), [1, 0, 0], atol=1e-3)
    assert np.allclose(oklab(np.array([255, 0, 0])), [0.62796, 0.22486, 0.12585], atol=1e-3)


def test_contrast_of_black_and_white_is_21() -> None:
    assert contrast_ratio((0, 0, 0), (255, 255, 255)) == pytest.approx(21.0)
    assert contrast_ratio((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


def test_text_reads_on_every_class_colour() -> None:
    for color in class_palette(300):
        ground = (int(color[0]), int(color[1]), int(color[2]))
        assert contrast_ratio(text_color(ground), ground) >= 4.5
