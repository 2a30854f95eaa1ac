"""A user's own images in Parquet files with an image and a label column, as the Hugging Face hub exports data sets.

A file belongs to the part that is a word of its name, or the name of a folder: `train-00000-of-00001.parquet`,
`flowers-test-00000-of-00001.parquet`, `validation/0000.parquet`. Images are encoded bytes. The classes' names are those
of the schema's metadata, or the labels themselves.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cifar_tune.data.collection import LABEL_COLUMNS, Collection, Items, numbered
from cifar_tune.data.image_files import PARTS
from cifar_tune.data.images import Ints, OwnPart, Pixels
from cifar_tune.data.pixels import decode_image, why_unreadable
from cifar_tune.errors import UserError

MAX_DEPTH = 5  # folders below the data folder; a cache of `datasets` has its files four down
BATCH = 500  # rows that are read together
SHARD = re.compile(r"(.*?)-?(\d+)-of-(\d+).*")


@dataclass(frozen=True)
class Columns:
    """The columns of images and labels, and the classes' names where the schema has them."""

    image: str
    label: str
    class_names: Sequence[str] | None


def find_own_parquet(data_dir: Path) -> Collection:
    """The labelled images of the folder's Parquet files; a UserError where they are no such files."""
    files = _files(data_dir)
    columns = _columns(files["train"][0])
    for paths in files.values():
        names = _columns(paths[0]).class_names
        if names and columns.class_names and names != columns.class_names:
            raise UserError(f"{paths[0]} and the training files name their classes otherwise; export them together.")
    texts = {part: [label for path in paths for label in _labels(path, columns)] for part, paths in files.items()}
    every = [label for labels in texts.values() for label in labels]
    class_names, labels = _as_classes(every, columns, files["train"][0])
    ends = np.cumsum([len(each) for each in texts.values()])
    by_part = dict(zip(texts, np.split(labels, ends[:-1]), strict=True))
    items = {part: _items(paths, columns.image, by_part[part]) for part, paths in files.items()}
    return Collection(str(data_dir), class_names, items["train"], items.get("val"), items.get("test"))


def _files(data_dir: Path) -> dict[OwnPart, list[Path]]:
    """The files of each part in order; those without a part's name are for training."""
    patterns = ["*/" * depth + "*.parquet" for depth in range(MAX_DEPTH)]
    paths = sorted(path for pattern in patterns for path in data_dir.glob(pattern) if path.is_file())
    if not paths:
        raise UserError(f"{data_dir} holds no .parquet file; point --data-dir at the folder of an export.")
    parts = [_part_of(path, data_dir) for path in paths]
    if any(parts) and not all(parts):
        raise UserError(f"{paths[parts.index(None)]} is named after no part, and other files are; rename or remove it.")
    files: dict[OwnPart, list[Path]] = {}
    for path, part in zip(paths, parts, strict=True):
        files.setdefault(part or "train", []).append(path)
    if "train" not in files:
        raise UserError(f"{data_dir} holds Parquet files, but none for training; name them train-….parquet.")
    for part, members in files.items():
        _check_whole(part, members)
    return files


def _part_of(path: Path, data_dir: Path) -> OwnPart | None:
    """By the last word of its name that is a part's, or by its folder's name below the data folder."""
    words = re.split(r"[-_.]", path.stem.lower())
    folders = map(str.lower, path.relative_to(data_dir).parts[:-1])
    parts = [word for word in [*folders, *words] if word in PARTS]
    return PARTS[parts[-1]] if parts else None


def _check_whole(part: OwnPart, paths: Sequence[Path]) -> None:
    """Raise a UserError where a part is there twice, or lacks one of the shards that their names count."""
    folders = sorted({path.parent for path in paths})
    if len(folders) > 1:
        listed = ", ".join(map(str, folders))
        raise UserError(f"The {part} files lie in several folders ({listed}); point --data-dir at one data set.")
    shards = [match for path in paths if (match := SHARD.fullmatch(path.stem))]
    if len({(match[1], match[3]) for match in shards}) > 1 or len(shards) not in (0, len(paths)):
        raise UserError(f"{folders[0]} holds {part} files of several exports; leave those of one there.")
    missing = {int(match[3]) for match in shards} and set(range(int(shards[0][3]))) - {int(m[2]) for m in shards}
    if missing:
        raise UserError(f"{folders[0]} is incomplete: {part} shard {min(missing):05d} is missing; copy it there.")


