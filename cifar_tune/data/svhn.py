"""SVHN in torchvision's layout: a MATLAB file for each part, found in a folder or downloaded.

The part `extra` is left out: the split of the published benchmarks is that of `train` and `test`.
"""

from functools import partial
from pathlib import Path

import numpy as np

from cifar_tune.data.download import PublishedFile, check_whole, described, fetched
from cifar_tune.data.images import CLASS_NAMES, NUM_CLASSES, DatasetName, Images, Part, Source, check_labels
from cifar_tune.data.pixels import why_unreadable
from cifar_tune.errors import UserError


def published_mat(name: DatasetName, part: Part) -> PublishedFile:
    """The file of a part as torchvision describes it."""
    url, filename, md5 = described(name).split_list[part]
    return PublishedFile(name, url, filename, md5)


def find_mat(file: PublishedFile, data_dir: Path | None, store: Path) -> Source:
    """The part's file: in `data_dir`, or downloaded into the store without one."""
    layouts = f"{file.filename}, as torchvision has it"
    path = fetched(file, store / "downloads" / file.dataset, layouts) if data_dir is None else data_dir / file.filename
    if not path.is_file():
        raise UserError(f"No {file.dataset} in {data_dir}: looked for {layouts}.")
    return Source.whole((path,), partial(decode_mat, file, path), CLASS_NAMES[file.dataset])


def decode_mat(file: PublishedFile, path: Path) -> Images:
    """The images of a file, whose checksum is verified first: `X` uint8 (H, W, 3, n), and `y` (n, 1) with 10 for 0."""
    from scipy.io import loadmat  # takes a moment

    check_whole(path, file.md5)
    try:
        arrays = loadmat(path, variable_names=["X", "y"])
        pixels, labels = arrays["X"], arrays["y"].ravel().astype(np.int64)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[2:] != (3, len(labels)):
            raise ValueError(f"images {pixels.dtype} {pixels.shape}, {len(labels)} labels")
    except Exception as error:  # a damaged file can raise anything in scipy
        raise UserError(
            f"{path} holds no images and labels ({why_unreadable(error, path)}); download it again."
        ) from None
    images = Images(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), np.where(labels == 10, 0, labels))
    return check_labels(images, NUM_CLASSES[file.dataset], path)
