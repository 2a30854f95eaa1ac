"""A user's own images as arrays of one `.npz` file, with the names that MedMNIST has: `train_images`, `train_labels`.

`val_…` and `test_…` are taken where they are there. Images are (n, H, W), (n, H, W, 1) or (n, H, W, 3);
labels (n,) or (n, 1), and an array `class_names` may name them.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cifar_tune.data.collection import Collection, Items
from cifar_tune.data.images import Ints, Pixels
from cifar_tune.data.pixels import as_bytes, resize
from cifar_tune.errors import UserError

CLASS_NAMES = "class_names"


def find_npz(data_dir: Path) -> Collection:
    """The labelled images of the one file in the folder; a UserError where it is no such file."""
    paths = sorted(path for path in data_dir.glob("*.npz") if path.is_file())
    if len(paths) != 1:
        number = f"{len(paths)} (like {paths[0].name})" if paths else "none"
        raise UserError(f"{data_dir} has to hold one .npz file of images, but holds {number}; point --data-dir at one.")
    (path,) = paths
    names = _names(path)
    missing = [name for name in ("train_images", "train_labels") if name not in names]
    if missing:
        raise UserError(f"{path} has no array {missing[0]}; name its arrays train_images, train_labels and so on.")
    labels = {
        part: _labels(path, part) for part in ("train", "val", "test") if {f"{part}_images", f"{part}_labels"} <= names
    }
    class_names = _class_names(path, names, labels)
    items = {part: Items(each, [path], _reader(path, part, len(each))) for part, each in labels.items()}
    return Collection(str(path), class_names, items["train"], items.get("val"), items.get("test"))


def _names(path: Path) -> set[str]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return set(arrays.files)
    except Exception as error:  # a damaged file can raise anything in zipfile and numpy
        raise UserError(f"{path} cannot be read ({error}); write it with numpy.savez.") from None


def _array(path: Path, name: str) -> npt.NDArray[Any]:
    """An array of the file; arrays of Python objects, which only a pickle holds, are refused."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            array: npt.NDArray[Any] = arrays[name]
    except Exception as error:  # as above
        raise UserError(f"{path}: the array {name} cannot be read ({error}); write it with numpy.savez.") from None
    return array


def _labels(path: Path, part: str) -> Ints:
    labels = _array(path, f"{part}_labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_whole = labels.dtype.kind in "iu" or (labels.dtype.kind == "f" and (labels == np.round(labels)).all())
    if labels.ndim != 1 or not is_whole:
        raise UserError(f"{path}: {part}_labels has to hold one whole number for each image; correct it.")
    return labels.astype(np.int64)


def _class_names(path: Path, names: set[str], labels: Mapping[str, Ints]) -> list[str]:
    if all(each.min(initial=1) >= 1 for each in labels.values()):
        raise UserError(f"{path}: no label is 0; number the classes from 0: subtract 1 from labels of 1 to K.")
    highest = max((int(each.max(initial=0)) for each in labels.values()), default=0)
    if any(each.min(initial=0) < 0 for each in labels.values()):
        raise UserError(f"{path}: a label is below 0; number the classes from 0.")
    class_names = [str(name) for name in _array(path, CLASS_NAMES).astype(str).ravel()] if CLASS_NAMES in names else []
    if class_names and len(class_names) <= highest:
        raise UserError(f"{path}: the label {highest} has no name in {CLASS_NAMES}; add it.")
    return class_names or [str(label) for label in range(highest + 1)]


def _reader(path: Path, part: str, num_labels: int) -> Callable[[Ints, int], Iterator[Pixels]]:
    def blocks(indices: Ints, size: int) -> Iterator[Pixels]:
        images = _array(path, f"{part}_images")
        channels = images.shape[3:] or (1,)
        if len(images) != num_labels or images.ndim < 3 or channels not in ((1,), (3,)):
            raise UserError(
                f"{path}: {part}_images has the shape {images.shape}; "
                f"it has to be ({num_labels}, H, W), ({num_labels}, H, W, 1) or ({num_labels}, H, W, 3)."
            )
        try:
            colors = as_bytes(images, has_16_bits=images.dtype == np.uint16)
        except ValueError as error:
            raise UserError(f"{path}: {part}_images cannot be used: {error}.") from None
        colors = colors.reshape(*colors.shape[:3], *channels).transpose(0, 3, 1, 2)
        for index in indices:
            yield resize(colors[index][None].repeat(3 // channels[0], axis=1), size)

    return blocks
