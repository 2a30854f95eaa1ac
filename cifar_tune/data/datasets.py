"""A data set's images by its name: located, decoded once into the store's cache, and split by split.py.

Published data sets are read by archive.py, parquet.py, svhn.py and mnist.py; what collection.py describes are a user's
own images and the digits. Augmentation and scaling are no part of the data.
"""

import hashlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_tune.data.archive import find_batches, published_archive
from cifar_tune.data.cache import cached
from cifar_tune.data.collection import Collection, check_all_present
from cifar_tune.data.digits import digits
from cifar_tune.data.images import (
    CLASS_NAMES,
    DATASETS,
    IMAGE_SIZE,
    DatasetName,
    Drawn,
    IdxFiles,
    Images,
    Labelled,
    MatFiles,
    OwnPart,
    Part,
    Source,
    TrainingData,
)
from cifar_tune.data.mnist import find_idx, published_idx
from cifar_tune.data.own_folder import find_folder
from cifar_tune.data.own_npz import find_npz
from cifar_tune.data.own_parquet import find_own_parquet
from cifar_tune.data.parquet import find_parquet
from cifar_tune.data.split import split_digest, split_images, split_of, training_order
from cifar_tune.data.svhn import find_mat, published_mat
from cifar_tune.errors import UserError

DECODING = "1"  # part of every digest: raise it when decoding changes
TRAINING_PARTS: tuple[OwnPart, ...] = ("train", "val")  # of which a data set may have only the first


def load_training_data(
    name: DatasetName,
    *,
    train_images: int | None,
    data_dir: Path | None,
    store: Path,
    image_size: int = IMAGE_SIZE,
    num_classes: int | None = None,
) -> TrainingData:
    """The training part, split: `train_images` of it, or all for None. The test files are not opened.

    `data_dir` holds the files of a published data set; without one they are downloaded into the store. A user's own
    files have to be of `num_classes`.
    """
    sources, num_val = _training_sources(name, data_dir, store, image_size, num_classes)
    split, class_names = split_of(name), sources[0].class_names
    digests = [_digest(name, part, each, image_size) for part, each in zip(TRAINING_PARTS, sources, strict=False)]
    own_digest = hashlib.sha256(" ".join(digests).encode()).hexdigest()
    digest = split_digest(digests[0] if num_val is None else own_digest, split)
    images = cached(
        _cache_file(store, name, "train", digest),
        lambda: _joined(sources),
        lambda labels: training_order(labels, split, num_val),
        image_size,
    )
    train, val = split_images(images, train_images, split, num_val)
    if _is_collection(name) and train_images is None:
        check_all_present(val.labels, class_names, "val", str(data_dir or name))
    return TrainingData(name, digest, train, val, class_names)


def _training_sources(
    name: DatasetName, data_dir: Path | None, store: Path, image_size: int, num_classes: int | None
) -> tuple[list[Source], int | None]:
    """The training part, and the validation part with its number of images where the data set has one of its own."""
    if not _is_collection(name):
        return [find_source(name, "train", data_dir, store)], None
    collection = find_collection(name, data_dir)
    _check_classes(collection.class_names, num_classes, data_dir)
    if collection.val is None:
        return [collection.source("train", image_size)], None
    return [collection.source(part, image_size) for part in TRAINING_PARTS], len(collection.val.labels)


def _joined(sources: Sequence[Source]) -> Labelled:
    """The images of all sources, one after the other."""
    parts = [source.labelled() for source in sources]
    labels = np.concatenate([part.labels for part in parts])
    return Labelled(labels, chain.from_iterable(part.blocks for part in parts))


class Loaded(NamedTuple):
    """The test images of a data set, the hex SHA-256 of their source, and the names of its classes."""

    images: Images
    digest: str
    class_names: Sequence[str]


def load_test_images(name: DatasetName, *, data_dir: Path | None, store: Path, image_size: int = IMAGE_SIZE) -> Loaded:
    """The test images, from the store's cache where they are there."""
    if _is_collection(name):
        source = find_collection(name, data_dir).source("test", image_size)
    else:
        source = find_source(name, "test", data_dir, store)
    digest = _digest(name, "test", source, image_size)
    path = _cache_file(store, name, "test", digest)
    images = cached(path, source.labelled, lambda labels: np.arange(len(labels)), image_size)
    return Loaded(images, digest, source.class_names)


def _is_collection(name: DatasetName) -> bool:
    """Whether the data set is neither a published nor a drawn one; an unknown name is none, and find_source says so."""
    return name in DATASETS and DATASETS[name].origin is None


def _check_classes(class_names: Sequence[str], num_classes: int | None, data_dir: Path | None) -> None:
    """Raise a UserError where a user's own files are not of as many classes as their recipe says."""
    found = len(class_names)
    if num_classes not in (None, found):
        listed = ", ".join(list(class_names[:5]) + ["..."] * (found > 5))
        raise UserError(
            f"{data_dir} holds {found} classes ({listed}), but the recipe says num_classes={num_classes}; "
            f"set num_classes={found}, or correct --data-dir."
        )


def find_source(name: DatasetName, part: Part, data_dir: Path | None, store: Path) -> Source:
    """The files of a published or drawn part and how to decode them; a UserError where there are none.

    A Parquet export comes before torchvision's layout, because looking for it needs no import of torch.
    """
    if name not in DATASETS:
        raise UserError(f"There is no dataset {name!r}; choose one of {', '.join(DATASETS)}.")
    origin = DATASETS[name].origin
    if isinstance(origin, Drawn):
        return Source.whole((), lambda: Images(*origin.draw(part)), CLASS_NAMES[name], origin.version)
    if data_dir is not None:
        check_folder(data_dir)
    if isinstance(origin, MatFiles):
        return find_mat(published_mat(name, part), data_dir, store)
    if isinstance(origin, IdxFiles):
        return find_idx(published_idx(name, part), data_dir, store)
    exported = find_parquet(name, part, data_dir) if data_dir is not None else None
    return exported or find_batches(published_archive(name), part, data_dir, store)


def find_collection(name: DatasetName, data_dir: Path | None) -> Collection:
    """The images of a data set that is no published one: the built-in digits, or a user's own in `data_dir`."""
    if name == "digits":
        return digits()
    if data_dir is None:
        raise UserError(f"The data set {name!r} is your own files: say where they are with --data-dir.")
    check_folder(data_dir)
    match name:
        case "folder":
            return find_folder(data_dir)
        case "npz":
            return find_npz(data_dir)
    return find_own_parquet(data_dir)


def check_folder(data_dir: Path) -> None:
    """Raise a UserError where the data folder is not there."""
    if not data_dir.is_dir():
        raise UserError(f"The data folder {data_dir} does not exist; correct --data-dir or CIFAR_TUNE_DATA_DIR.")


def _digest(name: str, part: str, source: Source, image_size: int) -> str:
    """Hex SHA-256 of the files' bytes and of what else decides the decoded images."""
    digest = hashlib.sha256(f"{DECODING} {name} {part} {source.content}".encode())
    if image_size != IMAGE_SIZE:
        digest.update(f" {image_size}".encode())
    for path in source.files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); correct its rights.") from None
    return digest.hexdigest()


def _cache_file(store: Path, name: str, part: str, digest: str) -> Path:
    return store / "cache" / f"{name}-{part}-{digest[:16]}.npy"
