from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from swin_dense.errors import UserError
from swin_dense.visualization.images import as_rgb, read_image, save_png

EXIF_ORIENTATION = 0x0112


def test_a_16_bit_gray_png_is_scaled_from_its_full_range(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 257, 32896, 65535]], np.uint16))
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_16_bit_colour_png_keeps_channel_order_and_rounds(tmp_path: Path) -> None:
    rgb = np.array([[[65535, 257 * 100, 0], [128 * 257 + 129, 0, 255 * 257]]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), rgb[..., ::-1])
    assert read_image(tmp_path / "a.png").tolist() == [[[255, 100, 0], [129, 0, 255]]]


def test_12_bits_in_a_16_bit_tiff_fill_the_range(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.array([[0, 2048, 4095]], np.uint16))
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]


def test_8_bits_in_a_16_bit_png_keep_their_values(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[3, 200]], np.uint16))
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [3, 200]


def test_a_float_tiff_is_scaled_from_0_to_1(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.array([[0.0, 0.5, 1.0]], np.float32))
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]


def test_gray_becomes_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(np.array([[7, 250]], np.uint8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[7, 7, 7], [250, 250, 250]]]


def test_palette_colours_are_looked_up(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 0])
    picture.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [200, 100, 0]]]


def test_transparent_pixels_show_the_background(tmp_path: Path) -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    white = [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]
    assert read_image(tmp_path / "a.png").tolist() == white
    green = read_image(tmp_path / "a.png", background=(0, 200, 0))
    assert green[0, 1].tolist() == [0, 200, 0]


def test_16_bit_transparency_is_laid_over_the_background(tmp_path: Path) -> None:
    bgra = np.array([[[0, 0, 65535, 65535], [0, 0, 65535, 0]]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), bgra)
    assert read_image(tmp_path / "a.png").tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = read_image(tmp_path / "a.jpg")[4, 4].tolist()
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("dtype", "unit"), [(np.uint8, 1), (np.uint16, 257 * 36)])
def test_exif_orientation_6_turns_the_picture_clockwise(
    tmp_path: Path, suffix: str, dtype: type, unit: int
) -> None:
    picture = Image.fromarray((np.array([[1, 2, 3], [4, 5, 6]]) * unit).astype(dtype))
    exif = picture.getexif()
    exif[EXIF_ORIENTATION] = 6
    path = tmp_path / f"a.{suffix}"
    picture.save(path, exif=exif)
    gray = unit // 257 or 1
    turned = np.array([[4, 1], [5, 2], [6, 3]]) * gray
    assert np.array_equal(read_image(path)[..., 0], turned)
    stored = np.array([[1, 2, 3], [4, 5, 6]]) * gray
    unturned = read_image(path, apply_orientation=False)[..., 0]
    assert np.array_equal(unturned, stored if suffix == "png" else turned)


def test_a_turned_photograph_is_read_as_the_hosts_loader_reads_it(
    tmp_path: Path, shared_data: Path
) -> None:
    photo = Image.open(sorted((shared_data / "coco_mini/val2017").glob("*.jpg"))[0])
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        photo.save(tmp_path / "a.jpg", exif=exif, quality=95)
        loaded = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_COLOR)
        assert np.array_equal(read_image(tmp_path / "a.jpg"), loaded[..., ::-1])


def test_real_photographs_have_the_pixels_that_training_sees(shared_data: Path) -> None:
    for path in sorted((shared_data / "coco_mini/train2017").glob("*.jpg"))[:12]:
        assert np.array_equal(read_image(path), cv2.imread(str(path))[..., ::-1])


def test_a_file_that_does_not_decode_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image at all")
    with pytest.raises(UserError, match=r"a\.jpg does not decode: got 15 bytes.*expected.*Copy"):
        read_image(tmp_path / "a.jpg")


def test_a_truncated_photograph_is_named(tmp_path: Path, shared_data: Path) -> None:
    photo = sorted((shared_data / "coco_mini/val2017").glob("*.jpg"))[0]
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cut\.jpg does not decode: got 5000 bytes"):
        read_image(tmp_path / "cut.jpg")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found nothing there"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UserError, match="found a folder there"):
        read_image(tmp_path)


def test_an_array_of_floats_is_refused_with_its_type() -> None:
    with pytest.raises(UserError, match=r"shape \(2, 2, 3\) and type float64"):
        as_rgb(np.zeros((2, 2, 3)))


def test_a_png_is_written_whole_and_read_back_equal(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = save_png(tmp_path / "new" / "a.png", image)
    assert np.array_equal(read_image(path), image)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_png(tmp_path / "file" / "a.png", image)
