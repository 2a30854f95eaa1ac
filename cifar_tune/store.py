"""The store, a folder with everything that searches leave: where each file lies, and which process may write.

optuna.db            the record of every search (search/record.py); while it is open, its last changes are in the files
                     -wal and -shm beside it
mlflow.db, artifacts what the MLflow UI shows (tracking/)
cache, downloads     data sets (data/datasets.py, data/download.py)
features             the features of frozen backbones (training/features.py)
errors               tracebacks of commands that failed (guard.py)
locks                a file for each search, locked while it runs, and one for making the databases
searches/NAME        a copy of the space file and of its helpers, a folder for every trial, such folders for reruns
"""

import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

from filelock import FileLock, Timeout

from cifar_tune.errors import UserError

STATE = "state.pt"  # in a trial's folder: the checkpoint from which an interrupted run resumes
WEIGHTS = "weights.safetensors"  # in a trial's folder: the weights of the trained network
HELPERS = "space-helpers"  # in a search's folder: the modules that its space file imports
HITS = "val_hits.npy"  # in a rerun's folder: the value of each validation image (training/scores.py)

CHAMPION = "champion"  # in MLflow's model registry: the alias of a search's winner

Keepsake = Literal["weights", "hits"]  # the file that a trial leaves when it is trained to its end

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what a file system answers that cannot lock files
DATABASES = ".databases"  # the lock for making them; the name of a search begins with a letter or a digit
MAX_PATH = 480  # bytes: SQLite opens no path of more than 512, and makes files beside a database with longer names
ROOM_OF_DATABASES = 4 * 2**20  # bytes that they need on the disk to delete a search
LOCK_SECONDS = 2.0  # to wait: a report that checks whether a search runs holds its lock for a moment


