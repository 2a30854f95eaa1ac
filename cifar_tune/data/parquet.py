"""CIFAR as the Hugging Face hub exports it: Parquet shards of encoded images, located in a folder and decoded.

Nothing is downloaded here.
"""

import contextlib
import io
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

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
from cifar_tune.data.own_parquet import column_features
from cifar_tune.data.pixels import why_unreadable
from cifar_tune.errors import UserError

MAX_ROWS = 1_000_000  # of a shard; the published sets have 50,000, and a small file can claim any number


def find_parquet(name: DatasetName, part: Part, data_dir: Path) -> Source | None:
    """The part's shards, at most three folders down; None where there are none of this data set."""
    depths = ("", "*/", "*/*/", "*/*/*/")
    exports = sorted(
        {path.parent for depth in depths for path in data_dir.glob(f"{depth}{part}-*.parquet") if path.is_file()}
    )
    datasets = {folder: _dataset_in(folder, part) for folder in exports}
    unreadable = [folder for folder in exports if datasets[folder] == "unreadable"]
    folders = [folder for folder in exports if datasets[folder] == name] or unreadable
    if not folders:
        return None
    if len(folders) > 1:
        listed = ", ".join(str(folder) for folder in folders)
        raise UserError(f"{data_dir} holds {name} more than once ({listed}); point --data-dir at one of them.")
    shards = _all_shards(folders[0], part)
    return Source.whole(shards, partial(decode_parquet, name, shards), CLASS_NAMES[name])


def _dataset_in(folder: Path, part: Part) -> str:
    """The data set by the label column of the folder's first readable shard, or `other`, or `unreadable`."""
    for shard in sorted(folder.glob(f"{part}-*.parquet")):
        with contextlib.suppress(Exception):  # a damaged file can raise anything in pyarrow
            columns = pq.read_schema(shard).names
            # The last first: an export of CIFAR-100 may have `label` beside `fine_label`.
            return next((name for name in reversed(BATCHES) if BATCHES[name].parquet_labels in columns), "other")
    return "unreadable"


def _all_shards(folder: Path, part: Part) -> tuple[Path, ...]:
    """The part's shards in order; a UserError where one is missing of the number that is in their names."""
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


def decode_parquet(name: DatasetName, shards: tuple[Path, ...]) -> Images:
    """The images of the shards' rows in order, whichever of PNG, WebP and JPEG each one is."""
    parts = [_read_shard(shard, name) for shard in shards]
    images = np.concatenate([part.images for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    return check_labels(Images(images, labels), NUM_CLASSES[name], shards[0].parent)


def _read_shard(path: Path, name: DatasetName) -> Images:
    encoded, labels = _read_columns(path, name)
    try:
        decoded = [_decode_image(cell) for cell in encoded]  # threads only take turns: most of it holds the GIL
    except Exception as error:  # a damaged image can raise anything in Pillow
        raise UserError(f"{path} is damaged: {why_unreadable(error, path)}; download it again.") from None
    return Images(np.array(decoded, np.uint8).reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE), labels)


def _read_columns(path: Path, name: DatasetName) -> tuple[list[bytes | None], npt.NDArray[np.int64]]:
    """The encoded images and their labels; older exports call the images' column `image`."""
    label = BATCHES[name].parquet_labels
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            image = "img" if "img" in names else "image"
            num_rows = file.metadata.num_rows
            if num_rows > MAX_ROWS:
                raise ValueError(f"it has {num_rows:,} rows")
            table = file.read(columns=[image, label])
        if table.column(label).null_count:
            raise ValueError("a label is missing")
        if not pa.types.is_integer(table.schema.field(label).type):
            raise ValueError("its labels are no whole numbers")
        encoded = table.column(image).combine_chunks().field("bytes").to_pylist()
        labels = _renumbered(table.column(label).to_numpy().astype(np.int64), table.schema.metadata, name)
    except Exception as error:  # a damaged file can raise anything in pyarrow
        reason = why_unreadable(error, path)
        raise UserError(f"{path} is damaged or no export of CIFAR ({reason}); download it again.") from None
    if len(labels) < num_rows:
        raise UserError(f"{path} is incomplete: {len(labels)} of its {num_rows} rows are there; download it again.")
    return encoded, labels


def _renumbered(
    labels: npt.NDArray[np.int64], metadata: Mapping[bytes, bytes] | None, name: DatasetName
) -> npt.NDArray[np.int64]:
    """The labels by the usual numbers of the classes, where the file's own list of names has another order.

    `datasets` makes such a list when it encodes labels anew: of the numbers 0 to 99, sorted as text.
    """
    with contextlib.suppress(KeyError, TypeError, ValueError):  # no list of names
        names = column_features(metadata)[BATCHES[name].parquet_labels]["names"]
        for usual in (CLASS_NAMES[name], [str(number) for number in range(NUM_CLASSES[name])]):
            if sorted(names) == sorted(usual) and set(labels.tolist()) <= set(range(len(usual))):
                return np.array([usual.index(each) for each in names], np.int64)[labels]
    return labels


def _decode_image(encoded: bytes | None) -> npt.NDArray[np.uint8]:
    if encoded is None:
        raise ValueError("an image has no bytes")
    with Image.open(io.BytesIO(encoded), formats=("PNG", "WEBP", "JPEG")) as image:
        if image.size != (IMAGE_SIZE, IMAGE_SIZE) or image.mode != "RGB":
            raise ValueError(f"an image is {image.mode} of {image.size}, not RGB of (32, 32)")
        return np.asarray(image).transpose(2, 0, 1)
