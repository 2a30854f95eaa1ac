"""Where images come from: files, a download or shapes.py; decoded once into the store's cache, and split.

Nothing here augments, scales or knows a device (augment.py, training.py). torchvision lends the published
archives' addresses, checksums and its download helpers; only the functions that need it import it.
"""

import contextlib
import hashlib
import http.client
import io
import pickle
import re
import socket
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from filelock import FileLock
from PIL import Image

from cifar_tune import shapes
from cifar_tune.errors import UserError

DatasetName = Literal["cifar10", "cifar100", "shapes"]
Part = Literal["train", "test"]

NUM_CLASSES: dict[str, int] = {"cifar10": 10, "cifar100": 100, "shapes": 10}
NUM_TRAINING_IMAGES: dict[str, int] = {"cifar10": 45_000, "cifar100": 45_000, "shapes": 9_000}  # validation held out

SPLIT_SEED = 5_000  # one fixed order of the training images decides every split
CACHE_VERSION = "1"  # part of every digest: raise it when decoding changes
DOWNLOAD_TIMEOUT_SECONDS = 60.0  # of silence, not of the whole download
LAYOUTS = (
    "torchvision's layout ({folder}/ or {filename}) or the Hugging Face hub's parquet export "
    "(train-*.parquet and test-*.parquet)"
)


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
    digest: str  # hex SHA-256 of the source's content
    train: Images
    val: Images

    @property
    def num_classes(self) -> int:
        return NUM_CLASSES[self.dataset]


@dataclass(frozen=True)
class Archive:
    """A published archive of pickled batches; the checksums are MD5, as published."""

    dataset: str
    url: str
    filename: str
    md5: str
    folder: str
    train: tuple[tuple[str, str], ...]  # (file, md5)
    test: tuple[tuple[str, str], ...]
    label_key: str

    def batches(self, part: Part) -> tuple[tuple[str, str], ...]:
        return self.train if part == "train" else self.test

    @property
    def layouts(self) -> str:
        return LAYOUTS.format(folder=self.folder, filename=self.filename)


@dataclass(frozen=True)
class Source:
    """The files that one part of a dataset is made from (none if it is drawn), and how they become images."""

    files: tuple[Path, ...]
    decode: Callable[[], Images]


def load_training_data(
    name: DatasetName, *, train_images: int | None, data_dir: Path | None, store: Path
) -> TrainingData:
    """The training part, split; the test files are not opened."""
    images, digest = load_images(name, "train", data_dir=data_dir, store=store)
    train, val = split(images, train_images)
    return TrainingData(name, digest, train, val)


def load_images(name: DatasetName, part: Part, *, data_dir: Path | None, store: Path) -> tuple[Images, str]:
    """One whole part and the digest of its source, from the store's cache where it is there."""
    source = find_source(name, part, data_dir, store)
    digest = _digest(name, part, source.files)
    return _cached(store / "cache" / f"{name}-{part}-{digest[:16]}.npz", source.decode), digest


def find_source(name: DatasetName, part: Part, data_dir: Path | None, store: Path) -> Source:
    """The parquet export before torchvision's layout, because finding it costs no import of torch."""
    if name not in NUM_CLASSES:
        raise UserError(f"there is no dataset {name!r}; choose one of {', '.join(NUM_CLASSES)}.")
    if name == "shapes":
        return Source((), lambda: Images(*shapes.generate(part)))
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"the data folder {data_dir} does not exist; correct --data-dir or CIFAR_TUNE_DATA_DIR.")
    exported = find_parquet(name, part, data_dir) if data_dir is not None else None
    return exported or find_batches(published_archive(name), part, data_dir, store)


# The split


