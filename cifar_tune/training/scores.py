"""What a network is scored by on images with known labels: accuracy, balanced accuracy or macro F1. No torch here.

Each score is a mean over images of one value per image. An accuracy is the mean of hits. The other two weigh classes
alike, and an image's value is the score plus the image's influence on it: how the score would move if images like this
one were a little more frequent (the delta method; Hampel, Journal of the American Statistical Association 69:383,
1974). So the variance of the values, divided by the number of images, is the score's sampling variance, and everything
that is computed from tables of hits holds for tables of such values too.
"""

import math
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

ScoreName = Literal["accuracy", "balanced_accuracy", "macro_f1"]
SCORE_NAMES: tuple[ScoreName, ...] = get_args(ScoreName)

Classes = npt.NDArray[np.int64]
Values = npt.NDArray[np.bool_ | np.float64]

SCORE_ERROR = "val_score_error"  # the metric of an epoch with the standard error of a score that is no accuracy


def metric_name(score: ScoreName) -> str:
    """The score of validation images in every metric, column and table: `val_accuracy`, `val_macro_f1`."""
    return f"val_{score}"


def validation_names(score: ScoreName) -> tuple[str, ...]:
    """The metrics of an epoch's validation, in the order in which the training loop computes them."""
    return ("val_loss", "val_accuracy", *(() if score == "accuracy" else (metric_name(score), SCORE_ERROR)))


def image_values(score: ScoreName, predictions: Classes, labels: Classes) -> Values:
    """The value of each image (n,), whose mean is the score; of an accuracy, whether the image is a hit.

    As in scikit-learn, a balanced accuracy is the mean recall of the classes that the labels have, and a macro F1 the
    mean F1 of those that labels or predictions have.
    """
    hits: npt.NDArray[np.bool_] = predictions == labels
    if score == "accuracy":
        return hits
    num_classes = 1 + int(max(predictions.max(), labels.max()))
    num_labelled = np.bincount(labels, minlength=num_classes)
    num_hits = np.bincount(labels[hits], minlength=num_classes)
    if score == "balanced_accuracy":
        recalls, weights = _shares(num_hits, num_labelled, len(labels))
        return float(recalls[num_labelled > 0].mean()) + weights[labels] * (hits - recalls[labels])
    # F1 is 2 hits / (labelled + predicted), a ratio of two sums over images, each of which moves with an image.
    num_either = num_labelled + np.bincount(predictions, minlength=num_classes)
    f1, weights = _shares(2 * num_hits, num_either, len(labels))
    moves = weights[labels] * (2 * hits - f1[labels]) - weights[predictions] * f1[predictions]
    values: npt.NDArray[np.float64] = float(f1[num_either > 0].mean()) + moves
    return values


def _shares(
    parts: npt.NDArray[np.signedinteger], counts: npt.NDArray[np.signedinteger], num_images: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The share of each class, and the weight of one of its images in the mean of the shares, times all images.

    The mean is over the classes with a count; the share of another is 0.
    """
    at_least_one = counts.clip(min=1)
    return parts / at_least_one, num_images / (at_least_one * np.count_nonzero(counts))


def mean_with_error(values: Values) -> tuple[float, float]:
    """The score, and its standard error from the sampling of images."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def chance(score: ScoreName, num_classes: int) -> float:
    """The score of a network that always guesses one class, on as many images of each class.

    One recall is 1 and the others are 0. One F1 is that of the precision 1 / K and the recall 1, which is 2 / (K + 1).
    """
    return 2 / (num_classes * (num_classes + 1)) if score == "macro_f1" else 1 / num_classes
