"""Image files in folders: which there are, how they are read, and which part a folder or a file is named after."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cifar_tune.data.collection import Items
from cifar_tune.data.images import Ints, OwnPart, Pixels
from cifar_tune.data.pixels import read_image, why_unreadable
from cifar_tune.errors import UserError

# torchvision's IMG_EXTENSIONS and three more that Pillow reads.
EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif", ".avif")
PARTS: dict[str, OwnPart] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
}
FILLERS = {"set", "data", "dataset", "split", "image", "images", "imgs", "files"}


def part_named(name: str) -> OwnPart | None:
    """The part that `train`, `Training_Set` or `test_images` names; None for another name."""
    first, *others = re.split(r"[-_. ]+", name.lower())
    return PARTS.get(first) if FILLERS.issuperset(others) else None


def visible(folder: Path) -> list[Path]:
    """What a person sees in a folder, without what systems leave there, in order."""
    return sorted(each for each in folder.iterdir() if not each.name.startswith((".", "__MACOSX")))


def images_in(folder: Path) -> Iterator[Path]:
    """The image files of a folder and of those in it; neither pipes and devices, nor links to a folder above.

    A link to nothing is one of them, so that who reads it says what is missing.
    """
    for each in visible(folder) if folder.is_dir() else ():
        if not each.is_dir():
            if each.suffix.lower() in EXTENSIONS and (each.is_file() or not each.exists()):
                yield each
        elif not (each.is_symlink() and each.resolve() in (folder.resolve(), *folder.resolve().parents)):
            yield from images_in(each)


def items_of(files: Sequence[Path], labels: Ints) -> Items:
    """Labelled images in files of their own."""

    def blocks(indices: Ints, size: int) -> Iterator[Pixels]:
        for index in indices:
            yield _read(files[index], size)[None]

    return Items(labels, files, blocks, is_one_each=True)


def _read(path: Path, size: int) -> Pixels:
    try:
        return read_image(path, size)
    except Exception as error:  # a damaged image can raise anything in Pillow
        raise UserError(f"{path} cannot be used: {why_unreadable(error, path)}; replace or remove it.") from None
