"""Random images, and files of them for the tests of data sets, archives and Parquet exports."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cifar_tune.data.images import Images, Part


def random_images(num_images: int, num_classes: int = 10, seed: int = 0) -> Images:
    random = np.random.RandomState(seed)
    pixels = random.randint(0, 256, (num_images, 3, 32, 32), dtype=np.uint8)
    return Images(pixels, random.permutation(num_images) % num_classes)


def assert_same(loaded: Images, written: Images) -> None:
    np.testing.assert_array_equal(loaded.images, written.images)
    np.testing.assert_array_equal(loaded.labels, written.labels)
    assert loaded.images.dtype == np.uint8
    assert loaded.labels.dtype == np.int64


def encoded(pixels: npt.NDArray[np.uint8], image_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, image_format, lossless=True)
    return file.getvalue()


def cells(images: Images, image_format: str = "PNG") -> list[dict[str, Any]]:
    return [{"bytes": encoded(pixels, image_format), "path": None} for pixels in images.images]


def write_shard(path: Path, images: Images, image: str = "img", label: str = "label") -> Path:
    return write_columns(path, {image: cells(images), label: images.labels.tolist()})


def write_columns(path: Path, columns: dict[str, list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def one_shard(folder: Path, part: Part = "train") -> Path:
    return folder / f"{part}-00000-of-00001.parquet"


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Tripwire:
    """An object that leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)
