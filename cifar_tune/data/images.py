"""The data sets by name, and labelled images in memory. No file is opened here.

A new data set is a row of `DATASETS` and its name in `DatasetName`. Files are read by archive.py, parquet.py, svhn.py
and mnist.py, or where they are a user's own by own_folder.py, own_parquet.py and own_npz.py; datasets.py chooses.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cifar_tune.data import shapes
from cifar_tune.errors import UserError

DatasetName = Literal[
    "cifar10",
    "cifar100",
    "svhn",
    "mnist",
    "fashion_mnist",
    "kmnist",
    "shapes",
    "digits",
    "folder",
    "parquet",
    "npz",
]
Part = Literal["train", "test"]
OwnPart = Literal["train", "val", "test"]  # a user's own files can have a part for validation

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

IMAGE_SIZE = 32  # pixels, both ways, unless a recipe has another size

CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
DIGITS = "0123456789"
# As torchvision has them, which is not imported for a name.
MNIST_CLASSES = "0 - zero,1 - one,2 - two,3 - three,4 - four,5 - five,6 - six,7 - seven,8 - eight,9 - nine"
FASHION_CLASSES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
KMNIST_CLASSES = "o ki su tsu na ha ma ya re wo"


@dataclass(frozen=True)
class Published:
    """A data set that torchvision knows: its class in torchvision.datasets has the addresses and the checksums."""

    torchvision_class: str


@dataclass(frozen=True)
class Batches(Published):
    """CIFAR's pickled batches or the Hugging Face hub's Parquet export, and what the labels are called in them."""

    batch_labels: str  # the key of the labels in a batch
    parquet_labels: str  # the column of the labels in the export


@dataclass(frozen=True)
class MatFiles(Published):
    """A MATLAB file for each part, as SVHN has it."""


@dataclass(frozen=True)
class IdxFiles(Published):
    """A file of images and one of labels for each part, in MNIST's format."""


@dataclass(frozen=True)
class Drawn:
    """A data set that a program draws; another `version` draws other images."""

    draw: Callable[[Part], tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]  # images and labels, as in Images
    version: str


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set before any file of it is opened; of a user's own files that is nothing."""

    class_names: Sequence[str] = ()  # by label
    num_images: int | None = None  # for training and validation together, without the test images
    origin: Published | Drawn | None = None  # None: a Collection


DATASETS: dict[str, Dataset] = {
    "cifar10": Dataset(CIFAR10_CLASSES.split(), 50_000, Batches("CIFAR10", "labels", "label")),
    "cifar100": Dataset(CIFAR100_CLASSES.split(), 50_000, Batches("CIFAR100", "fine_labels", "fine_label")),
    "svhn": Dataset(list(DIGITS), 73_257, MatFiles("SVHN")),
    "mnist": Dataset(MNIST_CLASSES.split(","), 60_000, IdxFiles("MNIST")),
    "fashion_mnist": Dataset(FASHION_CLASSES.split(","), 60_000, IdxFiles("FashionMNIST")),
    "kmnist": Dataset(KMNIST_CLASSES.split(), 60_000, IdxFiles("KMNIST")),
    "shapes": Dataset(list(shapes.CLASSES), 10_000, Drawn(shapes.generate, shapes.VERSION)),
    "digits": Dataset(list(DIGITS), 1_438),
    "folder": Dataset(),
    "parquet": Dataset(),
    "npz": Dataset(),
}
OWN = [name for name, dataset in DATASETS.items() if not dataset.class_names]  # a user's own files
CLASS_NAMES = {name: list(dataset.class_names) for name, dataset in DATASETS.items() if dataset.class_names}
NUM_CLASSES = {name: len(class_names) for name, class_names in CLASS_NAMES.items()}
NUM_IMAGES = {name: dataset.num_images for name, dataset in DATASETS.items() if dataset.num_images is not None}
BATCHES = {name: dataset.origin for name, dataset in DATASETS.items() if isinstance(dataset.origin, Batches)}


@dataclass(frozen=True, eq=False)
class Images:
    """Images uint8 (N, 3, S, S) and their labels int64 (N,)."""

    images: Pixels
    labels: Ints

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int) -> "Images":
        """Those with the numbers from `start` up to `stop`, without a copy."""
        return Images(self.images[start:stop], self.labels[start:stop])

    def followed_by(self, others: "Images") -> "Images":
        """These and the others."""
        images = np.concatenate([self.images, others.images])
        return Images(images, np.concatenate([self.labels, others.labels]))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pixels in one block of memory, which processes can share."""
        return from_rows, (np.ascontiguousarray(self.images.transpose(0, 2, 3, 1)), self.labels)


def from_rows(rows: Pixels, labels: Ints) -> Images:
    """Images of pixels (N, S, S, 3), as a network takes them and the cache keeps them."""
    return Images(rows.transpose(0, 3, 1, 2), labels)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a search sees: training and validation images, never the test images."""

    dataset: str
    digest: str  # hex SHA-256 of the source's content and its split
    train: Images
    val: Images
    class_names: Sequence[str]  # by label, of the whole data set

    @property
    def num_classes(self) -> int:
        """Classes of the whole data set."""
        return len(self.class_names)

    def all_for_training(self) -> "TrainingData":
        """The same with the validation images added to the training images, for a run after which nothing is chosen."""
        return replace(self, train=self.train.followed_by(self.val))


@dataclass(frozen=True)
class Labelled:
    """Labels int64 (N,), and the pixels of their images in the same order: blocks of uint8 (n, 3, H, W).

    Blocks are decoded one after another, so that not all need be in memory.
    """

    labels: Ints
    blocks: Iterable[Pixels]


@dataclass(frozen=True)
class Source:
    """One part of a data set: its files (none where it is drawn), and how they become images.

    `content` is what besides the files' bytes decides the images.
    """

    files: tuple[Path, ...]
    labelled: Callable[[], Labelled]
    class_names: Sequence[str]
    content: str = ""

    @classmethod
    def whole(
        cls, files: tuple[Path, ...], decode: Callable[[], Images], class_names: Sequence[str], content: str = ""
    ) -> "Source":
        """A part whose images are decoded all at once."""

        def labelled() -> Labelled:
            images = decode()
            return Labelled(images.labels, [images.images])

        return cls(files, labelled, class_names, content)

    def decode(self) -> Images:
        """All of its images in memory."""
        labelled = self.labelled()
        return Images(np.concatenate(list(labelled.blocks)), labelled.labels)


def check_labels(images: Images, num_classes: int, folder: Path) -> Images:
    """The same images; a UserError where a label is not a class, or a class has no image."""
    present = set(np.unique(images.labels).tolist())
    if present - set(range(num_classes)):
        raise UserError(f"{folder} is damaged: a label is outside 0 to {num_classes - 1}; download it again.")
    absent = sorted(set(range(num_classes)) - present)
    if absent:
        raise UserError(f"{folder} is incomplete: it has no image of class {absent[0]}; download it again.")
    return images