@dataclass(frozen=True)
class Store:
    """A store at an absolute path; `open_store` opens or makes one."""

    root: Path

    @property
    def optuna_path(self) -> Path:
        """The database of the record."""
        return self.root / "optuna.db"

    @property
    def optuna_url(self) -> str:
        """The address of the record for Optuna and optuna-dashboard."""
        return f"sqlite:///{self.optuna_path}"

    @property
    def mlflow_url(self) -> str:
        """The tracking address that `mlflow ui` takes."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """The folder of MLflow's artifacts."""
        return self.root / "artifacts"

    @property
    def cache(self) -> Path:
        """The folder of decoded data sets."""
        return self.root / "cache"

    @property
    def features(self) -> Path:
        """The folder of cached features of frozen backbones."""
        return self.root / "features"

    def search(self, name: str) -> Path:
        """The folder of a search."""
        return self.root / "searches" / name

    def trial(self, name: str, number: int) -> Path:
        """The folder of a trial: its checkpoint while it trains, its weights if they are kept."""
        return self.search(name) / "trials" / f"{number:05d}"

    def space(self, name: str) -> Path:
        """The search's copy of its space file."""
        return self.search(name) / "space.py"

    def save_space(self, name: str, source: str, helpers: Mapping[str, str]) -> None:
        """Store a copy of the space file that a search uses, and of its helpers by their relative paths."""
        folder = self.search(name) / HELPERS
        for path, text in [(self.space(name), source), *((folder / place, text) for place, text in helpers.items())]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def is_running(self, name: str) -> bool:
        """Whether a process works on the search now. Asking takes no right to write."""
        try:
            with self._lock_path(name).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # there is no such file, or no locks, without which nothing runs
            return False
        return False

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Lock the search for this process; the operating system releases the lock if the process dies."""
        lock = self._lock(name)
        try:
            acquired = lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise UserError(
                f"The search {name} is running in another process; wait for it, or start a new search with --name."
            ) from None
        with acquired:
            yield

    @contextmanager
    def opening_databases(self) -> Iterator[None]:
        """Lock the making and upgrading of the databases, because no library lets several processes do it at once.

        Readers take the lock too, so that they never see a database that is half made.
        """
        with self._lock(DATABASES):
            yield
            if _is_shared(self.root):
                for file in self.root.glob("*.db*"):  # SQLite lets only their owner write them, whatever the umask is
                    with suppress(OSError):  # the file is gone, or another user's, who has done this
                        file.chmod(file.stat().st_mode | stat.S_IWGRP)

    def delete_search(self, name: str) -> int:
        """Delete the search's folder and its locks, and return the folder's size in bytes."""
        folder, lock = self.search(name), self._lock_path(name)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for each in (folder, lock.with_suffix("")):  # the locks of reruns are in a folder
            if each.is_dir():
                shutil.rmtree(each)
        lock.unlink(missing_ok=True)
        return size

    def make_room(self) -> None:
        """On a full disk, delete cached features and decoded data sets, which are made again when they are needed."""
        patterns = ("*.npy", "*.unfinished", "*.npz")  # the last of labels, or of both before 0.2
        data_sets = [path for pattern in patterns for path in self.cache.glob(pattern)]
        for cached in (*self.features.glob("*.safetensors"), *data_sets):
            if shutil.disk_usage(self.root).free < ROOM_OF_DATABASES:
                cached.unlink(missing_ok=True)

    def _lock(self, name: str) -> FileLock:
        path = self._lock_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def _lock_path(self, name: str) -> Path:
        return self.root / "locks" / f"{name}.lock"


class Place:
    """The path of a file or folder that is there now, and whether the same one is still there later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = self._read_identity()

    @property
    def is_left(self) -> bool:
        """Whether nothing is at the path any more, or something else."""
        try:
            return self._read_identity() != self._identity
        except OSError as error:  # any other is the disk's
            return isinstance(error, FileNotFoundError | NotADirectoryError)

    def _read_identity(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_dev, status.st_ino


def absolute(path: Path) -> Path:
    """A store's path made absolute; a UserError for one that the databases' addresses cannot contain."""
    root = path.expanduser().absolute()
    forbidden = re.search(r"[?{}]|%[0-9A-Fa-f]{2}", str(root))  # part of an address, of a template, or of a code
    if forbidden:
        raise UserError(
            f"The store {root} has a '{forbidden[0]}' in its path, which its databases forbid; choose another --store."
        )
    if len(os.fsencode(root)) > MAX_PATH:
        raise UserError(
            f"The store's path has more than the {MAX_PATH} bytes that its databases allow; choose a shorter --store."
        )
    return root


def open_store(path: Path) -> Store:
    """The store at `path`, made if there is none; a UserError if it cannot be written or its files not be locked.

    Where its folder belongs to a group that may write there, the group may write all files that this process makes.
    """
    root = absolute(path)
    try:
        root.mkdir(parents=True, exist_ok=True)
        if _is_shared(root):
            os.umask(os.umask(0) & ~stat.S_IRWXG)
        _check_locks(root / f".write-test-{os.getpid()}")
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise UserError(f"The file system of {path} has no file locks; choose a --store on a local disk.") from None
        raise UserError(
            f"The store {path} cannot be written ({error.strerror}); choose another folder with --store."
        ) from None
    return Store(root)


def _is_shared(root: Path) -> bool:
    """Whether the group of a store's folder may write there."""
    return bool(root.stat().st_mode & stat.S_IWGRP)


def has_locks(root: Path) -> bool:
    """Whether files of a store can be locked. Asking takes no right to write."""
    try:
        with (root / "locks" / f"{DATABASES}.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in NO_LOCKS
    return True


def _check_locks(probe: Path) -> None:
    """Make a file and lock it in both ways that are needed: this package's and SQLite's."""
    with probe.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)  # on some network drives the two are one and would wait for each other
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            probe.unlink()


def check_can_write(folder: Path) -> None:
    """Raise a PermissionError where this process cannot write to the folder, or to that in which it is to be made."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with TemporaryFile(dir=there):
            return
    except OSError as error:
        raise PermissionError(error.errno, error.strerror, str(folder)) from None


def set_usual_mode(file: Path) -> None:
    """Give a file the mode of any new file; safetensors makes its files for their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    file.chmod(0o666 & ~umask)


def model_name(search: str) -> str:
    """The name of a search's winners in MLflow's model registry, which a server may share with other programs."""
    return f"cifar-tune-{search}"


def check_name(name: str) -> str:
    """The name itself if it can name a search and its folder; otherwise a UserError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(f"{name!r} cannot name a search; use letters, digits, '.', '_' and '-' in --name.")
    return name
