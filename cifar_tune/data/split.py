"""The validation split: which of the training images choose between trials. Its share and its seed stand here alone.

The test images are no part of it.
"""

import hashlib
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from cifar_tune.data.images import NUM_IMAGES, Images
from cifar_tune.errors import UserError

MIN_VAL_IMAGES = 500  # an accuracy on fewer says too little


@dataclass(frozen=True)
class Split:
    """One training image in `one_in` validates, stratified, by a shuffle with this seed."""

    one_in: int
    seed: int


FIRST_SPLIT = Split(one_in=10, seed=5_000)  # what the digests stand for that name no split: those of version 0.1
SPLIT = Split(one_in=10, seed=5_000)


def num_training_images(dataset: str) -> int:
    """How many images the validation leaves to train on."""
    return NUM_IMAGES[dataset] - NUM_IMAGES[dataset] // SPLIT.one_in


def num_val_images(num_training: int) -> int:
    """How many images validate a run that is trained on `num_training`: the split's share of both, at least 500."""
    return max(MIN_VAL_IMAGES, num_training // (SPLIT.one_in - 1))


def split_digest(source_digest: str, split: Split = SPLIT) -> str:
    """The digest of a source's content and of how it is split: scores compare where it is the same."""
    if split == FIRST_SPLIT:
        return source_digest
    return hashlib.sha256(f"{source_digest} {asdict(split)}".encode()).hexdigest()


def split_images(images: Images, train_images: int | None, split: Split = SPLIT) -> tuple[Images, Images]:
    """(train, validation): stratified, always the same, and smaller choices lie inside larger ones.

    `train_images=n` takes n of what the validation leaves, and `num_val_images(n)` of the validation images, or all.
    """
    order = _stratified_order(images.labels, split.seed)
    val, train = np.split(order, [len(order) // split.one_in])
    if train_images is not None:
        if not 1 <= train_images <= len(train):
            raise UserError(
                f"train_images={train_images} is not possible: choose 1 to {len(train)}, "
                "which is what validation leaves of the training images."
            )
        train, val = train[:train_images], val[: num_val_images(train_images)]
    return _take(images, train), _take(images, val)


def _stratified_order(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """All indices, shuffled, then dealt out so that every stretch holds the classes in their proportions."""
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((labels, place)).astype(np.int64)


def _take(images: Images, indices: npt.NDArray[np.int64]) -> Images:
    return Images(images.images[indices], images.labels[indices])
