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
Influences = npt.NDArray[np.float64]

SCORE_ERROR = "val_score_error"  # the metric of an epoch with the standard error of a score that is no accuracy


def metric_name(score: ScoreName) -> str:
    """The score of validation images in every metric, column and table: `val_accuracy`, `val_macro_f1`."""
    return f"val_{score}"


def validation_names(score: ScoreName) -> tuple[str, ...]:
    """The metrics of an epoch's validation, in the order in which the training loop computes them."""
    return ("val_loss", "val_accuracy", *(() if score == "accuracy" else (metric_name(score), SCORE_ERROR)))


def image_values(score: ScoreName, predictions: Classes, labels: Classes) -> Values:
    """The value of each image (n,), whose mean is the score; of an accuracy, whether the image is a hit."""
    if score == "accuracy":
        return np.asarray(predictions == labels)
    mean, influences = _mean_and_influences(score, predictions, labels)
    return mean + influences


def score_with_error(score: ScoreName, predictions: Classes, labels: Classes) -> tuple[float, float]:
    """The score, and its standard error from the sampling of images."""
    mean, influences = _mean_and_influences(score, predictions, labels)
    return mean, float(influences.std() / math.sqrt(len(influences)))


def _mean_and_influences(score: ScoreName, predictions: Classes, labels: Classes) -> tuple[float, Influences]:
    """The score, and the influence of each image (n,) on it.

    As in scikit-learn, a balanced accuracy is the mean recall of the classes that the labels have, and a macro F1 the
    mean F1 of those that labels or predictions have.
    """
    hits = predictions == labels
    if score == "accuracy":
        accuracy = float(hits.mean())
        return accuracy, hits - accuracy
    num_classes = 1 + int(max(predictions.max(), labels.max()))
    num_labelled = np.bincount(labels, minlength=num_classes)
    num_hits = np.bincount(labels[hits], minlength=num_classes)
    if score == "balanced_accuracy":
        recalls, weights = _shares(num_hits, num_labelled, len(labels))
        # As a sample's variance is divided by n - 1: without it, a class of three images would seem a third too sure.
        weights *= np.sqrt(num_labelled / (num_labelled - 1).clip(min=1))
        return _mean(recalls, num_labelled), weights[labels] * (hits - recalls[labels])
    # F1 is 2 hits / (labelled + predicted), a ratio of two sums over images, each of which moves with an image.
    num_either = num_labelled + np.bincount(predictions, minlength=num_classes)
    f1, weights = _shares(2 * num_hits, num_either, len(labels))
    influences = weights[labels] * (2 * hits - f1[labels]) - weights[predictions] * f1[predictions]
    return _mean(f1, num_either), influences


def _mean(shares: Influences, counts: npt.NDArray[np.signedinteger]) -> float:
    """The mean share of the classes with a count; rounded once, so that equal scores are equal for early stopping."""
    return math.fsum(shares) / int(np.count_nonzero(counts))


def _shares(
    parts: npt.NDArray[np.signedinteger], counts: npt.NDArray[np.signedinteger], num_images: int
) -> tuple[Influences, Influences]:
    """The share of each class, and the weight of one of its images in the mean of the shares, times all images.

    The mean is over the classes with a count; the share of another is 0.
    """
    at_least_one = counts.clip(min=1)
    return parts / at_least_one, num_images / (at_least_one * np.count_nonzero(counts))


def chance(score: ScoreName, num_classes: int) -> float:
    """The score of a network that always guesses one class, on as many images of each class.

    One recall is 1 and the others are 0. One F1 is that of the precision 1 / K and the recall 1, which is 2 / (K + 1).
    """
    return 2 / (num_classes * (num_classes + 1)) if score == "macro_f1" else 1 / num_classes
