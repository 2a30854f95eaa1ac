"""`cifar-tune predict`: the classes of a user's own images, of any size, mode or format that Pillow reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from cifar_tune.data.images import CLASS_NAMES, IMAGE_SIZE
from cifar_tune.training.classifier import load_classifier

BACKGROUND = "white"  # of what is transparent


@dataclass(frozen=True)
class Prediction:
    """Of one image: its likeliest classes with their probabilities, or why it could not be read."""

    path: Path
    classes: Sequence[tuple[str, float]] = ()
    error: str | None = None


def predict(weights: Path, paths: Sequence[Path], top: int) -> list[Prediction]:
    """One for each path, in their order; the `top` classes of each."""
    classifier, recipe = load_classifier(weights)
    names = CLASS_NAMES[recipe.dataset]
    predictions = []
    for path in paths:
        try:
            pixels = read_image(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            predictions.append(Prediction(path, error=" ".join(str(error).split())))
            continue
        with torch.inference_mode():
            shares = classifier(torch.from_numpy(pixels)[None])[0].softmax(dim=0)
        best = shares.topk(min(top, len(names)))
        found = [(names[i], share) for i, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
        predictions.append(Prediction(path, found))
    return predictions


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """uint8 (3, 32, 32): upright, the first frame, on white, the square in the middle, resized with Lanczos' filter."""
    with Image.open(path) as image:
        colors = _in_colors(ImageOps.exif_transpose(image))
    square = ImageOps.fit(colors, (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    pixels: npt.NDArray[np.uint8] = np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))
    return pixels


def _in_colors(image: Image.Image) -> Image.Image:
    """As 8-bit RGB, whatever its mode is."""
    if image.mode.startswith("I;16"):  # which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    flat = Image.new("RGB", image.size, BACKGROUND)
    flat.paste(transparent, mask=transparent)
    return flat