def split(images: Images, train_images: int | None) -> tuple[Images, Images]:
    """(train, validation): stratified, always the same, and smaller choices lie inside larger ones.

    Validation is a tenth of the images; `train_images=n` takes n of the rest, and max(500, n // 9) of that
    tenth or all of it.
    """
    order = _stratified_order(images.labels)
    val, train = np.split(order, [len(order) // 10])
    if train_images is not None:
        if not 1 <= train_images <= len(train):
            raise UserError(
                f"train_images={train_images} is not possible: choose 1 to {len(train)}, "
                "which is what validation leaves of the training images."
            )
        train, val = train[:train_images], val[: max(500, train_images // 9)]
    return _take(images, train), _take(images, val)


def _stratified_order(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """All indices, shuffled, then dealt out so that every stretch holds the classes in their proportions."""
    shuffled = np.random.RandomState(SPLIT_SEED).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((labels, place)).astype(np.int64)


def _take(images: Images, indices: npt.NDArray[np.int64]) -> Images:
    return Images(images.images[indices], images.labels[indices])


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


# torchvision's layout: pickled batches


def published_archive(name: DatasetName) -> Archive:
    """The archive as torchvision describes it."""
    from torchvision.datasets import CIFAR10, CIFAR100

    published = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    return Archive(
        dataset=name,
        url=published.url,
        filename=published.filename,
        md5=published.tgz_md5,
        folder=published.base_folder,
        train=tuple((file, md5) for file, md5 in published.train_list),
        test=tuple((file, md5) for file, md5 in published.test_list),
        label_key={"cifar10": "labels", "cifar100": "fine_labels"}[name],
    )


def find_batches(archive: Archive, part: Part, data_dir: Path | None, store: Path) -> Source:
    """The part's batch files: in `data_dir`, unpacked or packed, or downloaded if there is no `data_dir`."""
    folder = _batch_folder(archive, part, data_dir, store / "downloads")
    files = tuple(folder / file for file, _ in archive.batches(part))
    for path in files:
        if not path.is_file():
            raise UserError(f"{archive.dataset} is incomplete: {path} is missing; copy or unpack it again.")
    return Source(files, partial(decode_batches, archive, part, folder))


def _batch_folder(archive: Archive, part: Part, data_dir: Path | None, downloads: Path) -> Path:
    if data_dir is None:
        return unpacked(archive, part, downloads, None)
    if data_dir.name == archive.folder:
        return data_dir
    if (data_dir / archive.folder).is_dir():
        return data_dir / archive.folder
    if (data_dir / archive.filename).is_file():
        return unpacked(archive, part, downloads, data_dir / archive.filename)
    raise UserError(f"no {archive.dataset} in {data_dir}: looked for {archive.layouts}.")


def unpacked(archive: Archive, part: Part, downloads: Path, packed: Path | None) -> Path:
    """The batch folder under `downloads`; if not whole, from the user's `packed` archive or a download."""
    from torchvision.datasets.utils import check_integrity, extract_archive

    folder = downloads / archive.folder
    downloads.mkdir(parents=True, exist_ok=True)
    with FileLock(downloads / f"{archive.filename}.lock"):
        if not all(check_integrity(folder / file, md5) for file, md5 in archive.batches(part)):
            source = packed or download(archive, downloads)
            if not check_integrity(source, archive.md5):
                raise UserError(f"{source} is damaged: its MD5 is not the published one; download it again.")
            extract_archive(source, downloads)
    return folder


def download(archive: Archive, downloads: Path) -> Path:
    """The archive under `downloads`, fetched unless a whole one is there, its checksum verified."""
    from torchvision.datasets.utils import download_url

    instead = (
        "get it on a machine that can and point --data-dir or CIFAR_TUNE_DATA_DIR at a folder that holds "
        f"{archive.layouts}."
    )
    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT_SECONDS):
            download_url(archive.url, downloads, archive.filename, archive.md5)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{archive.dataset} could not be downloaded from {archive.url} ({error}); {instead}") from None
    except RuntimeError:
        raise UserError(
            f"what {archive.url} sent is not the published {archive.filename} (its MD5 differs); "
            f"try again, or {instead}"
        ) from None
    return downloads / archive.filename


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision's helper waits for ever on a network that swallows packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def decode_batches(archive: Archive, part: Part, folder: Path) -> Images:
    """The part's batches in order; each file's checksum is verified before it is unpickled."""
    batches = [_read_batch(folder / file, md5, archive.label_key) for file, md5 in archive.batches(part)]
    images = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    return _checked(Images(images, labels), NUM_CLASSES[archive.dataset], folder)


def _read_batch(path: Path, md5: str, label_key: str) -> Images:
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise UserError(f"{path} is damaged: its MD5 is not the published one; copy or unpack it again.")
    batch: dict[str, Any] = pickle.loads(content, encoding="latin1")
    images = np.asarray(batch["data"], np.uint8).reshape(-1, 3, shapes.SIZE, shapes.SIZE)
    labels = np.asarray(batch[label_key], np.int64)
    if len(images) != len(labels):
        raise UserError(f"{path} is incomplete: {len(images)} images, {len(labels)} labels; download it again.")
    return Images(images, labels)


# The hub's parquet export


def find_parquet(name: DatasetName, part: Part, data_dir: Path) -> Source | None:
    """The part's shards, at most three folders down; None where there are none of this dataset."""
    depths = ("", "*/", "*/*/", "*/*/*/")
    found = sorted({path.parent for depth in depths for path in data_dir.glob(f"{depth}{part}-*.parquet")})
    datasets = {folder: _dataset_in(folder, part) for folder in found}
    unreadable = [folder for folder in found if datasets[folder] == "unreadable"]
    folders = [folder for folder in found if datasets[folder] == name] or unreadable
    if not folders:
        return None
    if len(folders) > 1:
        listed = ", ".join(str(folder) for folder in folders)
        raise UserError(f"{data_dir} holds {name} more than once ({listed}); point --data-dir at one of them.")
    shards = _all_shards(folders[0], part)
    return Source(shards, partial(decode_parquet, shards, NUM_CLASSES[name]))


def _dataset_in(folder: Path, part: Part) -> DatasetName | Literal["other", "unreadable"]:
    """Which dataset the columns of the folder's first readable shard tell."""
    for shard in sorted(folder.glob(f"{part}-*.parquet")):
        with contextlib.suppress(OSError, ValueError):
            columns = pq.read_schema(shard).names
            return "cifar100" if "fine_label" in columns else "cifar10" if "label" in columns else "other"
    return "unreadable"


def _all_shards(folder: Path, part: Part) -> tuple[Path, ...]:
    """The part's shards in order; their names say how many there must be."""
    pattern = re.compile(rf"{part}-(\d+)-of-(\d+).*\.parquet")
    shards = {path: match for path in sorted(folder.iterdir()) if (match := pattern.fullmatch(path.name))}
    totals = {int(match[2]) for match in shards.values()}
    if len(totals) != 1:
        raise UserError(
            f"{folder} holds no single export: its {part} files must be named like "
            f"{part}-00000-of-00001.parquet, all with the same total; leave the files of one export there."
        )
    there = [int(match[1]) for match in shards.values()]
    missing = sorted(set(range(totals.pop())) - set(there))
    if missing:
        raise UserError(f"{folder} is incomplete: {part} shard {missing[0]:05d} is missing; copy it there.")
    return tuple(shards)


def decode_parquet(shards: tuple[Path, ...], num_classes: int) -> Images:
    """The shards' rows in order; PNG, WebP and JPEG are told by content."""
    parts = [_read_shard(shard) for shard in shards]
    images = np.concatenate([part.images for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    return _checked(Images(images, labels), num_classes, shards[0].parent)


def _read_shard(path: Path) -> Images:
    encoded, labels = _read_columns(path)
    try:
        decoded = [_decode_image(cell) for cell in encoded]  # threads only take turns: most of it holds the GIL
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is damaged: {error}; download it again.") from None
    return Images(np.stack(decoded), labels)


def _read_columns(path: Path) -> tuple[list[bytes | None], npt.NDArray[np.int64]]:
    """The encoded images and the labels; older exports call the image column `image`."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            image = "img" if "img" in names else "image"
            label = "fine_label" if "fine_label" in names else "label"
            table = file.read(columns=[image, label])
            promised = file.metadata.num_rows
        if table.column(label).null_count:
            raise ValueError("a label is missing")
        encoded = table.column(image).combine_chunks().field("bytes").to_pylist()
        labels = table.column(label).to_numpy().astype(np.int64)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged or no export of CIFAR ({error}); download it again.") from None
    if len(labels) < promised:
        raise UserError(f"{path} is incomplete: {len(labels)} of its {promised} rows are there; download it again.")
    return encoded, labels


def _decode_image(encoded: bytes | None) -> npt.NDArray[np.uint8]:
    if encoded is None:
        raise ValueError("an image has no bytes")
    with Image.open(io.BytesIO(encoded), formats=("PNG", "WEBP", "JPEG")) as image:
        if image.size != (shapes.SIZE, shapes.SIZE) or image.mode != "RGB":
            raise ValueError(f"an image is {image.mode} of {image.size}, not RGB of (32, 32)")
        return np.asarray(image).transpose(2, 0, 1)


def _checked(images: Images, num_classes: int, folder: Path) -> Images:
    """Every label is a class, and every class is there."""
    present = set(np.unique(images.labels).tolist())
    if present - set(range(num_classes)):
        raise UserError(f"{folder} is damaged: a label is outside 0 to {num_classes - 1}; download it again.")
    absent = sorted(set(range(num_classes)) - present)
    if absent:
        raise UserError(f"{folder} is incomplete: it has no image of class {absent[0]}; download it again.")
    return images
