"""The store's cache of decoded images: one file of pixels for the images of a search, and one for test images.

A file is read into memory, or mapped where it is large. Then each process reads the images of a batch from the disk or
from what the system keeps of it, and the file's path is sent to workers instead of the images.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from cifar_tune.data.images import Images, Ints, Labelled, from_rows
from cifar_tune.data.pixels import resize

MAX_IN_MEMORY = 512 * 2**20  # bytes of pixels; all of CIFAR at 32 px takes 150 MB


@dataclass(frozen=True, eq=False)
class MappedImages(Images):
    """Images of a file that is mapped into memory, from number `first` on. Pickled, they are the file's path."""

    path: Path
    first: int

    def part(self, start: int, stop: int) -> "MappedImages":
        """Those with the numbers from `start` up to `stop`."""
        return MappedImages(self.images[start:stop], self.labels[start:stop], self.path, self.first + start)

    def followed_by(self, others: Images) -> Images:
        """These and the others; still a part of the file where they follow in it."""
        end = self.first + len(self)
        if isinstance(others, MappedImages) and (others.path, others.first) == (self.path, end):
            return map_images(self.path, self.first, np.concatenate([self.labels, others.labels]))
        return super().followed_by(others)

    def __reduce__(self) -> tuple[Any, ...]:
        return map_images, (self.path, self.first, self.labels)


def map_images(path: Path, first: int, labels: Ints) -> MappedImages:
    """As many images of the file as there are labels."""
    rows = np.load(path, mmap_mode="c", allow_pickle=False)[first : first + len(labels)]
    return MappedImages(rows.transpose(0, 3, 1, 2), labels, path, first)


def cached(path: Path, decode: Callable[[], Labelled], order: Callable[[Ints], Ints], image_size: int) -> Images:
    """The images of a cache file; where it cannot be read they are decoded and written by one process at a time.

    `order` gives the places of all images in the order of the file, from their labels.
    """
    images = read_cache(path, image_size)
    if images is not None:
        return images
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        images = read_cache(path, image_size)
        if images is None:
            write_cache(path, decode(), order, image_size)
            images = read_cache(path, image_size)
    assert images is not None, "what was written can be read"
    return images


def read_cache(path: Path, image_size: int) -> Images | None:
    """The images of a cache file; None where it or the file of its labels is missing or damaged."""
    try:
        with np.load(_labels(path), allow_pickle=False) as arrays:
            labels, checksum = arrays["labels"], int(arrays["checksum"])
        rows = np.load(path, mmap_mode="c", allow_pickle=False)
        is_whole = rows.shape == (*labels.shape, image_size, image_size, 3) and _checksum(path) == checksum
        if not is_whole or (rows.dtype, labels.dtype) != (np.uint8, np.int64):
            return None
        return map_images(path, 0, labels) if rows.nbytes > MAX_IN_MEMORY else from_rows(np.array(rows), labels)
    except Exception:  # a damaged file can raise anything in numpy
        return None


def write_cache(path: Path, labelled: Labelled, order: Callable[[Ints], Ints], image_size: int) -> None:
    """Decode and write the images, a block at a time; not through a mapping, which dies where the disk is full."""
    order_of_file = order(labelled.labels)
    places = np.argsort(order_of_file)
    shape = (len(places), image_size, image_size, 3)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        start, size = file.tell(), int(np.prod(shape[1:]))
        for place, row in zip(places, _rows(labelled, image_size), strict=True):
            file.seek(start + int(place) * size)
            file.write(row)
    np.savez(_labels(path), labels=labelled.labels[order_of_file], checksum=_checksum(unfinished))
    unfinished.replace(path)


def _checksum(path: Path) -> int:
    """The CRC-32 of a file, which is read in pieces."""
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(2**22):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _rows(labelled: Labelled, image_size: int) -> Iterator[bytes]:
    for block in labelled.blocks:
        for image in resize(block, image_size):
            yield image.transpose(1, 2, 0).tobytes()


def _labels(path: Path) -> Path:
    return path.with_suffix(".labels.npz")