def _columns(path: Path) -> Columns:
    with _reading(path):
        schema = pq.read_schema(path)
    features = column_features(schema.metadata)
    images = [field.name for field in schema if _holds_images(field.type)]
    named = [name for name, feature in features.items() if "names" in feature]
    labels = named or [field.name for field in schema if field.name not in images and _may_label(field.type)]
    image, label = _choose(images, ("image", "img"), path, "images"), _choose(labels, LABEL_COLUMNS, path, "labels")
    return Columns(image, label, features.get(label, {}).get("names"))


def column_features(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """The description of each column that `datasets` writes into a schema's metadata; empty without one."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _may_label(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):  # a category of pandas
        return _may_label(kind.value_type)
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _choose(names: Sequence[str], usual: Sequence[str], path: Path, what: str) -> str:
    """The only name, or the most usual one."""
    chosen = list(names) if len(names) == 1 else [name for name in usual if name in names][:1]
    if not chosen:
        there = f"several may hold them ({', '.join(names)})" if names else "there is none"
        raise UserError(f"{path}: one column has to hold the {what}, but {there}; call it {usual[0]}.")
    return chosen[0]


def _labels(path: Path, columns: Columns) -> list[Any]:
    with _reading(path):
        labels: list[Any] = pq.read_table(path, columns=[columns.label]).column(columns.label).to_pylist()
    if None in labels:
        raise UserError(f"{path}: a label is missing in the column {columns.label}; fill it in or drop the row.")
    names = columns.class_names
    for label in labels:
        if isinstance(label, int) and (label < 0 or (names is not None and label >= len(names))):
            raise UserError(
                f"{path}: the label {label} is no number of a class; drop images without labels, or remove the file if "
                f"none has one. Without a test part, one of five training images is taken for it."
            )
    return labels


def _as_classes(labels: Sequence[Any], columns: Columns, path: Path) -> tuple[list[str], Ints]:
    """The classes' names and the labels by number."""
    if not labels:
        raise UserError(f"{path.parent} holds no image; point --data-dir at the folder of an export.")
    if any(isinstance(label, str) for label in labels):
        return numbered([str(label) for label in labels])
    if columns.class_names is None:
        return numbered([str(label) for label in labels])
    return [str(name) for name in columns.class_names], np.array(labels, np.int64)


def _items(paths: Sequence[Path], column: str, labels: Ints) -> Items:
    def blocks(indices: Ints, size: int) -> Iterator[Pixels]:
        wanted = set(indices.tolist())
        rows = ((path, row, cell) for path in paths for row, cell in enumerate(_cells(path, column)))
        for index, (path, row, cell) in enumerate(rows):
            if index in wanted:
                yield _decode(cell, size, path, row)[None]

    return Items(labels, paths, blocks)


def _cells(path: Path, column: str) -> Iterator[Any]:
    """The column's cells, of which only a batch is in memory at a time."""
    with _reading(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH, columns=[column]):
            yield from batch.column(0).to_pylist()


def _decode(cell: Any, size: int, path: Path, row: int) -> Pixels:  # noqa: ANN401 - a struct or bytes
    encoded = cell.get("bytes") if isinstance(cell, dict) else cell
    try:
        if encoded is None:
            raise ValueError("its bytes are not in the file")
        return decode_image(encoded, size)
    except Exception as error:  # a damaged image can raise anything in Pillow
        reason = why_unreadable(error, path)
        raise UserError(f"{path}: the image of row {row} cannot be used ({reason}); replace or drop it.") from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise a UserError for what pyarrow raises in the block."""
    try:
        yield
    except Exception as error:  # a damaged file can raise anything in pyarrow
        reason = why_unreadable(error, path)
        raise UserError(f"{path} is damaged or no Parquet file ({reason}); export it again.") from None
