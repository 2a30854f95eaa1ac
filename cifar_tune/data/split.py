"""The validation split: which training images are held out to choose between trials.

No other file names its share or its seed. The test images are no part of it.
"""

import hashlib
from dataclasses import asdict, dataclass

import numpy as np

from cifar_tune.data.images import DATASETS, NUM_IMAGES, Images, Ints
from cifar_tune.errors import UserError


@dataclass(frozen=True)
class Split:
    """One of `one_in` training images validates: drawn by a shuffle with the seed, in the classes' proportions.

    A run on fewer images is validated on fewer, but on `min_images` at least: an accuracy on fewer says too little.
    """

    one_in: int
    seed: int
    min_images: int = 500


FIRST_SPLIT = Split(one_in=10, seed=5_000)  # that of version 0.1, whose digests do not contain the split
SPLIT = FIRST_SPLIT
OWN_SPLIT = Split(one_in=5, seed=5_000, min_images=100)  # of a Collection, which often is small; of its test part, too


def split_of(dataset: str) -> Split:
    """The split of a data set."""
    return SPLIT if DATASETS[dataset].origin is not None else OWN_SPLIT


def num_training_images(dataset: str) -> int | None:
    """How many of a data set's images are left to train on; None where only its files know."""
    if dataset not in NUM_IMAGES:
        return None
    return NUM_IMAGES[dataset] - NUM_IMAGES[dataset] // split_of(dataset).one_in


def num_val_images(num_training: int, split: Split = SPLIT) -> int:
    """How many images validate a run that trains on `num_training`: the split's share of all, or its least number."""
    return max(split.min_images, num_training // (split.one_in - 1))


def split_digest(source_digest: str, split: Split = SPLIT) -> str:
    """The hex digest of a source's content and of its split. Scores can be compared where it is the same."""
    if split == FIRST_SPLIT:
        return source_digest
    return hashlib.sha256(f"{source_digest} {asdict(split)}".encode()).hexdigest()


def training_order(labels: Ints, split: Split = SPLIT, num_val: int | None = None) -> Ints:
    """The places of all images, those for training first and those for validation last: stratified, always the same.

    The last `num_val` images are the data set's own for validation; None takes the split's share.
    """
    if num_val is not None:
        end = len(labels) - num_val
        return np.concatenate([stratified_order(labels[:end], split.seed), np.arange(end, len(labels))])
    order = stratified_order(labels, split.seed)
    val, train = np.split(order, [len(order) // split.one_in])
    return np.concatenate([train, val])


def split_images(
    ordered: Images, train_images: int | None, split: Split = SPLIT, num_val: int | None = None
) -> tuple[Images, Images]:
    """(training, validation) images, of all images in their `training_order`.

    `train_images` takes that many of the training images, and of the validation images as many as `num_val_images`
    says, or all there are; `num_val` of the data set's own are never fewer. A smaller number takes a part of what a
    larger one takes.
    """
    num_train = len(ordered) - (len(ordered) // split.one_in if num_val is None else num_val)
    train, val = ordered.part(0, num_train), ordered.part(num_train, len(ordered))
    if train_images is None:
        return train, val
    _check_number(train_images, num_train)
    if num_val is None:
        val = val.part(0, num_val_images(train_images, split))
    return train.part(0, train_images), val


def _check_number(train_images: int, num_images: int) -> None:
    if not 1 <= train_images <= num_images:
        raise UserError(
            f"train_images={train_images} is not possible: choose 1 to {num_images}, "
            "which is what validation leaves of the training images."
        )


def stratified_order(labels: Ints, seed: int) -> Ints:
    """All indices, shuffled so that every stretch of them holds the classes in their proportions."""
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((labels, place)).astype(np.int64)
