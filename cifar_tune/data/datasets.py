"""A dataset by name: its source is found, decoded once into the store's cache, and split (split.py).

The sources are archive.py, parquet.py and shapes.py. Nothing here augments, scales or knows a device (augment.py,
training.py).
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from filelock import FileLock

from cifar_tune.data import shapes
from cifar_tune.data.archive import find_batches, published_archive
from cifar_tune.data.images import NUM_CLASSES, DatasetName, Images, Part, Source, TrainingData
from cifar_tune.data.parquet import find_parquet
from cifar_tune.data.split import split_digest, split_images
from cifar_tune.errors import UserError

CACHE_VERSION = "1"  # part of every digest: raise it when decoding changes

CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CLASS_NAMES: dict[str, list[str]] = {  # by label
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": CIFAR100_CLASSES.split(),
    "shapes": list(shapes.CLASSES),
}


def load_training_data(
    name: DatasetName, *, train_images: int | None, data_dir: Path | None, store: Path
) -> TrainingData:
    """The training part, split; the test files are not opened."""
    images, digest = load_images(name, "train", data_dir=data_dir, store=store)
    train, val = split_images(images, train_images)
    return TrainingData(name, split_digest(digest), train, val)


def load_images(name: DatasetName, part: Part, *, data_dir: Path | None, store: Path) -> tuple[Images, str]:
    """One whole part and the digest of its source, from the store's cache where it is there."""
    source = find_source(name, part, data_dir, store)
    digest = _digest(name, part, source.files)
    return _cached(store / "cache" / f"{name}-{part}-{digest[:16]}.npz", source.decode), digest


def find_source(name: DatasetName, part: Part, data_dir: Path | None, store: Path) -> Source:
    """The parquet export before torchvision's layout, because finding it costs no import of torch."""
    if name not in NUM_CLASSES:
        raise UserError(f"There is no dataset {name!r}; choose one of {', '.join(NUM_CLASSES)}.")
    if name == "shapes":
        return Source((), lambda: Images(*shapes.generate(part)))
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"The data folder {data_dir} does not exist; correct --data-dir or CIFAR_TUNE_DATA_DIR.")
    exported = find_parquet(name, part, data_dir) if data_dir is not None else None
    return exported or find_batches(published_archive(name), part, data_dir, store)


# The cache


def _digest(name: str, part: str, files: Iterable[Path]) -> str:
    """SHA-256 over the files' bytes and over what else decides the decoded images."""
    drawn = shapes.VERSION if name == "shapes" else ""
    digest = hashlib.sha256(f"{CACHE_VERSION} {name} {part} {drawn}".encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _cached(path: Path, decode: Callable[[], Images]) -> Images:
    """What the cache file holds; without a readable one the images are decoded, by one process at a time."""
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
            return Images(arrays["images"], arrays["labels"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write_cache(path: Path, images: Images) -> None:
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        np.savez(file, images=images.images, labels=images.labels)
    unfinished.replace(path)
