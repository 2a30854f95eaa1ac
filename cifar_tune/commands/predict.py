"""`cifar-tune predict`: classify a user's own images, of any size, mode or format that Pillow reads."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_tune.data.images import CLASS_NAMES, IMAGE_SIZE
from cifar_tune.training.inference import load_classifier
from cifar_tune.wording import format_percent

BACKGROUND = "white"  # behind transparent pixels
EXIT_SKIPPED = 2  # some file could not be read, which the user can correct


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of an image with their probabilities, or why it could not be read."""

    path: Path
    classes: Sequence[tuple[str, float]] = ()
    error: str | None = None


def print_predictions(weights: Path, paths: Sequence[Path], top: int) -> int:
    """Print a line for each image on stdout, and the skipped files on stderr. Returns the exit code."""
    predictions = predict(weights, paths, top)
    skipped = [prediction for prediction in predictions if prediction.error is not None]
    for prediction in predictions:
        if prediction.error is None:
            classes = ", ".join(f"{name} {format_percent(share, digits=1)}" for name, share in prediction.classes)
            print(_printable(f"{prediction.path}: {classes}"))
    for prediction in skipped:
        print(_printable(f"cifar-tune: {prediction.path} was skipped: {prediction.error}"), file=sys.stderr)
    return EXIT_SKIPPED if skipped else 0


def _printable(line: str) -> str:
    """The line without bytes of a file's name that are no text, and without codes that a terminal obeys."""
    return "".join(character if character.isprintable() else "�" for character in line)


def predict(weights: Path, paths: Sequence[Path], top: int) -> list[Prediction]:
    """The `top` most likely classes of each image, in the order of the paths."""
    classifier, recipe = load_classifier(weights)
    names = CLASS_NAMES[recipe.dataset]
    predictions = []
    for path in paths:
        try:
            pixels = read_image(path)
        except Exception as error:  # a damaged image can raise anything in Pillow
            predictions.append(Prediction(path, error=_reason(error, path)))
            continue
        with torch.inference_mode():
            shares = classifier(torch.from_numpy(pixels)[None])[0].softmax(dim=0)
        # Of equal shares the first class comes first, as an evaluation's argmax counts it; topk would take any.
        best, order = shares.sort(descending=True, stable=True)
        classes = [(names[i], share) for i, share in zip(order[:top].tolist(), best[:top].tolist(), strict=True)]
        predictions.append(Prediction(path, classes))
    return predictions


def _reason(error: Exception, path: Path) -> str:
    """Why an image cannot be read, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image that can be read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).replace(str(path), path.name).split()) or type(error).__name__


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """The image as uint8 (3, 32, 32).

    EXIF rotation is applied, transparency becomes white, and the centre square is resized with a Lanczos filter. Of an
    animation the first frame is taken; of an animated PNG with a still image of its own, that image.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")  # a pipe would be waited for
    with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_formats()) as image:
        colors = _in_colors(ImageOps.exif_transpose(image))
    square = ImageOps.fit(colors, (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    pixels: npt.NDArray[np.uint8] = np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))
    return pixels


def _formats() -> list[str]:
    """What Pillow reads by itself: for PostScript it starts another program, which runs the file."""
    Image.init()
    return [name for name in Image.OPEN if name != "EPS"]


def _in_colors(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB."""
    if image.mode.startswith(("I", "F")):  # Pillow would clip it at 255
        image = Image.fromarray(_as_bytes(image))
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    flat = Image.new("RGB", image.size, BACKGROUND)
    flat.paste(transparent, mask=transparent)
    return flat


def _as_bytes(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The gray values of a mode with more than 8 bits; a ValueError where their scale is not certain.

    Whole numbers are of 16 bits where any is above 255 (a 16-bit PGM has mode I), fractions of 0 to 1 where none is
    above 1.
    """
    values = np.asarray(image)
    lowest, highest = float(values.min()), float(values.max())
    scale = 1.0
    if image.mode.startswith("I;16") or (image.mode == "I" and highest > 255):
        scale = 1 / 256
    elif image.mode == "F" and highest <= 1:
        scale = 255.0
    if lowest < 0 or not highest * scale < 256:
        raise ValueError("its values are none of 8 bits, of 16 bits or from 0 to 1; save it with 8 bits")
    return (values * scale).astype(np.uint8)
