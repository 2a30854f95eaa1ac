"""A user's own images as files: a folder for each class, as torchvision's ImageFolder reads them, or a CSV of labels.

The class folders lie in the data folder itself, or in its folders `train`, `val` and `test`. A CSV, as Kaggle gives
them, has the images' names in its first column, with or without the extension, and the labels in a column `label`,
`class` or the like, or else in its second one.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cifar_tune.data.collection import Collection, Ints, Items, numbered
from cifar_tune.data.pixels import Pixels, read_image, why_unreadable
from cifar_tune.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's IMG_EXTENSIONS
PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
LABEL_COLUMNS = ("label", "labels", "class", "category", "target")


def find_folder(data_dir: Path) -> Collection:
    """The labelled images of the folder; a UserError where there are none, or where labels are missing.

    A CSV that names the images comes first: beside one, folders can hold images without being classes.
    """
    if _names_images(data_dir):
        return _labelled_by_csv(data_dir)
    folders = {part: _part_folder(data_dir, names) for part, names in PARTS.items()}
    train = folders["train"] or data_dir
    class_names = _class_names(train)
    if not class_names:
        return _labelled_by_csv(data_dir)
    if folders["train"] is None:
        return Collection(str(data_dir), class_names, _items(train, class_names))
    others = {part: folders[part] for part in ("val", "test")}
    items = {
        part: _items(folder, class_names)
        for part, folder in others.items()
        if folder is not None and _class_names(folder)  # competitions have test images without labels
    }
    return Collection(str(data_dir), class_names, _items(train, class_names), items.get("val"), items.get("test"))


def _part_folder(data_dir: Path, names: Sequence[str]) -> Path | None:
    return next((data_dir / name for name in names if (data_dir / name).is_dir()), None)


def _class_names(folder: Path) -> list[str]:
    """The names of the folders that hold images, in the order of their labels."""
    return sorted(each.name for each in _visible(folder) if each.is_dir() and next(_images(each), None))


def _items(folder: Path, class_names: Sequence[str]) -> Items:
    unknown = sorted(set(_class_names(folder)) - set(class_names))
    if unknown:
        raise UserError(f"{folder / unknown[0]} is no class of the training images; rename or remove it.")
    files, labels = list[Path](), list[int]()
    for label, name in enumerate(class_names):
        members = sorted(_images(folder / name))
        files += members
        labels += [label] * len(members)
    return _items_of(files, np.array(labels, np.int64))


def _items_of(files: Sequence[Path], labels: Ints) -> Items:
    def read(indices: Ints, size: int) -> Pixels:
        images = np.empty((len(indices), 3, size, size), np.uint8)
        for place, index in enumerate(indices):
            images[place] = _read(files[index], size)
        return images

    return Items(labels, files, read, is_one_each=True)


def _read(path: Path, size: int) -> Pixels:
    try:
        return read_image(path, size)
    except Exception as error:  # a damaged image can raise anything in Pillow
        raise UserError(f"{path} cannot be used: {why_unreadable(error, path)}; replace or remove it.") from None


def _images(folder: Path) -> Iterator[Path]:
    """The image files of the folder and of those in it."""
    for each in _visible(folder) if folder.is_dir() else ():
        if each.is_dir():
            yield from _images(each)
        elif each.suffix.lower() in EXTENSIONS:
            yield each


def _visible(folder: Path) -> list[Path]:
    """What a person sees in a folder, without what systems leave there."""
    return [each for each in folder.iterdir() if not each.name.startswith((".", "__MACOSX"))]


# Labels in a CSV


def _names_images(data_dir: Path) -> bool:
    """Whether there is one CSV whose first row names an image."""
    tables = _likely_tables(data_dir)
    return len(tables) == 1 and any(_stem(name) in _by_stem(data_dir) for name, _ in _read_csv(tables[0])[:1])


def _by_stem(data_dir: Path) -> dict[str, list[Path]]:
    """The images that a CSV can label, by their names without folder and extension."""
    test = _part_folder(data_dir, PARTS["test"])
    files: dict[str, list[Path]] = {}
    for path in sorted(_images(data_dir)):
        if test is None or test not in path.parents:
            files.setdefault(_stem(path.name), []).append(path)
    return files


def _find(name: str, files: Mapping[str, Sequence[Path]], table: Path) -> Path:
    """The image that a row of the table names; of several with that name, the one in the folder that the row names."""
    candidates = files.get(_stem(name), [])
    if len(candidates) > 1:
        parts = (*Path(name).parts[:-1], _stem(name))
        candidates = [path for path in candidates if path.with_suffix("").parts[-len(parts) :] == parts]
    if len(candidates) != 1:
        reason = f"{len(candidates)} images are called so" if candidates else "there is no such image"
        raise UserError(f"{table} has a label for {name}, but {reason}; correct the row.")
    return candidates[0]


def _stem(name: str) -> str:
    """An image's name without folders, and without the extension of an image."""
    path = Path(name)
    return path.stem if path.suffix.lower() in EXTENSIONS else path.name


def _labelled_by_csv(data_dir: Path) -> Collection:
    files = _by_stem(data_dir)
    if not files:
        raise UserError(
            f"{data_dir} holds no images in class folders, and no images for a CSV of labels; "
            f"point --data-dir at the folder with a folder for each class, or with train/, val/ and test/."
        )
    table = _choose_csv(data_dir)
    rows = _read_csv(table)
    paths = [_find(name, files, table) for name, _ in rows]
    class_names, labels = numbered([label for _, label in rows])
    return Collection(str(data_dir), class_names, _items_of(paths, labels))


def _choose_csv(data_dir: Path) -> Path:
    chosen = _likely_tables(data_dir)
    if len(chosen) == 1:
        return chosen[0]
    number = f"{len(chosen)} that may do so ({', '.join(path.name for path in chosen)})" if chosen else "no"
    raise UserError(
        f"{data_dir} holds images without class folders, so one CSV has to give their labels, but there is {number}; "
        f"name it labels.csv."
    )


def _likely_tables(data_dir: Path) -> list[Path]:
    """The CSVs whose names say that they hold labels, or all where none does."""
    tables = sorted(path for path in _visible(data_dir) if path.suffix.lower() == ".csv")
    likely = [path for path in tables if "train" in path.stem.lower() or "label" in path.stem.lower()]
    return likely or tables


def _read_csv(path: Path) -> list[tuple[str, str]]:
    """The (name, label) of each image, in the order of the rows."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); save it as a CSV in UTF-8.") from None
    if len(header) < 2 or any(len(row) < 2 for row in rows if row):
        raise UserError(f"{path} needs a header and two columns, the images' names and their labels; correct it.")
    lowered = [column.strip().lower() for column in header]
    label = next((lowered.index(column) for column in LABEL_COLUMNS if column in lowered[1:]), 1)
    return [(row[0].strip(), row[label].strip()) for row in rows if row]
