"""A data set's images by its name: located, decoded once into the store's cache, and split by split.py.

Published data sets are read by archive.py and parquet.py. Augmentation and scaling are no part of the data.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from filelock import FileLock

from cifar_tune.data.archive import find_batches, published_archive
from cifar_tune.data.images import DATASETS, IMAGE_SIZE, DatasetName, Drawn, Images, Part, Source, TrainingData
from cifar_tune.data.parquet import find_parquet
from cifar_tune.data.split import split_digest, split_images
from cifar_tune.errors import UserError

CACHE_VERSION = "1"  # part of every digest: raise it when decoding changes


def load_training_data(
    name: DatasetName, *, train_images: int | None, data_dir: Path | None, store: Path
) -> TrainingData:
    """The training part, split: `train_images` of it, or all for None. The test files are not opened.

    `data_dir` holds the files of a published data set; without one they are downloaded into the store.
    """
    images, digest = load_images(name, "train", data_dir=data_dir, store=store)
    train, val = split_images(images, train_images)
    return TrainingData(name, split_digest(digest), train, val)


def load_images(name: DatasetName, part: Part, *, data_dir: Path | None, store: Path) -> tuple[Images, str]:
    """One whole part, from the store's cache where it is there, and the hex SHA-256 of its source."""
    source = find_source(name, part, data_dir, store)
    digest = _digest(name, part, source.files)
    return _cached(store / "cache" / f"{name}-{part}-{digest[:16]}.npz", source.decode), digest


def find_source(name: DatasetName, part: Part, data_dir: Path | None, store: Path) -> Source:
    """The files of a part and how to decode them; a UserError where there are none.

    A Parquet export comes before torchvision's layout, because looking for it needs no import of torch.
    """
    if name not in DATASETS:
        raise UserError(f"There is no dataset {name!r}; choose one of {', '.join(DATASETS)}.")
    origin = DATASETS[name].origin
    if isinstance(origin, Drawn):
        return Source((), lambda: Images(*origin.draw(part)))
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"The data folder {data_dir} does not exist; correct --data-dir or CIFAR_TUNE_DATA_DIR.")
    exported = find_parquet(name, part, data_dir) if data_dir is not None else None
    return exported or find_batches(published_archive(name), part, data_dir, store)


# The cache


def _digest(name: str, part: str, files: Iterable[Path]) -> str:
    """Hex SHA-256 of the files' bytes and of what else decides the decoded images."""
    origin = DATASETS[name].origin
    version = origin.version if isinstance(origin, Drawn) else ""
    digest = hashlib.sha256(f"{CACHE_VERSION} {name} {part} {version}".encode())
    for path in files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); correct its rights.") from None
    return digest.hexdigest()


def _cached(path: Path, decode: Callable[[], Images]) -> Images:
    """The images of the cache file; where it cannot be read they are decoded, by one process at a time."""
    cached = _read_cache(path)
    if cached is not None:
        return cached
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        cached = _read_cache(path)
        if cached is None:
            cached = decode()
            _write_cache(path, cached)
    return cached


def _read_cache(path: Path) -> Images | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
        is_whole = images.shape == (*labels.shape, 3, IMAGE_SIZE, IMAGE_SIZE)
        return Images(images, labels) if is_whole and (images.dtype, labels.dtype) == (np.uint8, np.int64) else None
    except Exception:  # a damaged file can raise anything in zipfile and numpy
        return None


def _write_cache(path: Path, images: Images) -> None:
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        np.savez(file, images=images.images, labels=images.labels)
    unfinished.replace(path)
