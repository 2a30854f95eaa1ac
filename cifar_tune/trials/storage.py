"""The database of the record: Optuna's own in SQLite, with commits that do not wait for the disk.

Optuna commits every sampled value and every attribute separately, so a suggestion would wait for a dozen fsyncs. With
SQLite's write-ahead log a commit needs no fsync: its changes survive a killed process, and a power cut may lose the
last ones but leaves an intact file. Readers and the writer do not wait for each other.
"""

import mmap
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, Concatenate, ParamSpec, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from cifar_tune.errors import FaultError, UserError
from cifar_tune.guard import is_deletion
from cifar_tune.store import Place, Store, has_locks

P = ParamSpec("P")
T = TypeVar("T")

LOCK_SECONDS = 60.0  # to wait while another program, such as a backup or a viewer, has the database locked


class _WriteAhead(sqlite3.Connection):
    """A connection with a write-ahead log; where SQLite cannot keep one, it keeps its journal and its fsyncs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as sqlite3.connect has them
        super().__init__(*arguments, **options)
        (mode,) = self.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode == "wal":
            self.execute("PRAGMA synchronous = NORMAL")


class _Snapshot(sqlite3.Connection):
    """A copy in memory of a database that this process cannot write, with the last changes from its journal."""

    def __init__(self, database: str, **options: Any) -> None:  # noqa: ANN401 - as sqlite3.connect has them
        super().__init__(":memory:", **options)
        path = Path(database)
        if has_locks(path.parent):
            with suppress(sqlite3.OperationalError):  # SQLite may have to write beside it, unless another process has
                self._copy(path, "mode=ro")
                return
        journals = [journal for suffix in ("-wal", "-journal") if (journal := Path(database + suffix)).exists()]
        if not journals:
            self._copy(path, "immutable=1")
            return
        with TemporaryDirectory() as folder:
            for file in (path, *journals):
                shutil.copy(file, folder)
            self._copy(Path(folder) / path.name, "mode=rw&vfs=unix-none", locking="exclusive")  # thus without locks

    def _copy(self, path: Path, options: str, locking: str = "normal") -> None:
        with closing(sqlite3.connect(f"{path.as_uri()}?{options}", uri=True)) as source:
            source.execute(f"PRAGMA locking_mode = {locking}")
            source.execute("BEGIN")
            source.execute("SELECT * FROM sqlite_master").fetchone()  # fails if locked; `backup` would try for ever
            source.backup(self)


def explaining_damage(read: Callable[Concatenate[Store, P], T]) -> Callable[Concatenate[Store, P], T]:
    """The function that reads the store's database, with a FaultError for content that this product did not write.

    SQLite notices damage to its own structure only, and a wrong byte may lie in a date or in the text of an attribute.
    """

    @wraps(read)
    def explain(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(store, *args, **kwargs)
        except UserError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, StorageInternalError) as error:
            if isinstance(error.__cause__, DBAPIError) or is_deletion(error):
                raise  # of SQLite itself, which says what is in the way, or of nothing that is damaged
            raise FaultError(
                f"The database {store.optuna_path} is damaged; restore it from a backup, or choose another --store."
            ) from error

    return explain


def has_storage(store: Store) -> bool:
    """Whether the store has a record; a reader that finds none makes none."""
    return store.optuna_path.exists()


def open_storage(store: Store) -> RDBStorage:
    """The database of a store, made if there is none."""
    options: dict[str, Any] = {"timeout": LOCK_SECONDS}
    if _can_share_memory(store.root):
        options["factory"] = _WriteAhead
    with store.opening_databases():
        storage = RDBStorage(store.optuna_url, {"connect_args": options})
    _refuse_once_gone(storage, store)
    return storage


def _refuse_once_gone(storage: RDBStorage, store: Store) -> None:
    """Let the storage raise a UserError once its database is not at its path any more; SQLite would make another."""
    place = Place(store.optuna_path)

    def check(*arguments: object) -> None:
        if place.is_left:
            raise UserError(
                f"The store {store.root} was moved or removed while the search ran; "
                f"put it back, and run the same command again."
            )

    for moment in ("do_connect", "checkout"):  # a new connection is opened, or one that is open is used again
        event.listen(storage.engine, moment, check)


def open_for_reading(store: Store) -> RDBStorage:
    """The database of a store for readers, which need no right to write in the store and no room on its disk."""
    if os.access(store.root, os.W_OK) and os.access(store.optuna_path, os.W_OK):
        with suppress(Exception):  # a snapshot fails in the same way, unless it is writing that fails
            return open_storage(store)
    return RDBStorage(store.optuna_url, {"connect_args": {"factory": _Snapshot}})


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
