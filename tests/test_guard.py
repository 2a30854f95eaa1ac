"""The guard: what is known to go wrong around a command is a sentence; the traceback of everything is in a file."""

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import typer

from cifar_tune.errors import FaultError, UserError
from cifar_tune.guard import DATABASES, FILE_SYSTEM, FOLDER, explain, guarded

SAID = "cifar-tune: "


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def left(store: Path | None, error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and the sentence of a command that fails so."""

    @guarded
    def command(store: Path | None) -> None:
        raise error

    with pytest.raises(SystemExit) as exit:
        command(store=store)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(SAID)
    assert line.endswith(".")
    assert isinstance(exit.value.code, int)
    return exit.value.code, line


def traceback_in(store: Path) -> str:
    (file,) = (store / FOLDER).iterdir()
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", FILE_SYSTEM, ids=errno.errorcode.__getitem__)
def test_a_fault_of_the_file_system_is_a_sentence(store: Path, capsys: pytest.CaptureFixture[str], number: int) -> None:
    code, line = left(store, OSError(number, os.strerror(number), str(store / "optuna.db")), capsys)
    assert code == 2
    sentence = line.removeprefix(SAID).partition(" (details")[0]
    assert len(sentence.split()) <= 25
    assert "{" not in sentence
    assert str(store) in line
    assert "OSError" in traceback_in(store) or "Error" in traceback_in(store)


@pytest.mark.parametrize("code", DATABASES)
def test_the_sentence_on_a_database_is_short(code: int) -> None:
    assert len(DATABASES[code].split()) <= 25


def locked(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, closing(sqlite3.connect(path, timeout=0)) as connection:
        other.execute("BEGIN EXCLUSIVE")
        connection.execute("INSERT INTO t VALUES (1)")


def full(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA max_page_count = 2")
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")


def read_only(path: Path) -> None:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("INSERT INTO t VALUES (1)")


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4096] + bytes([255]) * 4096)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT * FROM t").fetchall()


def no_database(path: Path) -> None:
    path.write_bytes(b"words " * 1000)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT * FROM t").fetchall()


def missing(path: Path) -> None:
    with closing(sqlite3.connect(path.parent / "nowhere" / "optuna.db")) as connection:
        connection.execute("SELECT * FROM t")


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (locked, "locked by another program"),
        (full, "is full"),
        (read_only, "may not be used"),
        (damaged, "is damaged"),
        (no_database, "is damaged"),
        (missing, "may not be used"),
    ],
)
@pytest.mark.parametrize("is_chained", [False, True], ids=["itself", "told in words"])
def test_a_fault_of_a_database_is_a_sentence(
    store: Path, capsys: pytest.CaptureFixture[str], fail: Callable[[Path], None], words: str, is_chained: bool
) -> None:
    path = store / "optuna.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (value)")
    with pytest.raises(sqlite3.Error) as raised:
        fail(path)
    error = RuntimeError(f"Ray says: sqlite3.OperationalError: {raised.value}") if is_chained else raised.value
    code, line = left(store, error, capsys)
    assert code == 2, line
    assert words in line


def test_a_fault_deep_in_the_chain_of_an_error_is_found(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise KeyError("context") from None
    except KeyError as error:
        hidden = error
    assert explain(hidden, store) is None
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ValueError("cause") from error
    except ValueError as error:
        shown = error
    assert "is full" in (explain(shown, store) or "")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("I/O error: No space left on device (os error 28)"),  # as safetensors says it
        subprocess.CalledProcessError(1, ["mlflow"], stderr=b"sqlite3.OperationalError: database or disk is full"),
    ],
)
def test_a_fault_that_is_told_in_words_only_is_found(store: Path, error: Exception) -> None:
    assert "is full" in (explain(error, store) or "")


def test_the_database_is_named_by_the_library_that_failed(store: Path) -> None:
    optuna.create_study(storage=f"sqlite:///{store}/optuna.db")
    (store / "optuna.db").write_bytes(b"words " * 1000)
    with pytest.raises(Exception, match="not a database") as raised:
        optuna.create_study(storage=f"sqlite:///{store}/optuna.db")
    assert explain(raised.value, store) == (
        f"The database {store}/optuna.db is damaged; restore it from a backup, or choose another --store"
    )


def test_a_database_of_another_version_is_named(store: Path) -> None:
    words = "The runtime optuna version 5.0.0 is no longer compatible with the table schema (set up by optuna 9.0)."
    assert explain(RuntimeError(words), store) == (
        f"{store}/optuna.db was made by another version of optuna; install that version, or choose another --store"
    )


def test_an_error_that_nobody_knows_is_a_sentence_with_its_traceback_in_a_file(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = left(store, KeyError("what\nis this?"), capsys)
    assert code == 1
    assert "An unexpected KeyError: 'what\\nis this?'; its traceback is in" in line
    assert "Traceback (most recent call last)" in traceback_in(store)
    assert "cifar-tune" in traceback_in(store)
    assert "optuna" in traceback_in(store)


def test_a_store_that_cannot_be_written_leaves_the_traceback_in_the_temporary_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "store").write_text("no folder")
    left(tmp_path / "store", KeyError("?"), capsys)
    (file,) = tmp_path.glob("cifar-tune-*.txt")
    assert "KeyError" in file.read_text()


def test_a_store_that_is_gone_is_named(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    assert "is not there any more" in (explain(error, tmp_path / "store") or "")


def test_no_password_is_printed_or_kept(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    _, line = left(store, RuntimeError("no answer from https://me:s3cret@host:1/api with t0ken"), capsys)
    assert "https://***@host:1/api with ***" in line
    assert "https://***@host:1/api" in traceback_in(store)
    for secret in ("s3cret", "t0ken"):
        assert secret not in line + traceback_in(store)


def test_a_fault_that_says_its_sentence_itself_is_believed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = left(store, FaultError("Ray did not start; free memory."), capsys)
    assert (code, line.partition(" (details")[0]) == (2, f"{SAID}Ray did not start; free memory")


@pytest.mark.parametrize("error", [UserError("one sentence."), typer.Exit(3), typer.Abort(), KeyboardInterrupt()])
def test_what_others_handle_passes(store: Path, error: BaseException) -> None:
    @guarded
    def command(store: Path) -> None:
        raise error

    with pytest.raises(type(error)):
        command(store=store)
    assert not (store / FOLDER).exists()


def test_an_error_that_nobody_knows_reaches_the_debugger(store: Path) -> None:
    @guarded
    def command(store: Path, debug: bool) -> None:
        raise KeyError("?")

    with pytest.raises(KeyError):
        command(store=store, debug=True)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_report_that_is_sent_to_a_full_disk_says_so(store: Path) -> None:
    with Path("/dev/full").open("w") as full_disk:
        command = [sys.executable, "-m", "cifar_tune.cli", "describe", "search_spaces/quickstart.py"]
        done = subprocess.run(
            command, stdout=full_disk, stderr=subprocess.PIPE, text=True, check=False, cwd=Path(__file__).parents[1]
        )
    assert done.returncode == 2, done.stderr
    assert "is full; make room" in done.stderr
    assert "Traceback" not in done.stderr
