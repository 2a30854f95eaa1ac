"""The folder that holds everything: which file lies where, and who may write.

optuna.db            the record of every search (search/record.py); while it is open its last changes lie in the
                     -wal and -shm beside it
mlflow.db, artifacts what the MLflow UI shows (tracking.py)
cache, downloads     data sets (datasets.py, archive.py)
features             what frozen backbones make of them (features.py)
locks                a file for each search, held while it runs, and one for making the databases
searches/NAME        the space file as it was used, a folder for every trial; for its reruns folders like it
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from cifar_tune.errors import UserError

STATE = "state.pt"  # in a trial's folder: from which an interrupted run goes on
WEIGHTS = "weights.safetensors"  # in a trial's folder: of the network as it was trained to the end
HITS = "val_hits.npy"  # in a rerun's folder: which validation images that network was right about

CHAMPION = "champion"  # in MLflow's model registry: the alias of a search's winner

Keepsake = Literal["weights", "hits"]  # what a trial leaves when it is trained to its end

LOCK_SECONDS = 2.0  # a report that looks whether a search runs holds its lock for a moment


@dataclass(frozen=True)
class Store:
    """A store at an absolute path; `open_store` makes one."""

    root: Path

    @property
    def optuna_url(self) -> str:
        """Optuna's and optuna-dashboard's address of the record."""
        return f"sqlite:///{self.root / 'optuna.db'}"

    @property
    def mlflow_url(self) -> str:
        """The tracking address that `mlflow ui` takes."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts."""
        return self.root / "artifacts"

    @property
    def features(self) -> Path:
        """The features of frozen backbones."""
        return self.root / "features"

    def search(self, name: str) -> Path:
        """The folder of a search."""
        return self.root / "searches" / name

    def trial(self, name: str, number: int) -> Path:
        """The folder of a trial: its state while it trains, its weights if they are kept."""
        return self.search(name) / "trials" / f"{number:05d}"

    def space(self, name: str) -> Path:
        """The search's copy of its space file."""
        return self.search(name) / "space.py"

    def save_space(self, name: str, source: str) -> None:
        """Keep the space file, so that what a search used can always be read."""
        self.search(name).mkdir(parents=True, exist_ok=True)
        self.space(name).write_text(source, encoding="utf-8")

    def is_running(self, name: str) -> bool:
        """Whether a process is working on the search now."""
        lock = self._lock(name)
        if not Path(lock.lock_file).exists():
            return False
        try:
            with lock.acquire(blocking=False):
                return False
        except Timeout:
            return True

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Hold the search for this process; the operating system lets go of it when the process dies."""
        lock = self._lock(name)
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            held = lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise UserError(
                f"The search {name} is running in another process; wait for it, or give a new search another --name."
            ) from None
        with held:
            yield

    @contextmanager
    def opening_databases(self) -> Iterator[None]:
        """Hold the making and upgrading of the databases, which no library does for several processes at once.

        Whoever opens one holds it, readers too: what they find is then whole.
        """
        lock = self._lock(".databases")  # no search's: their names begin with a letter or a digit
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        with lock:
            yield

    def delete_search(self, name: str) -> int:
        """Remove the search's folder; the bytes that it held."""
        folder = self.search(name)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder, ignore_errors=True)
        return size

    def _lock(self, name: str) -> FileLock:
        return FileLock(self.root / "locks" / f"{name}.lock")


def absolute(path: Path) -> Path:
    """A store's path as the databases take it; a UserError where they would read it as something else."""
    if "?" in str(path):
        raise UserError(f"The store {path} has a '?' in its path, which its databases cannot; choose another --store.")
    return path.expanduser().absolute()


def open_store(path: Path) -> Store:
    """The store at `path`, made if it is not there; a UserError where it cannot be written."""
    root = absolute(path)
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"The store {path} cannot be written ({error.strerror}); choose another folder with --store."
        ) from None
    return Store(root)


def model_name(search: str) -> str:
    """The name of a search's winners in MLflow's model registry, which a server may share with other programs."""
    return f"cifar-tune-{search}"


def check_name(name: str) -> str:
    """A search's name, which is also a folder's; a UserError where it cannot be one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(f"{name!r} cannot name a search; use letters, digits, '.', '_' and '-' in --name.")
    return name
