"""`cifar-tune predict`: classify a user's own images, of any size, mode or format that Pillow reads."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cifar_tune.data.pixels import read_image, why_unreadable
from cifar_tune.training.inference import load_classifier
from cifar_tune.wording import format_percent

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
    classifier, _ = load_classifier(weights)
    names = classifier.class_names
    predictions = []
    for path in paths:
        try:
            pixels = read_image(path, classifier.image_size)
        except Exception as error:  # a damaged image can raise anything in Pillow
            predictions.append(Prediction(path, error=why_unreadable(error, path)))
            continue
        with torch.inference_mode():
            shares = classifier(torch.from_numpy(pixels)[None])[0].softmax(dim=0)
        # Of equal shares the first class comes first, as an evaluation's argmax counts it; topk would take any.
        best, order = shares.sort(descending=True, stable=True)
        classes = [(names[i], share) for i, share in zip(order[:top].tolist(), best[:top].tolist(), strict=True)]
        predictions.append(Prediction(path, classes))
    return predictions
