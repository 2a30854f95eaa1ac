"""The guard at the door of every command: a fault around it becomes one sentence, and its traceback goes into a file.

What disks, databases and other programs do to a command is known and can be mended: exit code 2. Anything else is a
failure: exit code 1. A UserError passes, because it is such a sentence already.
"""

import errno
import os
import re
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import NoReturn, ParamSpec

from cifar_tune.errors import FaultError, UserError
from cifar_tune.machine import is_full

P = ParamSpec("P")

FOLDER = "errors"  # in the store: the files with tracebacks
AGAIN = "then run the same command again"
MAX_PATH, MAX_MESSAGE = 100, 160  # characters of each that a sentence shows

FULL = f"The disk of {{path}} is full; make room, {AGAIN}"
DENIED = "{path} may not be used ({reason}); ask its owner for the right, or choose another folder"
BROKEN = f"{{path}} cannot be read or written ({{reason}}); check the disk, {AGAIN}"
LOCKLESS = "The file system of {path} has no file locks; choose a --store on a local disk"

FILE_SYSTEM = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: f"The disk quota of {{path}} is used up; make room, {AGAIN}",
    errno.EROFS: "{path} is on a read-only file system; choose another --store, or mount it for writing",
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.ENAMETOOLONG: "The path {path} is too long for its file system; choose a shorter --store",
    errno.EFBIG: "{path} has become larger than its file system or `ulimit -f` allows; choose another --store",
    errno.EIO: BROKEN,
    errno.ESTALE: BROKEN,
    errno.ENODEV: BROKEN,
    errno.ENXIO: BROKEN,
    errno.EBUSY: f"{{path}} is in use by another program; close it, {AGAIN}",
    errno.ENOTEMPTY: f"{{path}} is in use by another program; close it, {AGAIN}",
    errno.EMFILE: f"Too many files are open; raise the limit with `ulimit -n 4096`, {AGAIN}",
    errno.ENFILE: f"Too many files are open on this machine; close other programs, {AGAIN}",
    errno.ENOMEM: f"This machine has no memory left; close other programs, {AGAIN}",
    errno.EAGAIN: f"This machine or `ulimit -u` allows no more processes; close other programs, {AGAIN}",
    errno.ENOLCK: LOCKLESS,
    errno.EOPNOTSUPP: LOCKLESS,
}
DAMAGED = "The database {path} is damaged; restore it from a backup, or choose another --store"
DATABASES = {  # by SQLite's primary result code
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_BUSY: f"{{path}} is locked by another program, such as a backup or a viewer; close it, {AGAIN}",
    sqlite3.SQLITE_LOCKED: f"{{path}} is locked by another program, such as a backup or a viewer; close it, {AGAIN}",
    sqlite3.SQLITE_READONLY: DENIED,
    sqlite3.SQLITE_PERM: DENIED,
    sqlite3.SQLITE_CANTOPEN: DENIED,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_IOERR: BROKEN,
    sqlite3.SQLITE_PROTOCOL: LOCKLESS,
}
PHRASES = {  # SQLite's words for its codes, where a library or a process of its own has passed on no more
    "database or disk is full": sqlite3.SQLITE_FULL,
    "database is locked": sqlite3.SQLITE_BUSY,
    "attempt to write a readonly database": sqlite3.SQLITE_READONLY,
    "unable to open database file": sqlite3.SQLITE_CANTOPEN,
    "database disk image is malformed": sqlite3.SQLITE_CORRUPT,
    "file is not a database": sqlite3.SQLITE_NOTADB,
    "unsupported file format": sqlite3.SQLITE_NOTADB,
    "disk I/O error": sqlite3.SQLITE_IOERR,
}
NO_RECORD = "Record does not exist."  # Optuna's words for a study that another program has deleted
DELETED = "The search was deleted from {path} while it ran; the same command starts it anew"
SCHEMAS = {  # what a library says of a database that another version of it has made
    "no longer compatible with the table schema": "optuna",
    "out-of-date database schema": "mlflow",
    "Can't locate revision": "mlflow",
}
OTHER_VERSION = "{path} was made by another version of {package}; install that version, or choose another --store"


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """The command with the guard around it; its parameter `store`, where it has one, is where tracebacks go."""

    @wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()  # here, because the disk of a file that it is sent to may be full
        except UserError:
            raise
        except Exception as error:
            if _is_of_the_command_line(error):
                raise
            store = kwargs.get("store")
            if kwargs.get("debug") and explain(error, None) is None:
                raise  # to the debugger
            _leave(error, store.expanduser().absolute() if isinstance(store, Path) else None)

    return call


def _is_of_the_command_line(error: Exception) -> bool:
    """Whether typer handles it: an exit, an answer of no, or a reader of stdout that has closed it."""
    package = type(error).__module__.partition(".")[0]
    return package in ("typer", "click") or isinstance(error, BrokenPipeError)


def _leave(error: Exception, store: Path | None) -> NoReturn:
    explanation = explain(error, store)
    file = save_traceback(error, store)
    details = "" if file is None else f"; its traceback is in {file}" if explanation is None else f" (details: {file})"
    if explanation is None:
        message = _without_passwords(" ".join(str(error).split()))[:MAX_MESSAGE]
        explanation = f"An unexpected {type(error).__name__}: {message}".rstrip(".: ")
        code = 1
    else:
        code = 2
    with suppress(OSError):  # of a stderr on a full disk
        print(f"cifar-tune: {explanation}{details}.", file=sys.stderr, flush=True)
    raise SystemExit(code)


