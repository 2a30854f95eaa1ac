"""Labelled images in memory, the datasets they can belong to, and the check of their labels. No file is opened here.

Reading them is archive.py's and parquet.py's, drawing them shapes.py's, and which of these is asked datasets.py's.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cifar_tune.errors import UserError

DatasetName = Literal["cifar10", "cifar100", "shapes"]
Part = Literal["train", "test"]

NUM_CLASSES: dict[str, int] = {"cifar10": 10, "cifar100": 100, "shapes": 10}
NUM_IMAGES: dict[str, int] = {"cifar10": 50_000, "cifar100": 50_000, "shapes": 10_000}  # without the test images
IMAGE_SIZE = 32  # pixels, both ways


@dataclass(frozen=True, eq=False)
class Images:
    """images uint8 N×3×32×32, labels int64 N."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a search sees: training and validation images, never the test images."""

    dataset: str
    digest: str  # hex SHA-256 of the source's content and its split
    train: Images
    val: Images

    @property
    def num_classes(self) -> int:
        return NUM_CLASSES[self.dataset]

    def all_for_training(self) -> "TrainingData":
        """The same with the validation images among the training ones, for a run that nothing is chosen by any more."""
        images, labels = (
            np.concatenate([getattr(self.train, name), getattr(self.val, name)]) for name in ("images", "labels")
        )
        return replace(self, train=Images(images, labels))


@dataclass(frozen=True)
class Source:
    """The files that one part of a dataset is made from (none if it is drawn), and how they become images."""

    files: tuple[Path, ...]
    decode: Callable[[], Images]


def check_labels(images: Images, num_classes: int, folder: Path) -> Images:
    """The images themselves, once it is sure that every label is a class and every class is there."""
    present = set(np.unique(images.labels).tolist())
    if present - set(range(num_classes)):
        raise UserError(f"{folder} is damaged: a label is outside 0 to {num_classes - 1}; download it again.")
    absent = sorted(set(range(num_classes)) - present)
    if absent:
        raise UserError(f"{folder} is incomplete: it has no image of class {absent[0]}; download it again.")
    return images
