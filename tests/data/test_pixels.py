"""Images of every size, mode and scale, read as they look."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cifar_tune.data.pixels import as_bytes, decode_image, read_image, resize

RED = (200, 30, 40)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I"])
def test_a_plain_image_of_any_mode_is_read_as_it_looks(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image, expected = Image.fromarray(np.full((50, 70), 0x8040, dtype=np.uint16)), np.full(3, 0x80)
    else:
        image = Image.new("RGB", (70, 50), RED).convert("L" if mode == "I" else "RGB").convert(mode)
        expected = np.asarray(image.convert("RGB")).mean(
            axis=(0, 1)
        )  # the mean, since modes with few colours make a pattern
    saved = image.convert("RGBA") if mode in ("LA", "P", "HSV") else image  # modes that TIFF does not have
    saved.save(tmp_path / "a.tiff")
    pixels = read_image(tmp_path / "a.tiff")
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)), expected, atol=4)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("a.pgm", np.full((40, 40), 0x80FF, np.uint16), 0x80),
        ("dark.pgm", np.full((40, 40), 0x00FF, np.uint16), 0),
        ("a.tiff", np.full((40, 40), 200, np.int32), 200),
        ("a.tiff", np.full((40, 40), 0.5, np.float32), 127),
        ("a.tiff", np.full((40, 40), 1.0, np.float32), 255),
    ],
)
def test_gray_values_of_any_scale_are_read_as_they_look(
    tmp_path: Path, name: str, values: npt.NDArray[np.generic], expected: int
) -> None:
    Image.fromarray(values).save(tmp_path / name)
    assert (read_image(tmp_path / name) == expected).all()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            np.full((40, 40), 256, np.int32),
            "its whole numbers are from 0 to 256, not from 0 to 255; save it with 8",
        ),
        (np.full((40, 40), 1.5, np.float32), "its fractions are from 0 to 1.5, not from 0 to 1"),
        (np.full((40, 40), -0.5, np.float32), "its fractions are from -0.5 to 0, not from 0 to 1"),
        (np.full((40, 40), np.nan, np.float32), "its fractions are from nan to nan"),
    ],
)
def test_a_scale_is_never_guessed_from_one_image(tmp_path: Path, values: npt.NDArray[np.generic], reason: str) -> None:
    """A dark image of a brighter data set would be guessed to have another scale than the rest."""
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=reason):
        read_image(tmp_path / "a.tiff")


def test_transparency_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 40), (*RED, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in (RED, (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(read_image(tmp_path / "a.gif")[:, 16, 16], RED, atol=3)


def test_an_animated_png_is_its_still_image_if_it_has_one(tmp_path: Path) -> None:
    still, *frames = [Image.new("RGB", (40, 40), color) for color in (RED, (0, 0, 255), (0, 255, 0))]
    still.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[:, 16, 16], RED)


def test_the_centre_square_is_used_and_photos_are_turned_upright(tmp_path: Path) -> None:
    wide = Image.new("RGB", (90, 30), (0, 0, 255))
    wide.paste(Image.new("RGB", (30, 30), RED), (30, 0))
    wide.save(tmp_path / "wide.png")
    np.testing.assert_allclose(read_image(tmp_path / "wide.png")[:, 16, 16], RED, atol=3)
    half = Image.new("RGB", (40, 40), (0, 0, 255))
    half.paste(Image.new("RGB", (40, 20), RED), (0, 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    half.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "turned.jpg")[:, 28, 16], RED, atol=6)


def test_an_image_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    Image.new("RGB", (90, 30), RED).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", 64)
    assert pixels.shape == (3, 64, 64)
    np.testing.assert_array_equal(decode_image((tmp_path / "a.png").read_bytes(), 64), pixels)
    np.testing.assert_array_equal(resize(pixels[None], 28)[0].mean(axis=(1, 2)), RED)


def test_images_of_the_size_that_was_asked_for_stay_as_they_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    assert resize(images, 32) is images


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 255], [0, 255]), ([0.0, 1.0], [0, 255]), ([0.0, 0.5], [0, 127]), ([False, True], [0, 255])],
)
def test_arrays_become_bytes_by_the_scale_of_their_type(values: list[float], expected: list[int]) -> None:
    assert as_bytes(np.array(values)).tolist() == expected
    assert as_bytes(np.array([0x00FF, 0x0100, 0xFFFF], np.uint16), has_16_bits=True).tolist() == [0, 1, 255]
