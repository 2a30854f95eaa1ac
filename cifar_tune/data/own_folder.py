"""A user's own images as files: a folder for each class, as torchvision's ImageFolder reads them.

The class folders lie in the data folder itself, or in its folders `train`, `val` and `test`. Where a CSV labels the
images instead, own_csv.py reads it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cifar_tune.data.collection import Collection, Items
from cifar_tune.data.image_files import images_in, items_of, part_named, visible
from cifar_tune.data.images import OwnPart
from cifar_tune.data.own_csv import certain_table, find_labelled, only_table
from cifar_tune.errors import UserError


def find_folder(data_dir: Path) -> Collection:
    """The labelled images of the folder; a UserError where there are none, or where labels are missing.

    A CSV of labels comes first: beside one, folders can hold images without being classes.
    """
    table = certain_table(data_dir)
    if table is not None:
        return find_labelled(data_dir, table)
    if parts := _part_folders(data_dir):
        return _in_parts(data_dir, parts)
    class_names = _class_names(data_dir)
    if all(part_named(name) for name in class_names):  # no folders, or those of parts without classes in them
        return find_labelled(data_dir, only_table(data_dir))
    return Collection(str(data_dir), class_names, _items(data_dir, class_names))


def _in_parts(data_dir: Path, parts: Mapping[OwnPart, Path]) -> Collection:
    if "train" not in parts:
        name = next(iter(parts.values())).name
        raise UserError(f"{data_dir} has the folder {name}, but none for training; call that one train.")
    class_names = _class_names(parts["train"])
    items = {part: _items(folder, class_names) for part, folder in parts.items()}
    return Collection(str(data_dir), class_names, items["train"], items.get("val"), items.get("test"))


def _part_folders(data_dir: Path) -> dict[OwnPart, Path]:
    """The folders of parts with class folders in them; competitions have test images without labels beside them."""
    folders: dict[OwnPart, Path] = {}
    for folder in visible(data_dir):
        part = part_named(folder.name)
        if part is not None and folder.is_dir() and _class_names(folder):
            if part in folders:
                raise UserError(f"{data_dir} has two folders of one part, {folders[part].name} and {folder.name}.")
            folders[part] = folder
    return folders


def _class_names(folder: Path) -> list[str]:
    """The names of the folders that hold images, in the order of their labels."""
    return [each.name for each in visible(folder) if each.is_dir() and next(images_in(each), None)]


def _items(folder: Path, class_names: Sequence[str]) -> Items:
    unknown = sorted(set(_class_names(folder)) - set(class_names))
    if unknown:
        raise UserError(f"{folder / unknown[0]} is no class of the training images; rename or remove it.")
    files, labels = list[Path](), list[int]()
    for label, name in enumerate(class_names):
        members = list(images_in(folder / name))
        files += members
        labels += [label] * len(members)
    return items_of(files, np.array(labels, np.int64))
