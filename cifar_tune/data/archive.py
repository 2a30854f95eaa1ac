"""CIFAR in torchvision's layout: pickled batches in a folder, or in an archive that is unpacked or downloaded."""

import io
import pickle
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from cifar_tune.data.download import PublishedFile, check_whole, described, download, is_whole
from cifar_tune.data.images import (
    BATCHES,
    CLASS_NAMES,
    IMAGE_SIZE,
    NUM_CLASSES,
    DatasetName,
    Images,
    Part,
    Source,
    check_labels,
)
from cifar_tune.errors import UserError

ARRAY_PARTS = {  # what an array is pickled as
    "numpy": ("ndarray", "dtype"),
    "numpy.core.multiarray": ("_reconstruct",),
    "numpy.core.numeric": ("_frombuffer",),
    "_codecs": ("encode",),
}
LAYOUTS = (
    "torchvision's layout ({folder}/ or {filename}) or the Hugging Face hub's parquet export "
    "(train-*.parquet and test-*.parquet)"
)


@dataclass(frozen=True)
class Archive(PublishedFile):
    """A published archive of pickled batches."""

    folder: str
    train: tuple[tuple[str, str], ...]  # (file, md5)
    test: tuple[tuple[str, str], ...]
    label_key: str

    def batches(self, part: Part) -> tuple[tuple[str, str], ...]:
        """The files of a part with their checksums."""
        return self.train if part == "train" else self.test

    @property
    def layouts(self) -> str:
        """Half a sentence: what a data folder may hold."""
        return LAYOUTS.format(folder=self.folder, filename=self.filename)


def published_archive(name: DatasetName) -> Archive:
    """The archive as torchvision describes it."""
    published = described(name)
    return Archive(
        dataset=name,
        url=published.url,
        filename=published.filename,
        md5=published.tgz_md5,
        folder=published.base_folder,
        train=tuple((file, md5) for file, md5 in published.train_list),
        test=tuple((file, md5) for file, md5 in published.test_list),
        label_key=BATCHES[name].batch_labels,
    )


def find_batches(archive: Archive, part: Part, data_dir: Path | None, store: Path) -> Source:
    """The part's batch files: in `data_dir`, in an archive there, or downloaded into the store without a `data_dir`."""
    folder = _batch_folder(archive, part, data_dir, store / "downloads")
    files = tuple(folder / file for file, _ in archive.batches(part))
    for path in files:
        if not path.is_file():
            raise UserError(f"{archive.dataset} is incomplete: {path} is missing; copy or unpack it again.")
    return Source.whole(files, partial(decode_batches, archive, part, folder), CLASS_NAMES[archive.dataset])


def _batch_folder(archive: Archive, part: Part, data_dir: Path | None, downloads: Path) -> Path:
    if data_dir is None:
        return unpacked(archive, part, downloads, None)
    if data_dir.name == archive.folder:
        return data_dir
    if (data_dir / archive.folder).is_dir():
        return data_dir / archive.folder
    if (data_dir / archive.filename).is_file():
        return unpacked(archive, part, downloads, data_dir / archive.filename)
    raise UserError(f"No {archive.dataset} in {data_dir}: looked for {archive.layouts}.")


def unpacked(archive: Archive, part: Part, downloads: Path, packed: Path | None) -> Path:
    """The batch folder under `downloads`; if it is not whole, unpacked from `packed` archive or a download."""
    folder = downloads / archive.folder
    downloads.mkdir(parents=True, exist_ok=True)
    with FileLock(downloads / f"{archive.filename}.lock"):
        if not all(is_whole(folder / file, md5) for file, md5 in archive.batches(part)):
            source = packed or download(archive, downloads, archive.layouts)
            check_whole(source, archive.md5)
            folder.mkdir(exist_ok=True)
            for file, content in _members(source, archive):
                (folder / file).write_bytes(content)
    return folder


def _members(packed: Path, archive: Archive) -> Iterator[tuple[str, bytes]]:
    """The batches of both parts by name, and nothing else that the archive holds."""
    try:
        with tarfile.open(packed) as tar:
            for file, _ in (*archive.train, *archive.test):
                member = tar.extractfile(f"{archive.folder}/{file}")
                yield file, member.read() if member else b""
    except Exception as error:  # a damaged archive can raise anything in tarfile and zlib
        raise UserError(f"{packed} cannot be unpacked ({_in_one_line(error)}); download it again.") from None


def decode_batches(archive: Archive, part: Part, folder: Path) -> Images:
    """The images of the part's batches in order; each file's checksum is verified before it is unpickled."""
    batches = [_read_batch(folder / file, md5, archive.label_key) for file, md5 in archive.batches(part)]
    images = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    return check_labels(Images(images, labels), NUM_CLASSES[archive.dataset], folder)


class _Unpickler(pickle.Unpickler):
    """Unpickles arrays and nothing else: a checksum proves what was published, not that it is harmless."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as pickle's own
        """A part of an array; an error for anything else."""
        if name in ARRAY_PARTS.get(module.replace("numpy._core", "numpy.core"), ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")


def _read_batch(path: Path, md5: str, label_key: str) -> Images:
    if not is_whole(path, md5):
        raise UserError(f"{path} is damaged: its MD5 is not the published one; copy or unpack it again.")
    try:
        batch = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        images = np.asarray(batch["data"], np.uint8).reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
        labels = np.asarray(batch[label_key], np.int64)
    except Exception as error:  # unpickling can raise anything
        raise UserError(f"{path} holds no batch of {label_key} ({_in_one_line(error)}); download it again.") from None
    if len(images) != len(labels):
        raise UserError(f"{path} is incomplete: {len(images)} images, {len(labels)} labels; download it again.")
    return Images(images, labels)


def _in_one_line(error: Exception) -> str:
    """The error's first line; tarfile goes on with what every compression says."""
    return str(error).strip().partition("\n")[0].rstrip(".:") or type(error).__name__
