"""A collection: labelled images outside the published data sets, in whatever layout their files have.

Where it has no test part, one of five images is taken for it: stratified, and always the same ones. Only the labels and
the names of files are read before that, so the test images stay closed.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from cifar_tune.data.images import Ints, Labelled, OwnPart, Pixels, Source
from cifar_tune.data.split import OWN_SPLIT, stratified_order
from cifar_tune.errors import UserError

LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "category", "target")  # of a table, the most usual one first


@dataclass(frozen=True, eq=False)
class Items:
    """Labelled images that are not decoded yet: `labels` int64 (n,) and `files`, one for each image or for all of them.

    `blocks(indices, size)` decodes those at `indices`, which ascend, in some blocks of uint8 (n, 3, size, size).
    """

    labels: Ints
    files: Sequence[Path]
    blocks: Callable[[Ints, int], Iterator[Pixels]]
    is_one_each: bool = False

    def read(self, indices: Ints, size: int) -> Pixels:
        """Those at `indices` in memory."""
        return np.concatenate(list(self.blocks(indices, size)))

    def source(self, indices: Ints, class_names: Sequence[str], size: int) -> Source:
        """The images at `indices` as a part of a data set, which decodes them in this size."""
        labels = self.labels[indices]
        files = [self.files[i] for i in indices] if self.is_one_each else self.files
        content = hashlib.sha256(f"{list(class_names)} {labels.tolist()}".encode())
        if not self.is_one_each:
            content.update(repr(indices.tolist()).encode())
        return Source(tuple(files), partial(self._labelled, indices, size), class_names, content.hexdigest())

    def _labelled(self, indices: Ints, size: int) -> Labelled:
        return Labelled(self.labels[indices], self.blocks(indices, size))


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
        for part, (items, indices) in self._parts.items():  # of which only the labels are looked at
            check_all_present(items.labels[indices], self.class_names, part, self.place)

    @property
    def num_images(self) -> int:
        """How many images there are for training and validation."""
        return sum(len(indices) for part, (_, indices) in self._parts.items() if part != "test")

    def source(self, part: OwnPart, size: int) -> Source:
        """A part's images in a size in pixels; a KeyError for the validation part where `val` is None."""
        items, indices = self._parts[part]
        return items.source(indices, self.class_names, size)

    @cached_property
    def _parts(self) -> dict[OwnPart, tuple[Items, Ints]]:
        """For each part the items that it is taken from, and which of them it has."""
        own: dict[OwnPart, Items | None] = {"train": self.train, "val": self.val, "test": self.test}
        parts = {part: (items, np.arange(len(items.labels))) for part, items in own.items() if items is not None}
        if self.test is None:
            order = stratified_order(self.train.labels, OWN_SPLIT.seed)
            test, train = np.split(order, [len(order) // OWN_SPLIT.one_in])
            parts |= {"train": (self.train, np.sort(train)), "test": (self.train, np.sort(test))}
        return parts


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
