"""A user's own images as files that one CSV labels, as Kaggle gives them.

The CSV has the images' names in its first column, with or without folder and extension. The labels are in a column
`label`, `class` or the like, or in the second one where there are two. A CSV that is called after validation or test
and has the same column labels the images of that part.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_tune.data.collection import LABEL_COLUMNS, Collection, Items, numbered
from cifar_tune.data.image_files import EXTENSIONS, PARTS, images_in, items_of, part_named, visible
from cifar_tune.data.images import OwnPart
from cifar_tune.errors import UserError

INDEX_COLUMNS = ("", "unnamed: 0")  # of rows, as pandas writes it

Files = Mapping[str, Sequence[Path]]  # by their names without folder and extension


class Table(NamedTuple):
    """A CSV: the column of its labels, and the (name, label) of each row, in order."""

    path: Path
    column: str
    rows: Sequence[tuple[str, str]]


class Cells(NamedTuple):
    """A CSV as it stands, with the names of its columns in lower case."""

    path: Path
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def certain_table(data_dir: Path) -> Table | None:
    """The one CSV that is called after labels or training, if its first row names an image."""
    paths = [path for path in _csvs(data_dir, "train") if _says_so(path)]
    if len(paths) != 1:
        return None
    table = _table(_cells(paths[0]))
    return table if table.rows and _stem(table.rows[0][0]) in _images(data_dir, {"test"}) else None


def only_table(data_dir: Path) -> Table:
    """The CSV that has to label the images; a UserError where there are no images, or not one such CSV."""
    if not _images(data_dir, {"test"}):
        raise UserError(
            f"{data_dir} holds no images in class folders, and no images for a CSV of labels; "
            f"point --data-dir at the folder with a folder for each class, or with train/, val/ and test/."
        )
    paths = _csvs(data_dir, "train")
    chosen = [path for path in paths if _says_so(path)] or paths
    if len(chosen) == 1:
        return _table(_cells(chosen[0]))
    number = f"{len(chosen)} that may do so ({', '.join(path.name for path in chosen)})" if chosen else "no"
    raise UserError(
        f"{data_dir} holds images without class folders, so one CSV has to give their labels, but there is {number}; "
        f"name it labels.csv."
    )


def find_labelled(data_dir: Path, train: Table) -> Collection:
    """The images that the table labels, and those of other parts; a UserError where a table does not fit the images."""
    tables: dict[OwnPart, Table] = {"train": train, **_other_tables(data_dir, train.column)}
    labels = {part: _labels(table, _images(data_dir, {"test", *tables} - {part})) for part, table in tables.items()}
    class_names, _ = numbered(list(labels["train"].values()))
    items = {part: _items(labels[part], class_names, table.path) for part, table in tables.items()}
    return Collection(str(data_dir), class_names, items["train"], items.get("val"), items.get("test"))


def _other_tables(data_dir: Path, column: str) -> dict[OwnPart, Table]:
    """The tables of other parts. Competitions have some without labels, for which there is no use."""
    tables: dict[OwnPart, Table] = {}
    parts: tuple[OwnPart, ...] = ("val", "test")
    for part in parts:
        every = [_table(cells, column) for cells in map(_cells, _csvs(data_dir, part)) if column in cells.columns]
        labelled = [table for table in every if any(label for _, label in table.rows)]
        if len(labelled) > 1:
            names = " and ".join(table.path.name for table in labelled)
            raise UserError(f"{data_dir} has several CSVs of labels for the {part} part, {names}; leave one there.")
        if labelled:
            tables[part] = labelled[0]
    return tables


def _labels(table: Table, files: Files) -> dict[Path, str]:
    labels: dict[Path, str] = {}
    for name, label in table.rows:
        path = _find(name, files, table.path)
        if not label or labels.get(path, label) != label:
            reason = "two labels" if label else "no label"
            raise UserError(f"{table.path} has {reason} for {name}; correct it, or remove the row.")
        labels[path] = label
    return labels


def _items(labels: Mapping[Path, str], class_names: Sequence[str], table: Path) -> Items:
    unknown = sorted(set(labels.values()) - set(class_names))
    if unknown:
        raise UserError(f"{table}: {unknown[0]} is no class of the training images; correct or remove its rows.")
    numbers = {name: number for number, name in enumerate(class_names)}
    return items_of(list(labels), np.array([numbers[label] for label in labels.values()], np.int64))


def _images(data_dir: Path, others: set[OwnPart]) -> dict[str, list[Path]]:
    """The images that can have labels: none of those in folders of other parts."""
    closed = {folder for folder in visible(data_dir) if folder.is_dir() and part_named(folder.name) in others}
    files: dict[str, list[Path]] = {}
    for path in images_in(data_dir):
        if closed.isdisjoint(path.parents):
            files.setdefault(_stem(path.name), []).append(path)
    return files


def _find(name: str, files: Files, table: Path) -> Path:
    """The image that a row of the table names, in the folder that it names."""
    parts = (*Path(name).parts[:-1], _stem(name))
    candidates = [
        path for path in files.get(_stem(name), ()) if (*path.parts[:-1], _stem(path.name))[-len(parts) :] == parts
    ]
    if len(candidates) > 1 and Path(name).suffix:
        candidates = [path for path in candidates if path.name == Path(name).name] or candidates
    if len(candidates) != 1:
        reason = f"{len(candidates)} images are called so" if candidates else "there is no such image"
        raise UserError(f"{table} has a label for {name}, but {reason}; correct the row.")
    return candidates[0]


def _stem(name: str) -> str:
    """An image's name without folders, and without the extension of an image."""
    path = Path(name)
    return path.stem if path.suffix.lower() in EXTENSIONS else path.name