def explain(error: BaseException, store: Path | None) -> str | None:
    """What happened and what to do, for a fault that is known; None for any other."""
    chain = list(_chain(error))
    if store is not None and not store.exists() and any(isinstance(link, OSError | sqlite3.Error) for link in chain):
        return f"The store {_short(store)} is not there any more; bring it back, or choose another --store"
    for link in chain:
        explanation = _explain_link(link, chain, store)
        if explanation is not None:
            return explanation
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it, as its traceback shows them."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def is_deletion(error: BaseException) -> bool:
    """Whether another program has deleted what was to be read or written from Optuna's database."""
    return isinstance(error, KeyError) and error.args == (NO_RECORD,)


def _explain_link(link: BaseException, chain: Sequence[BaseException], store: Path | None) -> str | None:
    if isinstance(link, FaultError):
        return str(link).rstrip(".")
    if is_deletion(link):
        return DELETED.format(path=_short(_in_store(store, "optuna.db")))
    if isinstance(link, MemoryError):
        return FILE_SYSTEM[errno.ENOMEM]
    text = _text(link)
    phrase = next((phrase for phrase in PHRASES if phrase in text), "")
    code = getattr(link, "sqlite_errorcode", PHRASES.get(phrase, 0)) & 0xFF  # the rest tells kinds of one code apart
    if code:
        return _explain_database(code, phrase or str(link), _database(chain, store))
    for words, package in SCHEMAS.items():
        if words in text:
            return OTHER_VERSION.format(path=_short(_in_store(store, f"{package}.db")), package=package)
    number = _error_number(link, text)
    if number not in FILE_SYSTEM:
        return None
    path = getattr(link, "filename", None)
    place = path if isinstance(path, str) else _in_store(store)
    if number == errno.ENOSPC and path is None and store is not None and not is_full(store):
        place = "the output"  # which may be sent to any file
    return FILE_SYSTEM[number].format(path=_short(place), reason=os.strerror(number))


def _text(link: BaseException) -> str:
    """What an exception says, and what the process printed whose failure it is."""
    printed = getattr(link, "stderr", None)
    return f"{link} {printed.decode(errors='replace') if isinstance(printed, bytes) else printed or ''}"


def _error_number(link: BaseException, text: str) -> int:
    """The error number of an error of the file system, which some libraries pass on in words only; 0 for others."""
    if isinstance(link, OSError) and link.errno is not None:
        return link.errno
    number = re.search(r"(?:\[Errno |\(os error )(\d+)[\])]", text)
    return int(number.group(1)) if number else 0


def _explain_database(code: int, reason: str, path: Path | str) -> str | None:
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and isinstance(path, Path) and is_full(path.parent):
        code = sqlite3.SQLITE_FULL  # which SQLite notices only where it writes the database itself
    return DATABASES[code].format(path=_short(path), reason=reason) if code in DATABASES else None


def _database(chain: Sequence[BaseException], store: Path | None) -> Path | str:
    """The database that an error comes from, told by the library that opened it."""
    for link in reversed(chain):
        modules = [f"{frame.f_globals.get('__name__')}." for frame, _ in traceback.walk_tb(link.__traceback__)]
        for module in reversed(modules):
            if module.startswith(("mlflow.", "cifar_tune.tracking.")):
                return _in_store(store, "mlflow.db")
            if module.startswith(("optuna.", "cifar_tune.trials.")):
                return _in_store(store, "optuna.db")
    return _in_store(store)


def _in_store(store: Path | None, name: str = "") -> Path | str:
    return "the store" if store is None else store / name


def _short(path: Path | str) -> str:
    """The path, without its middle where it is long."""
    text = str(path)
    return text if len(text) <= MAX_PATH else f"{text[: MAX_PATH // 2]}...{text[-MAX_PATH // 2 :]}"


def save_traceback(error: BaseException, store: Path | None) -> Path | None:
    """Write what is needed to find the fault into a file of the store, or of the temporary folder; None if neither."""
    from cifar_tune.provenance import as_typed, package_versions

    versions = ", ".join(f"{package} {version}" for package, version in package_versions().items())
    lines = [as_typed(*sys.argv[1:]), versions, "", *traceback.format_exception(error)]
    text = _without_passwords("\n".join(line.rstrip("\n") for line in lines) + "\n")
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    in_store = None if store is None or not store.is_dir() else _written(store / FOLDER / name, text)
    return in_store or _written(Path(tempfile.gettempdir()) / f"cifar-tune-{name}", text)


def _written(file: Path, text: str) -> Path | None:
    """The file with the text in it, or None; a full disk keeps no part of it."""
    try:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        return None
    return file


def _without_passwords(text: str) -> str:
    """The text without what stands before the @ of an address, and without the values of MLflow's secrets."""
    text = re.sub(r"(?<=://)[^/\s'\"]*@", "***@", text)
    for variable in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "RAY_AUTH_TOKEN"):
        if os.environ.get(variable):
            text = text.replace(os.environ[variable], "***")
    return text
