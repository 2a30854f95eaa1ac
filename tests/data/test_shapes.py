"""The built-in data set: the same bytes everywhere, balanced and mirror-symmetric classes, not linearly separable."""

import hashlib
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest

from cifar_tune.data.shapes import CLASSES, IMAGES_PER_CLASS, generate

Part = Literal["train", "test"]
Parts = dict[Part, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return {"train": generate("train"), "test": generate("test")}


@pytest.mark.parametrize(
    ("part", "digest"),
    [
        ("train", "89b6540adfad8066e383b0cdbf235d22490988bc496f509954767eb366172b59"),
        ("test", "ac1703f059fc93ccc683026a4cb12aef99182a84bb8cc1efdb48c901814a0d67"),
    ],
)
def test_the_bytes_are_the_same_everywhere(parts: Parts, part: Part, digest: str) -> None:
    images, labels = parts[part]
    assert hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest() == digest


@pytest.mark.parametrize(("part", "num_images"), [("train", 10_000), ("test", 2_000)])
def test_parts_hold_their_images_in_equal_classes(parts: Parts, part: Part, num_images: int) -> None:
    images, labels = parts[part]
    assert images.shape == (num_images, 3, 32, 32)
    assert (images.dtype.name, labels.dtype.name) == ("uint8", "int64")
    assert np.bincount(labels).tolist() == [IMAGES_PER_CLASS[part]] * len(CLASSES)


def test_classes_come_in_no_order(parts: Parts) -> None:
    _, labels = parts["train"]
    assert np.bincount(labels[:1_000], minlength=10).min() > 50


def test_no_image_is_in_both_parts(parts: Parts) -> None:
    train, test = ({image.tobytes() for image in parts[part][0]} for part in ("train", "test"))
    assert len(train) == 10_000
    assert not train & test


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_its_own_mirror_image(name: str) -> None:
    u, v = np.meshgrid(*[np.arange(-40, 41, dtype=np.int32)] * 2)
    for radius in range(8, 31):
        mask = CLASSES[name](u, v, np.full_like(u, radius))
        assert mask.any()
        np.testing.assert_array_equal(mask, mask[:, ::-1])


def flattened(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(128) - np.float32(1)


def fit_linear(pixels: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Weights of a multinomial logistic regression after ten epochs of stochastic gradient descent."""
    weights = np.zeros((pixels.shape[1], len(CLASSES)), np.float32)
    for batch in np.random.RandomState(0).permutation(np.arange(100_000) % len(labels)).reshape(-1, 250):
        scores = pixels[batch] @ weights
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        error = odds / odds.sum(axis=1, keepdims=True) - np.eye(len(CLASSES))[labels[batch]]
        weights -= 1e-3 / len(batch) * pixels[batch].T @ error.astype(np.float32)
    return weights


def test_a_linear_classifier_is_better_than_chance_and_stays_below_half(parts: Parts) -> None:
    """Better than chance, because training starts with the tints of the classes."""
    (images, labels), (test_images, test_labels) = parts["train"], parts["test"]
    weights = fit_linear(flattened(images), labels)
    predicted = (flattened(test_images) @ weights).argmax(axis=1)
    assert 0.12 < (predicted == test_labels).mean() < 0.5
