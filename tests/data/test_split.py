"""The validation split: what it holds, that it never changes, and that another split has another digest."""

from dataclasses import replace

import numpy as np
import pytest

from cifar_tune.data.images import Images
from cifar_tune.data.split import FIRST_SPLIT, SPLIT, Split, split_digest, split_images, training_order
from cifar_tune.errors import UserError


def stamped(num_images: int, num_classes: int = 10) -> Images:
    """Images whose first two pixels are their index, so that a split can be followed."""
    images = np.zeros((num_images, 3, 32, 32), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(num_images), 256)
    return Images(images, np.arange(num_images) % num_classes)


def split(images: Images, train_images: int | None, by: Split = SPLIT) -> tuple[Images, Images]:
    """The (training, validation) images, from images in any order."""
    order = training_order(images.labels, by)
    return split_images(Images(images.images[order], images.labels[order]), train_images, by)


def indices(images: Images) -> list[int]:
    return [256 * int(high) + int(low) for high, low in images.images[:, 0, 0, :2]]


def test_validation_is_a_stratified_tenth_and_nothing_is_lost_or_shared() -> None:
    train, val = split(stamped(10_000), None)
    assert (len(train), len(val)) == (9_000, 1_000)
    assert np.bincount(val.labels).tolist() == [100] * 10
    assert sorted(indices(train) + indices(val)) == list(range(10_000))


def test_the_split_never_changes() -> None:
    _, val = split(stamped(10_000), None)
    assert indices(val)[:5] == indices(split(stamped(10_000), None)[1])[:5] == [9780, 4981, 9902, 5053, 2534]


@pytest.mark.parametrize(("train_images", "num_val"), [(1, 500), (1_000, 500), (6_300, 700), (9_000, 1_000)])
def test_a_subset_takes_n_and_a_ninth_but_500_at_least_and_the_pool_at_most(train_images: int, num_val: int) -> None:
    train, val = split(stamped(10_000), train_images)
    assert (len(train), len(val)) == (train_images, num_val)


def test_subsets_are_nested_and_stratified() -> None:
    full, full_val = split(stamped(10_000), None)
    larger, larger_val = split(stamped(10_000), 5_400)
    smaller, smaller_val = split(stamped(10_000), 4_507)
    assert set(indices(smaller)) < set(indices(larger)) < set(indices(full))
    assert set(indices(smaller_val)) < set(indices(larger_val)) < set(indices(full_val))
    assert np.ptp(np.bincount(smaller.labels)) <= 1
    assert np.ptp(np.bincount(smaller_val.labels)) <= 1


def test_unequal_classes_keep_their_proportions() -> None:
    images = replace(stamped(1_000), labels=np.repeat([0, 1], [900, 100]))
    train, val = split(images, 90)
    assert np.bincount(split(images, None)[1].labels).tolist() == [90, 10]
    assert np.bincount(train.labels).tolist() == [81, 9]
    assert len(val) == 100


@pytest.mark.parametrize("train_images", [0, -1, 901])
def test_an_impossible_number_of_images_is_refused_with_what_there_is(train_images: int) -> None:
    with pytest.raises(UserError, match="1 to 900"):
        split(stamped(1_000), train_images)


def test_another_share_or_seed_gives_other_images_and_another_digest() -> None:
    fifth, shuffled = Split(one_in=5, seed=SPLIT.seed), Split(one_in=SPLIT.one_in, seed=1)
    train, val = split(stamped(1_000), None, fifth)
    assert (len(train), len(val)) == (800, 200)
    assert indices(split(stamped(1_000), None, shuffled)[1]) != indices(split(stamped(1_000), None)[1])
    fewer = Split(one_in=SPLIT.one_in, seed=SPLIT.seed, min_images=100)
    assert len({split_digest("digest", each) for each in (SPLIT, fifth, shuffled, fewer)}) == 4


def test_the_digests_of_version_0_1_stand_for_its_split() -> None:
    assert Split(one_in=10, seed=5_000) == FIRST_SPLIT
    assert split_digest("digest", FIRST_SPLIT) == "digest"
