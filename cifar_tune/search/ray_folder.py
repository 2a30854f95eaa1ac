"""The folder of a Ray that is started for one command: short enough for its sockets, its own, and removed with it.

Ray's own choice is `ray` in the temporary folder, which may be too long, full, or another user's; and it leaves there
what it wrote.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cifar_tune.errors import UserError

PREFIX = "cifar-tune-ray-"
MAX_SOCKET = 103  # bytes of the path of a socket; macOS's limit, and Linux has 107
SOCKET = (
    "/session_2026-11-29_19-09-21_123456_4194304/sockets/plasma_store.1"  # the longest that Ray makes in the folder
)
MIN_FREE = 64 * 2**20  # bytes on the disk: Ray's logs of a long search are smaller
SECONDS_TO_LOCK = 60.0  # a folder that is younger may not be locked yet
SECONDS_TO_REMOVE = 5.0  # Ray's processes may write their last lines a moment after it was shut down


@contextmanager
def ray_folder() -> Iterator[Path]:
    """A new folder, which is locked within the block and removed after it; those of killed commands are removed too."""
    folder = _new_folder()
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _remove_abandoned(folder.parent)
        yield folder
    finally:
        os.close(handle)
        _remove(folder)


def _new_folder() -> Path:
    for parent in (os.environ.get("RAY_TMPDIR"), tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        with suppress(OSError):
            if parent and _is_short(parent) and shutil.disk_usage(parent).free > MIN_FREE:
                return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    raise UserError("Ray finds no short and writable temporary folder with 64 MB left; make room in /tmp.")


def _is_short(parent: str) -> bool:
    return len(os.fsencode(f"{parent}/{PREFIX}12345678{SOCKET}")) <= MAX_SOCKET


def _remove_abandoned(parent: Path) -> None:
    """Remove this user's folders whose commands were killed: the operating system has released their locks."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime < SECONDS_TO_LOCK:
                continue
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_REMOVE
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)
