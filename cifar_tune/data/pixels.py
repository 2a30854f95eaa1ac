"""Images of any size, mode and format that Pillow reads, as the pixels of a network: one rule for data and `predict`.

EXIF rotation is applied, transparency becomes white, gray becomes RGB, and the centre square is resized with a Lanczos
filter. More than 8 bits are scaled to 8. Of an animation the first frame is taken; of an animated PNG with a still
image of its own, that image.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_tune.data.images import IMAGE_SIZE, Pixels

BACKGROUND = "white"  # behind transparent pixels


def read_image(path: Path, size: int = IMAGE_SIZE) -> Pixels:
    """The image in a file as uint8 (3, size, size); whatever Pillow raises where it is damaged."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")  # a pipe would be waited for
    return _read(path, size)


def decode_image(encoded: bytes, size: int) -> Pixels:
    """The image in the bytes of a file as uint8 (3, size, size); whatever Pillow raises where they are damaged."""
    return _read(io.BytesIO(encoded), size)


def shorter_side(path: Path) -> int:
    """The pixels of the shorter side of an image, which is not decoded; 0 where it is none."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_formats()) as image:
            return min(image.size)
    except Exception:  # a damaged image can raise anything in Pillow; who reads it will say so
        return 0


def resize(images: Pixels, size: int) -> Pixels:
    """Images uint8 (n, 3, H, W) as (n, 3, size, size); the same array where they have that size."""
    if images.shape[2:] == (size, size):
        return images
    resized = [_fit(Image.fromarray(image.transpose(1, 2, 0)), size) for image in images]
    return np.array(resized, np.uint8).reshape(-1, 3, size, size)


def as_bytes(values: npt.NDArray[Any], *, has_16_bits: bool = False) -> Pixels:
    """Gray or colour values of more than 8 bits as uint8; a ValueError where they are outside their type's scale.

    Fractions are from 0 to 1, and whole numbers from 0 to 255 unless they are known to be of 16 bits. No scale is
    guessed from the values, because the images of a data set would be guessed apart.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "buif":
        raise ValueError("its values are no numbers")
    lowest, highest = float(values.min(initial=0)), float(values.max(initial=0))
    limit = 65535 if has_16_bits else 1 if values.dtype.kind in "bf" else 255
    if not 0 <= lowest <= highest <= limit:
        kind = "fractions" if values.dtype.kind == "f" else "whole numbers"
        raise ValueError(f"its {kind} are from {lowest:g} to {highest:g}, not from 0 to {limit}; save it with 8 bits")
    scaled: Pixels = (values * (1 / 256 if has_16_bits else 255 / limit)).astype(np.uint8)
    return scaled


def why_unreadable(error: Exception, path: Path) -> str:
    """Why an image cannot be read, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image that can be read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).replace(str(path), path.name).split()).rstrip(".") or type(error).__name__


def _read(file: Path | io.BytesIO, size: int) -> Pixels:
    with warnings.catch_warnings(action="ignore"), Image.open(file, formats=_formats()) as image:
        has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
        return _fit(_in_colors(ImageOps.exif_transpose(image), has_16_bits=has_16_bits), size)


def _formats() -> list[str]:
    """What Pillow reads by itself: for PostScript it starts another program, which runs the file."""
    Image.init()
    return [name for name in Image.OPEN if name != "EPS"]


def _in_colors(image: Image.Image, *, has_16_bits: bool) -> Image.Image:
    """An image of any mode as 8-bit RGB; a 16-bit PGM has Pillow's mode of 32 bits."""
    if image.mode.startswith(("I", "F")):  # Pillow would clip it at 255
        image = Image.fromarray(as_bytes(np.asarray(image), has_16_bits=has_16_bits))
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    flat = Image.new("RGB", image.size, BACKGROUND)
    flat.paste(transparent, mask=transparent)
    return flat


def _fit(image: Image.Image, size: int) -> Pixels:
    square = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))
