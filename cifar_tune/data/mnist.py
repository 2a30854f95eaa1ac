"""MNIST and its kin in torchvision's layout: a file of images and one of labels for each part, found or downloaded.

The files are in the format IDX: two zero bytes, the type, the number of dimensions, their sizes, and the values. They
may be packed by gzip, as they are published; only then is there a checksum to verify. Gray becomes three equal
channels.
"""

import gzip
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cifar_tune.data.download import PublishedFile, check_whole, described, fetched
from cifar_tune.data.images import (
    CLASS_NAMES,
    DATASETS,
    NUM_CLASSES,
    DatasetName,
    IdxFiles,
    Images,
    Part,
    Source,
    check_labels,
)
from cifar_tune.data.pixels import why_unreadable
from cifar_tune.errors import UserError

UINT8 = 8  # the type's number in the format
FOLDERS: dict[str, str] = {
    name: each.origin.torchvision_class for name, each in DATASETS.items() if isinstance(each.origin, IdxFiles)
}
PREFIXES: dict[Part, str] = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class IdxPart:
    """The two published files of a part."""

    images: PublishedFile
    labels: PublishedFile

    @property
    def dataset(self) -> str:
        """The data set that the files are of."""
        return self.images.dataset

    @property
    def layouts(self) -> str:
        """Half a sentence: what a data folder may hold."""
        return f"torchvision's layout ({FOLDERS[self.dataset]}/raw/{self.images.filename}, or these files themselves)"


def published_idx(name: DatasetName, part: Part) -> IdxPart:
    """The files of a part as torchvision describes them, at the first of their addresses."""
    published = described(name)
    files = [
        PublishedFile(name, f"{published.mirrors[0]}{filename}", filename, md5)
        for filename, md5 in published.resources
        if filename.startswith(PREFIXES[part])
    ]
    return IdxPart(*files)


def find_idx(part: IdxPart, data_dir: Path | None, store: Path) -> Source:
    """The part's files: in `data_dir`, or downloaded into the store without one."""
    if data_dir is None:
        folder = store / "downloads" / part.dataset
        images, labels = (fetched(file, folder, part.layouts) for file in (part.images, part.labels))
    else:
        folder = _folder(part, data_dir)
        images, labels = (_located(file, folder) for file in (part.images, part.labels))
    decode = partial(decode_idx, part, images, labels)
    return Source.whole((images, labels), decode, CLASS_NAMES[part.dataset])


def _folder(part: IdxPart, data_dir: Path) -> Path:
    """The first folder with a file of the images; none that is called after another data set with such files."""
    own = FOLDERS[part.dataset]
    others = {folder for folder in FOLDERS.values() if folder != own}
    is_anothers = not others.isdisjoint((data_dir.resolve().name, data_dir.resolve().parent.name))
    folders = [data_dir / own / "raw"] if is_anothers else [data_dir / own / "raw", data_dir / "raw", data_dir]
    for folder in folders:
        if any(_candidates(part.images, folder)):
            return folder
    raise UserError(f"No {part.dataset} in {data_dir}: looked for {part.layouts}.")


def _located(file: PublishedFile, folder: Path) -> Path:
    candidates = _candidates(file, folder)
    if not candidates:
        raise UserError(f"{file.dataset} is incomplete: {folder / file.filename} is missing; copy it there.")
    return candidates[0]


def _candidates(file: PublishedFile, folder: Path) -> list[Path]:
    """The file as it is published, which has a checksum, before an unpacked one."""
    return [path for path in (folder / file.filename, (folder / file.filename).with_suffix("")) if path.is_file()]


def decode_idx(part: IdxPart, images_path: Path, labels_path: Path) -> Images:
    """The images of two files of one length as uint8 (n, 3, H, W); a UserError where they are none."""
    pixels = _read(images_path, part.images, 3)
    labels = _read(labels_path, part.labels, 1)
    if len(pixels) != len(labels):
        raise UserError(
            f"{images_path} has {len(pixels)} images, and {labels_path.name} has {len(labels)} labels; "
            f"download both again."
        )
    images = Images(pixels[:, None].repeat(3, axis=1), labels.astype(np.int64))
    return check_labels(images, NUM_CLASSES[part.dataset], images_path.parent)


def _read(path: Path, file: PublishedFile, num_dimensions: int) -> npt.NDArray[np.uint8]:
    """The values of a file, in its shape."""
    is_packed = path.name == file.filename
    if is_packed:
        check_whole(path, file.md5)
    try:
        content = gzip.decompress(path.read_bytes()) if is_packed else path.read_bytes()
    except Exception as error:  # a damaged file can raise anything in gzip and zlib
        raise UserError(f"{path} cannot be read ({why_unreadable(error, path)}); download it again.") from None
    start = 4 + 4 * num_dimensions
    if content[:4] != bytes([0, 0, UINT8, num_dimensions]) or len(content) < start:
        raise UserError(f"{path} is no file of {num_dimensions} dimensions in MNIST's format; download it again.")
    shape = [int(size) for size in np.frombuffer(content, ">u4", num_dimensions, offset=4)]
    if 0 in shape or len(content) != start + math.prod(shape):
        raise UserError(f"{path} is damaged: it has {len(content) - start:,} values, not {shape}; download it again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
