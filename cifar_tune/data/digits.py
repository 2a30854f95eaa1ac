"""The built-in data set `digits`: scikit-learn's 1,797 handwritten digits, gray images of 8×8 pixels and 17 values.

They are the test images of the UCI repository's "Optical Recognition of Handwritten Digits".
"""

from collections.abc import Iterator

import numpy as np

from cifar_tune.data.collection import Collection, Items
from cifar_tune.data.images import CLASS_NAMES, Ints, Pixels
from cifar_tune.data.pixels import resize


def digits() -> Collection:
    """All digits; no file is read but scikit-learn's own."""
    from sklearn.datasets import load_digits  # takes a second

    values, labels = load_digits(return_X_y=True)
    gray = np.round(values.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = gray.repeat(3, axis=1)

    def blocks(indices: Ints, size: int) -> Iterator[Pixels]:
        yield resize(images[indices], size)

    return Collection("digits", CLASS_NAMES["digits"], Items(labels.astype(np.int64), (), blocks))
