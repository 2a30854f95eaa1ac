"""Copies of images in two parts are counted, by their pixels."""

import numpy as np
from helpers.image_files import random_images

from cifar_tune.data.duplicates import warn_of_copies
from cifar_tune.data.images import Images


def test_copies_are_counted_in_one_sentence() -> None:
    train, val, test = random_images(20), random_images(10, seed=1), random_images(10, seed=2)
    assert warn_of_copies(val, "validation", train) is None
    assert warn_of_copies(test, "test", train, val) is None
    leaking = Images(np.concatenate([test.images, train.images[3:5], val.images[:1]]), np.zeros(13, np.int64))
    assert warn_of_copies(leaking, "test", train, val) == (
        "Warning: 3 of 13 test images are in another part too, so scores on them are flattered; remove the copies."
    )


def test_a_copy_with_one_other_pixel_is_another_image() -> None:
    train = random_images(20)
    changed = train.images.copy()
    changed[:, 0, 0, 0] += 1
    assert warn_of_copies(Images(changed, train.labels), "test", train) is None
