"""The database of the record: Optuna's own in SQLite, with commits that do not wait for the disk.

Optuna commits every sampled value and every attribute separately, so a suggestion would wait for a dozen fsyncs. With
SQLite's write-ahead log a commit needs no fsync: its changes survive a killed process, and a power cut may lose the
last ones but leaves an intact file. Readers and the writer do not wait for each other.
"""

import mmap
import sqlite3
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from optuna.storages import RDBStorage

from cifar_tune.store import Store


class _WriteAhead(sqlite3.Connection):
    """A connection with a write-ahead log; where SQLite cannot keep one, it keeps its journal and its fsyncs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as sqlite3.connect has them
        super().__init__(*arguments, **options)
        (mode,) = self.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode == "wal":
            self.execute("PRAGMA synchronous = NORMAL")


def has_storage(store: Store) -> bool:
    """Whether the store has a record; a reader that finds none makes none."""
    return store.optuna_path.exists()


def open_storage(store: Store) -> RDBStorage:
    """The database of a store, made if there is none."""
    options = {"factory": _WriteAhead} if _can_share_memory(store.root) else {}
    with store.opening_databases():
        return RDBStorage(store.optuna_url, {"connect_args": options})


def _can_share_memory(folder: Path) -> bool:
    """Whether several processes can map a file of the folder into memory, which some mounted drives refuse.

    SQLite needs that for the log and does not check it: the database could not be opened again.
    """
    with TemporaryFile(dir=folder) as file:
        file.truncate(mmap.PAGESIZE)
        try:
            mmap.mmap(file.fileno(), mmap.PAGESIZE).close()
        except OSError:
            return False
    return True
