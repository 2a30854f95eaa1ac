"""The database of the record, as this package opens it: Optuna's, with commits that do not wait for the disk.

Optuna commits every sampled value and every attribute by itself, so that a suggestion would wait for a dozen fsyncs.
SQLite's write-ahead log has none in a commit: what was written outlives a killed process, and a power cut may take the
last changes but leaves a sound file. Whoever reads neither waits nor is waited for.
"""

import mmap
import sqlite3
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from optuna.storages import RDBStorage

from cifar_tune.store import Store


class _WriteAhead(sqlite3.Connection):
    """Where SQLite can keep no write-ahead log, it stays with the journal that it has, and with its fsyncs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as sqlite3.connect has them
        super().__init__(*arguments, **options)
        (mode,) = self.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode == "wal":
            self.execute("PRAGMA synchronous = NORMAL")


def open_storage(store: Store) -> RDBStorage:
    """The database, made if it is not there."""
    options = {"factory": _WriteAhead} if _can_share_memory(store.root) else {}
    with store.opening_databases():
        return RDBStorage(store.optuna_url, {"connect_args": options})


def _can_share_memory(folder: Path) -> bool:
    """Whether a file there can be mapped by several processes, which some mounted drives refuse.

    SQLite needs it for the log and does not ask: it would leave a database that nobody can open.
    """
    with TemporaryFile(dir=folder) as file:
        file.truncate(mmap.PAGESIZE)
        try:
            mmap.mmap(file.fileno(), mmap.PAGESIZE).close()
        except OSError:
            return False
    return True
