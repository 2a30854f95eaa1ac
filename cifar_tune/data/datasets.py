"""A data set's images by its name: located, decoded once into the store's cache, and split by split.py.

Published data sets are read by archive.py, parquet.py, svhn.py and mnist.py; what collection.py describes are a user's
own images and the digits. Augmentation and scaling are no part of the data.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from cifar_tune.data.archive import find_batches, published_archive
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
from cifar_tune.data.pixels import resized
from cifar_tune.data.split import first_images, split_digest, split_images, split_of
from cifar_tune.data.svhn import find_mat, published_mat
from cifar_tune.errors import UserError

CACHE_VERSION = "1"  # part of every digest: raise it when decoding changes


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
    if not _is_collection(name):
        loaded = load_images(name, "train", data_dir=data_dir, store=store, image_size=image_size)
        train, val = split_images(loaded.images, train_images)
        return TrainingData(name, split_digest(loaded.digest), train, val, loaded.class_names)
    collection, split = find_collection(name, data_dir), split_of(name)
    loaded = _load(name, "train", collection.source("train", image_size), store, image_size)
    _check_classes(loaded, num_classes, data_dir)
    if collection.val is None:
        train, val = split_images(loaded.images, train_images, split)
        if train_images is None:
            check_all_present(val.labels, loaded.class_names, "val", str(data_dir or name))
        return TrainingData(name, split_digest(loaded.digest, split), train, val, loaded.class_names)
    own_val = _load(name, "val", collection.source("val", image_size), store, image_size)
    digest = hashlib.sha256(f"{loaded.digest} {own_val.digest}".encode()).hexdigest()
    train = loaded.images if train_images is None else first_images(loaded.images, train_images, split)
    return TrainingData(name, digest, train, own_val.images, loaded.class_names)


class Loaded(NamedTuple):
    """One whole part of a data set, the hex SHA-256 of its source, and the names of its classes."""

    images: Images
    digest: str
    class_names: Sequence[str]


def load_images(
    name: DatasetName, part: Part, *, data_dir: Path | None, store: Path, image_size: int = IMAGE_SIZE
) -> Loaded:
    """One whole part, from the store's cache where it is there."""
    if _is_collection(name):
        source = find_collection(name, data_dir).source(part, image_size)
    else:
        source = find_source(name, part, data_dir, store)
    return _load(name, part, source, store, image_size)


def _is_collection(name: DatasetName) -> bool:
    """Whether the data set is neither a published nor a drawn one; an unknown name is none, and find_source says so."""
    return name in DATASETS and DATASETS[name].origin is None


def _load(name: DatasetName, part: OwnPart, source: Source, store: Path, image_size: int) -> Loaded:
    digest = _digest(name, part, source, image_size)
    path = store / "cache" / f"{name}-{part}-{digest[:16]}.npz"
    images = _cached(path, lambda: resized(source.decode(), image_size), image_size)
    return Loaded(images, digest, source.class_names)


def _check_classes(loaded: Loaded, num_classes: int | None, data_dir: Path | None) -> None:
    """Raise a UserError where a user's own files are not of as many classes as their recipe says."""
    found = len(loaded.class_names)
    if num_classes not in (None, found):
        listed = ", ".join(list(loaded.class_names[:5]) + ["..."] * (found > 5))
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
        return Source((), lambda: Images(*origin.draw(part)), CLASS_NAMES[name], origin.version)
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


# The cache


def _digest(name: str, part: str, source: Source, image_size: int) -> str:
    """Hex SHA-256 of the files' bytes and of what else decides the decoded images."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {name} {part} {source.content}".encode())
    if image_size != IMAGE_SIZE:
        digest.update(f" {image_size}".encode())
    for path in source.files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); correct its rights.") from None
    return digest.hexdigest()


def _cached(path: Path, decode: Callable[[], Images], image_size: int) -> Images:
    """The images of the cache file; where it cannot be read they are decoded, by one process at a time."""
    cached = _read_cache(path, image_size)
    if cached is not None:
        return cached
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        cached = _read_cache(path, image_size)
        if cached is None:
            cached = decode()
            _write_cache(path, cached)
    return cached


def _read_cache(path: Path, image_size: int = IMAGE_SIZE) -> Images | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
        is_whole = images.shape == (*labels.shape, 3, image_size, image_size)
        return Images(images, labels) if is_whole and (images.dtype, labels.dtype) == (np.uint8, np.int64) else None
    except Exception:  # a damaged file can raise anything in zipfile and numpy
        return None


def _write_cache(path: Path, images: Images) -> None:
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        np.savez(file, images=images.images, labels=images.labels)
    unfinished.replace(path)
