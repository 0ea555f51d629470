"""Read any image that a user has as (H, W, 3) uint8 RGB, and write PNGs whole.

Letters: H, W the picture's height and width in pixels.
"""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from swin_dense.errors import UserError

RgbImage = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jp2", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm"}
    | {".pgm", ".pnm"}
)

_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_BIT_DEPTHS = (8, 10, 12, 14, 16)


def read_image(
    path: str | Path,
    *,
    apply_orientation: bool = True,
    background: tuple[int, int, int] = (255, 255, 255),
) -> RgbImage:
    """Return the picture in a file as (H, W, 3) uint8 RGB.

    Gray, palette and CMYK pictures become RGB; transparent ones are laid over ``background``.
    Integers of more than 8 bits are scaled from the smallest usual depth (8, 10, 12, 14 or 16 bits)
    that holds the picture's largest value, because cameras store 12 bits in 16; floats from 0..1,
    or from their own range where they leave it.

    Args:
        path: the file.
        apply_orientation: turn the picture as its EXIF orientation says. The hosts' default loader
            does so too, and COCO annotations refer to what it returns; pass False for a loader with
            ``color_type="color_ignore_orientation"``. TIFFs are turned always, as in every loader.
        background: what shows through transparent pixels.

    Raises:
        UserError: there is no such file, or it does not decode.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "nothing"
        raise UserError(f"no image at {path}: found {kind} there, expected a file. Check the path.")
    data = path.read_bytes()
    try:
        return _decode(data, apply_orientation, background)
    except Image.DecompressionBombError as error:
        raise UserError(
            f"image {path} is larger than Pillow opens ({error}). Cut it into tiles, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS where you trust the file."
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, cv2.error) as error:
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UserError(
            f"image {path} does not decode: got {len(data)} bytes ({reason}), expected a whole "
            "JPEG, PNG, TIFF, WebP or BMP. Copy or download it again, or take it out."
        ) from error


def as_rgb(image: NDArray[np.generic]) -> RgbImage:
    """Return an array as (H, W, 3) uint8 RGB: (H, W) and (H, W, 1) are repeated, alpha is dropped.

    Raises:
        UserError: another shape, or no uint8.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.dtype != np.uint8:
        raise UserError(
            f"got an image of shape {tuple(np.shape(image))} and type {array.dtype}; expected (H, "
            "W), (H, W, 3) or (H, W, 4) uint8, RGB. For files use read_image, which converts "
            "every kind."
        )
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)  # (H, W, 1) -> (H, W, 3)
    return np.ascontiguousarray(array[..., :3], dtype=np.uint8)


def save_png(path: str | Path, image: NDArray[np.generic]) -> Path:
    """Write (H, W, 3) uint8 RGB as a PNG, whole or not at all; return the path.

    Raises:
        UserError: not an image, or the folder cannot be written.
    """
    path = Path(os.path.expanduser(path))
    done, encoded = cv2.imencode(".png", as_rgb(image)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
    assert done
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(encoded.tobytes())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}. Choose another folder.") from error
    return path


def _decode(data: bytes, apply_orientation: bool, background: tuple[int, int, int]) -> RgbImage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large pictures and broken EXIF blocks are no news here
        picture: Image.Image = Image.open(BytesIO(data))
        is_tiff = picture.format == "TIFF"
        orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
        # Pillow 13 mixes up the rows of a turned TIFF; OpenCV turns every TIFF right
        if _is_deep(picture, data) or (is_tiff and orientation != 1):
            picture = _decode_with_opencv(data)
            orientation = 1 if is_tiff else orientation
            if orientation != 1:
                picture.getexif()[_EXIF_ORIENTATION] = orientation
        picture.load()
    if apply_orientation and orientation != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(
            Image.new("RGBA", picture.size, (*background, 255)), picture
        )
    return np.array(picture.convert("RGB"))


def _is_deep(picture: Image.Image, data: bytes) -> bool:
    """Whether samples have more than 8 bits, which Pillow would clip, or keep the high byte of."""
    if picture.mode.startswith(("I", "F")):
        return True
    if picture.format == "PNG":
        return data[24] > 8
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return max(np.atleast_1d(bits)) > 8
    return False


def _decode_with_opencv(data: bytes) -> Image.Image:
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    array = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if array is None:
        raise ValueError("no decoder for this kind of 16-bit or float picture")
    scaled = _to_uint8(array)
    if scaled.ndim == 2:
        return Image.fromarray(scaled)
    if scaled.shape[2] == 4:
        scaled[..., 3] = array[..., 3] // 257 if array.dtype == np.uint16 else scaled[..., 3]
        return Image.fromarray(np.ascontiguousarray(scaled[..., [2, 1, 0, 3]]))
    return Image.fromarray(np.ascontiguousarray(scaled[..., 2::-1]))


def _to_uint8(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale samples of any type to 0..255; the alpha channel has no say in the range."""
    color = array[..., :3] if array.ndim == 3 else array
    if array.dtype == np.uint8:
        return array.astype(np.uint8)
    values = array.astype(np.float32)
    if np.issubdtype(array.dtype, np.integer):
        largest, low = max(int(color.max()), 0), 0.0
        high = float(next((2**bits - 1 for bits in _BIT_DEPTHS if largest < 2**bits), largest))
    else:
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 1.0)
        if (low, high) != (0.0, 1.0):
            low, high = float(values.min()), float(values.max())
    return np.clip((values - low) * (255.0 / max(high - low, 1e-12)) + 0.5, 0, 255).astype(np.uint8)