def _csvs(data_dir: Path, part: OwnPart) -> list[Path]:
    """The CSVs that may label the images of a part."""
    paths = [path for path in visible(data_dir) if path.suffix.lower() == ".csv" and path.is_file()]
    return [path for path in paths if _part_of(path.stem.lower()) == part]


def _part_of(stem: str) -> OwnPart | None:
    """The part that a CSV is for by its name; without the name of one it is for training."""
    if "submission" in stem:
        return None
    parts = {PARTS.get(word) for word in re.split(r"[-_. ]+", stem)}
    others: list[OwnPart] = [part for part in ("test", "val") if part in parts and "train" not in parts]
    return others[0] if others else "train"


def _says_so(path: Path) -> bool:
    return any(word in path.stem.lower() for word in ("train", "label"))


def _cells(path: Path) -> Cells:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); save it as a CSV in UTF-8.") from None
    return Cells(path, [column.strip().lower() for column in header], rows)


def _table(cells: Cells, column: str | None = None) -> Table:
    """The names and labels; a UserError where it is not clear which column has the labels, unless it is given."""
    path, columns, rows = cells
    first = int(len(columns) > 2 and columns[0] in INDEX_COLUMNS)
    if len(columns) < first + 2 or any(len(row) != len(columns) for row in rows):
        raise UserError(
            f"{path} needs commas, a header and two columns, the images' names and their labels; correct it."
        )
    if Path(columns[first]).suffix in EXTENSIONS:
        raise UserError(f"{path} has no header: its first line is about an image; add the line id,label.")
    named = [column] if column else [name for name in LABEL_COLUMNS if name in columns[first + 1 :]]
    if not named and len(columns) > first + 2:
        raise UserError(f"{path}: of its {len(columns)} columns none is called label; rename the one with the labels.")
    label = columns.index(named[0], first + 1) if named else first + 1
    # With backslashes as Windows writes paths.
    pairs = [(row[first].strip().replace("\\", "/"), row[label].strip()) for row in rows]
    return Table(path, columns[label], pairs)
