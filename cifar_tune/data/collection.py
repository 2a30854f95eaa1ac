"""A collection: labelled images outside the published data sets, in whatever layout their files have.

Where it has no test part, one of five images is taken for it: stratified, and always the same ones. Only the labels and
the names of files are read before that, so the test images stay closed.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cifar_tune.data.images import Images, OwnPart, Source
from cifar_tune.data.pixels import Pixels
from cifar_tune.data.split import OWN_SPLIT, stratified_order
from cifar_tune.errors import UserError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Items:
    """Labelled images that are not decoded yet: `labels` int64 (n,) and `files`, one for each image or for all of them.

    `read(indices, size)` decodes some of them as uint8 (len(indices), 3, size, size).
    """

    labels: Ints
    files: Sequence[Path]
    read: Callable[[Ints, int], Pixels]
    is_one_each: bool = False

    def source(self, indices: Ints, class_names: Sequence[str], size: int) -> Source:
        """The images at `indices` as a part of a data set, which decodes them in this size."""
        labels = self.labels[indices]
        files = [self.files[i] for i in indices] if self.is_one_each else self.files
        content = hashlib.sha256(f"{list(class_names)} {labels.tolist()}".encode())
        if not self.is_one_each:
            content.update(repr(indices.tolist()).encode())
        decode = partial(self._decode, indices, size)
        return Source(tuple(files), decode, class_names, content.hexdigest())

    def _decode(self, indices: Ints, size: int) -> Images:
        return Images(self.read(indices, size), self.labels[indices])


@dataclass(frozen=True, eq=False)
class Collection:
    """Labelled images in one to three parts. `place` is how errors name it."""

    place: str
    class_names: Sequence[str]
    train: Items
    val: Items | None = None
    test: Items | None = None

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise UserError(
                f"{self.place} has fewer than two classes; point --data-dir at the folder with a folder for each class."
            )
        if len(set(self.class_names)) < len(self.class_names):
            raise UserError(f"{self.place} has two classes of one name; rename one of them.")
        for part in ("train", "val", "test"):  # of which only the labels are looked at
            items, indices = self._chosen(part)
            if items is not None:
                check_all_present(items.labels[indices], self.class_names, part, self.place)

    @property
    def num_images(self) -> int:
        """How many images there are for training and validation."""
        return len(self._chosen("train")[1]) + len(self._chosen("val")[1])

    def source(self, part: OwnPart, size: int) -> Source | None:
        """A part's images in a size in pixels; None for the validation part where the files have none."""
        items, indices = self._chosen(part)
        return None if items is None else items.source(indices, self.class_names, size)

    def _chosen(self, part: OwnPart) -> tuple[Items | None, Ints]:
        """The items that a part is taken from, and which of them it has."""
        own = {"train": self.train, "val": self.val, "test": self.test}[part]
        if part == "val" or self.test is not None:
            return own, np.arange(0 if own is None else len(own.labels))
        order = stratified_order(self.train.labels, OWN_SPLIT.seed)
        test, train = np.split(order, [len(order) // OWN_SPLIT.one_in])
        return self.train, np.sort(test if part == "test" else train)


def check_all_present(labels: Ints, class_names: Sequence[str], part: str, place: str) -> None:
    """Raise a UserError where the labels of a part lack a class."""
    absent = sorted(set(range(len(class_names))) - set(labels.tolist()))
    if absent:
        raise UserError(
            f"{place}: the {part} part has no image of class {class_names[absent[0]]!r}; "
            f"every class needs images for training, validation and test."
        )


def numbered(names: Sequence[str]) -> tuple[list[str], Ints]:
    """The classes of images by their names, numbers in their order and text by the alphabet; and each image's label."""
    distinct = set(names)
    class_names = (
        sorted(distinct, key=int) if all(name.isdecimal() and name.isascii() for name in distinct) else sorted(distinct)
    )
    labels = {name: label for label, name in enumerate(class_names)}
    return class_names, np.array([labels[name] for name in names], np.int64)
