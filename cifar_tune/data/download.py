"""Published files: where they are, how they are recognised, and their download into the store.

Addresses, checksums and the download itself are torchvision's. Only the functions that need torchvision import it,
because that takes seconds.
"""

import contextlib
import hashlib
import http.client
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from cifar_tune.data.images import DATASETS, DatasetName, Published
from cifar_tune.errors import UserError

DOWNLOAD_TIMEOUT_SECONDS = 60.0  # of silence, not of the whole download


@dataclass(frozen=True)
class PublishedFile:
    """A file of a data set. The checksum is MD5, because that is what is published."""

    dataset: str
    url: str
    filename: str
    md5: str


def described(name: DatasetName) -> Any:  # noqa: ANN401 - torchvision has no types
    """The class of torchvision that knows a published data set's addresses and checksums."""
    import torchvision.datasets

    origin = DATASETS[name].origin
    assert isinstance(origin, Published)
    return getattr(torchvision.datasets, origin.torchvision_class)


def fetched(file: PublishedFile, folder: Path, layouts: str) -> Path:
    """The file in a folder: the whole one that is there, or a download, by one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{file.filename}.lock"):
        return download(file, folder, layouts)


def download(file: PublishedFile, downloads: Path, layouts: str) -> Path:
    """The file under `downloads`, verified by its checksum; downloaded unless a whole one is there.

    Raises a UserError where that fails. `layouts` is half a sentence for it: what a data folder may hold instead.
    """
    from torchvision.datasets.utils import download_url

    instead = (
        f"get it on a machine that can and point --data-dir or CIFAR_TUNE_DATA_DIR at a folder that holds {layouts}."
    )
    try:
        with socket_timeout(DOWNLOAD_TIMEOUT_SECONDS):
            download_url(file.url, downloads, file.filename, file.md5)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{file.dataset} could not be downloaded from {file.url} ({error}); {instead}") from None
    except RuntimeError:
        raise UserError(
            f"What {file.url} sent is not the published {file.filename} (its MD5 differs); try again, or {instead}"
        ) from None
    return downloads / file.filename


@contextlib.contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Set the default timeout of sockets within the block: download helpers set none, and could wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def is_whole(path: Path, md5: str) -> bool:
    """Whether the file is there and has the MD5; a UserError where it cannot be read."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); correct its rights.") from None


def check_whole(path: Path, md5: str) -> None:
    """Raise a UserError where a file is not the published one."""
    if not is_whole(path, md5):
        raise UserError(f"{path} is damaged: its MD5 is not the published one; download it again.")
