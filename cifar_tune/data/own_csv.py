"""A user's own images as files that one CSV labels, as Kaggle gives them.

The CSV has the images' names in its first column, with or without folder and extension. The labels are in a column
`label`, `class` or the like, or in the second one where there are two.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from cifar_tune.data.collection import Collection, numbered
from cifar_tune.data.image_files import EXTENSIONS, images_in, items_of, part_named, visible
from cifar_tune.errors import UserError

LABEL_COLUMNS = ("label", "labels", "class", "category", "target")
INDEX_COLUMNS = ("", "unnamed: 0")  # of rows, as pandas writes it

Files = Mapping[str, Sequence[Path]]  # by their names without folder and extension


def is_labelled(data_dir: Path) -> bool:
    """Whether one CSV is called after labels or training, and its first row names an image."""
    tables = [path for path in _tables(data_dir) if _says_so(path)]
    if len(tables) != 1:
        return False
    rows = _read(tables[0])
    return bool(rows) and _stem(rows[0][0]) in _images(data_dir)


def find_labelled(data_dir: Path) -> Collection:
    """The labelled images; a UserError where no CSV labels them, or where it does not fit the images."""
    files = _images(data_dir)
    if not files:
        raise UserError(
            f"{data_dir} holds no images in class folders, and no images for a CSV of labels; "
            f"point --data-dir at the folder with a folder for each class, or with train/, val/ and test/."
        )
    table = _choose(data_dir)
    labels: dict[Path, str] = {}
    for name, label in _read(table):
        path = _find(name, files, table)
        if not label or labels.get(path, label) != label:
            reason = "two labels" if label else "no label"
            raise UserError(f"{table} has {reason} for {name}; correct it, or remove the row.")
        labels[path] = label
    class_names, numbers = numbered(list(labels.values()))
    return Collection(str(data_dir), class_names, items_of(list(labels), numbers))


def _images(data_dir: Path) -> dict[str, list[Path]]:
    """The images that can have labels: those of a test folder have none in competitions."""
    tests = {folder for folder in visible(data_dir) if folder.is_dir() and part_named(folder.name) == "test"}
    files: dict[str, list[Path]] = {}
    for path in images_in(data_dir):
        if tests.isdisjoint(path.parents):
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


def _tables(data_dir: Path) -> list[Path]:
    """The CSVs that may label images for training."""
    tables = [path for path in visible(data_dir) if path.suffix.lower() == ".csv"]
    return [path for path in tables if not any(word in path.stem.lower() for word in ("test", "submission"))]


def _says_so(table: Path) -> bool:
    return any(word in table.stem.lower() for word in ("train", "label"))


def _choose(data_dir: Path) -> Path:
    tables = _tables(data_dir)
    chosen = [path for path in tables if _says_so(path)] or tables
    if len(chosen) == 1:
        return chosen[0]
    number = f"{len(chosen)} that may do so ({', '.join(path.name for path in chosen)})" if chosen else "no"
    raise UserError(
        f"{data_dir} holds images without class folders, so one CSV has to give their labels, but there is {number}; "
        f"name it labels.csv."
    )


def _read(path: Path) -> list[tuple[str, str]]:
    """The (name, label) of each row, in order; a UserError where it is not clear which column has the labels."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); save it as a CSV in UTF-8.") from None
    columns = [column.strip().lower() for column in header]
    first = int(len(columns) > 2 and columns[0] in INDEX_COLUMNS)
    if len(columns) < first + 2 or any(len(row) != len(columns) for row in rows):
        raise UserError(
            f"{path} needs commas, a header and two columns, the images' names and their labels; correct it."
        )
    if Path(columns[first]).suffix in EXTENSIONS:
        raise UserError(f"{path} has no header: its first line is about an image; add the line id,label.")
    named = [columns.index(column) for column in LABEL_COLUMNS if column in columns[first + 1 :]]
    if not named and len(columns) > first + 2:
        raise UserError(f"{path}: of its {len(columns)} columns none is called label; rename the one with the labels.")
    label = named[0] if named else first + 1
    return [(row[first].strip().replace("\\", "/"), row[label].strip()) for row in rows]  # as Windows writes paths
