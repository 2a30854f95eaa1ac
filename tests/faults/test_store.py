"""A store is a folder like any other: moved, copied, read by others, shared, locked, and on disks of every kind."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from helpers.command_line import GOOD, PATIENCE, Answer, Start, wait_until
from helpers.machines import GROUP, as_user, fill, make_read_only, small_disk, without_locks
from helpers.records import metrics

from cifar_tune import load_trials
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record
from cifar_tune.search.space import load_space
from cifar_tune.store import WEIGHTS, Store, open_store
from cifar_tune.trials.reading import read_record

pytestmark = [pytest.mark.faults, pytest.mark.slow]

NAME = "tiny"
SLOW = GOOD.replace("epochs=1", "epochs=400")

# Trains a trial of the store's search to its end, and waits for a line before it leaves.
TRAIN = """
import sys
from pathlib import Path

from helpers.records import metrics

from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record
from cifar_tune.search.space import load_space
from cifar_tune.store import open_store

store, space = open_store(Path(sys.argv[1])), load_space(Path(sys.argv[2]))
with store.running("tiny"):
    driver = Driver(open_record(store, "tiny", space, 0), int(sys.argv[3]), [])
    trial = driver.next_trial()
    print("started", flush=True)
    sys.stdin.readline()
    driver.add_epoch(trial.number, metrics(1, 0.5), {})
    print("trained", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder where other users may go, as they may not in pytest's own."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME}.py"
    path.write_text(GOOD, encoding="utf-8")
    return path


def search(store: Store, space: Path, num_trials: int = 2) -> None:
    """Train trials by hand, with weights of a megabyte for the best."""
    driver = Driver(open_record(store, NAME, load_space(space), 0), num_trials, [])
    while driver.num_left:
        driver.add_epoch(driver.next_trial().number, metrics(1, 0.5), {"num_parameters": 7})
    store.trial(NAME, 0).mkdir(parents=True)
    (store.trial(NAME, 0) / WEIGHTS).write_bytes(bytes(2**20))


def command(*arguments: object, user: int | None = None, preexec: Callable[[], None] | None = None) -> Answer:
    """Run a command as a process of its own, perhaps as another user."""
    prefix = [] if user is None else as_user(user)
    line = [*prefix, sys.executable, "-m", "cifar_tune", *map(str, arguments)]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=PATIENCE, check=False, preexec_fn=preexec, env=environment()
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def environment() -> dict[str, str]:
    package = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": f"{package}:{package / 'tests'}"}


def assert_is_one_sentence(answer: Answer, *words: str) -> None:
    assert answer.code == 2, answer
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert line.startswith("cifar-tune: ")
    assert line.endswith(".")
    assert len(line.split(" (details")[0].split()) <= 26
    for part in words:
        assert part in line


def rows(store: Path) -> list[dict[str, object]]:
    answer = command("report", "--format", "json", "--store", store)
    assert answer.code == 0, answer.stderr
    return list(json.loads(answer.stdout))


# Readers


@pytest.mark.parametrize("is_killed", [False, True], ids=["closed", "with a log"])
def test_who_may_only_read_a_store_reads_what_its_owner_does(tmp_path: Path, space: Path, is_killed: bool) -> None:
    store = open_store(tmp_path / "store")
    search(store, space)
    if is_killed:
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN, store.root, space, "3"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        process.kill()
        process.communicate()
        assert (store.root / "optuna.db-wal").stat().st_size > 0
        kept = tmp_path / "copied while it ran"
        shutil.copytree(store.root, kept, ignore=shutil.ignore_patterns("*-shm"))
        store = Store(kept)
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    others = command("report", "--format", "json", "--store", store.root, user=4001)
    assert others.code == 0, others.stderr
    assert others.stderr == ""
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before
    assert json.loads(others.stdout) == rows(store.root)
    assert [row["state"] for row in rows(store.root)] == ["completed"] * 2 + ["interrupted"] * is_killed
    for line in (("run", space, "--num-trials", 4), ("delete", NAME, "--yes")):
        refused = command(*line, "--store", store.root, user=4001)
        assert_is_one_sentence(refused, "cannot be written (Permission denied)", "--store")


def test_a_store_on_a_read_only_file_system_is_read(tmp_path: Path, space: Path) -> None:
    with small_disk(tmp_path / "disk", 20) as disk:
        store = open_store(disk / "store")
        search(store, space)
        before = rows(store.root)
        make_read_only(disk)
        assert rows(store.root) == before
        assert len(load_trials(store=store.root).trials) == 2
        refused = command("run", space, "--store", store.root, "--num-trials", 3)
        assert_is_one_sentence(refused, "cannot be written (Read-only file system)", "--store")


def test_a_store_on_a_file_system_without_locks_is_read_and_not_written(tmp_path: Path, space: Path) -> None:
    store = open_store(tmp_path / "store")
    search(store, space)
    answer = command("report", "--format", "json", "--store", store.root, preexec=without_locks)
    assert answer.code == 0, answer.stderr
    assert json.loads(answer.stdout) == rows(store.root)
    refused = command("run", space, "--store", store.root, "--num-trials", 3, preexec=without_locks)
    assert_is_one_sentence(refused, "has no file locks", "--store")


# Moved, copied, shared


# Writes a run of the store's search with an artifact to MLflow, as its tracker does.
SHOW = """
import sys
from pathlib import Path

from cifar_tune.store import open_store
from cifar_tune.tracking.runs import SEARCH_ID_TAG, SEARCH_TAG, open_client
from cifar_tune.trials.reading import read_attributes

store = open_store(Path(sys.argv[1]))
client = open_client(store)
experiment = client.create_experiment("cifar-tune shapes", artifact_location=(store.artifacts / "shapes").as_uri())
tags = {SEARCH_TAG: "tiny", SEARCH_ID_TAG: read_attributes(store, "tiny")["id"]}
run = client.create_run(experiment, tags=tags)
for name in ("note.txt", "report.html"):
    client.log_text(run.info.run_id, "words", name)
"""


def script(text: str, *arguments: object, user: int | None = None) -> str:
    """Run Python code as a process of its own, perhaps as another user; what it prints."""
    line = [*(as_user(user) if user else ()), sys.executable, "-c", text, *map(str, arguments)]
    done = subprocess.run(
        line, input="\n\n", capture_output=True, text=True, check=False, env=environment(), umask=0o022
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def artifacts(store: Store) -> list[str]:
    return sorted(path.name for path in store.artifacts.rglob("*.*"))


def test_a_store_works_where_it_is_moved_and_its_copy_leaves_the_original_alone(tmp_path: Path, space: Path) -> None:
    first = open_store(tmp_path / "a first place")
    search(first, space)
    script(SHOW, first.root)
    moved, copied = Store(tmp_path / "moved"), Store(tmp_path / "copied")
    first.root.rename(moved.root)
    shutil.copytree(moved.root, copied.root)
    answer = command("run", space, "--store", moved.root, "--num-trials", 3)
    assert answer.code == 0, answer.stderr
    assert len(rows(moved.root)) == 3
    assert artifacts(moved) == ["note.txt", "report.html"]
    assert command("delete", NAME, "--yes", "--store", copied.root).code == 0
    assert artifacts(copied) == []
    assert artifacts(moved) == ["note.txt", "report.html"]
    assert command("delete", NAME, "--yes", "--store", moved.root).code == 0
    assert artifacts(moved) == []
    assert not list((moved.root / "searches").rglob("*"))
    assert [path.name for path in (moved.root / "locks").rglob("*")] == [".databases.lock"]
    assert not first.root.exists()


def test_a_group_may_use_what_each_of_it_has_made(space: Path, disk: Path) -> None:
    """Each with the usual umask, in a folder that the group may write."""
    root = disk / "store"
    for folder in (root, root / "cache"):
        shutil.chown(folder, group=GROUP)
        folder.chmod(0o2775)
    assert script(TRAIN, root, space, 1, user=4001) == "started\ntrained\n"
    script(SHOW, root, user=4001)
    answer = command("run", space, "--store", root, "--num-trials", 2, user=4002)  # which replaces the report in MLflow
    assert answer.code == 0, answer.stderr
    assert script(TRAIN, root, space, 3, user=4001) == "started\ntrained\n"
    ours = [path for path in root.rglob("*") if path.stat().st_uid in (4001, 4002)]
    assert {path.name for path in ours} > {"optuna.db", "mlflow.db", "report.html", "space.py"}
    assert [path for path in ours if not path.stat().st_mode & 0o020] == []
    answer = command("delete", NAME, "--yes", "--store", root, user=4001)
    assert answer.code == 0, answer.stderr


# Locked


@pytest.mark.parametrize("seconds", [8])  # SQLite itself waits for five
def test_a_search_waits_for_a_database_that_another_program_has_locked(
    tmp_path: Path, space: Path, seconds: float
) -> None:
    store = open_store(tmp_path / "store")
    driver = Driver(open_record(store, NAME, load_space(space), 0), 1, [])
    trial = driver.next_trial()
    with closing(sqlite3.connect(store.optuna_path, isolation_level=None, check_same_thread=False)) as backup:
        backup.execute("BEGIN EXCLUSIVE")
        threading.Timer(seconds, lambda: backup.execute("COMMIT")).start()
        driver.add_epoch(trial.number, metrics(1, 0.5), {})
    assert [trial.state for trial in read_record(store)[NAME]] == ["completed"]


# Full


@pytest.fixture
def disk(tmp_path: Path, cached_store: Path, shapes: object) -> Iterator[Path]:
    """A small disk with a store that has the data set."""
    with small_disk(tmp_path / "disk", 60) as folder:
        shutil.copytree(cached_store / "cache", folder / "store" / "cache")
        yield folder


def test_a_search_on_a_full_disk_ends_in_a_sentence_and_goes_on_when_there_is_room(
    disk: Path, space: Path, start: Start
) -> None:
    store = Store(disk / "store")
    space.write_text(SLOW, encoding="utf-8")
    line = ("run", space, "--store", store.root, "--num-trials", 1, "--cpus-per-trial", 1)
    process = start(*line)
    wait_until(lambda: process.poll() is not None or num_epochs(store) > 0)
    filler = fill(disk)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, stdout + stderr
    last = stderr.splitlines()[-1]
    assert last.startswith(f"cifar-tune: The disk of {store.root}")
    assert "make room, then run the same command again" in last
    assert "Traceback" not in stderr
    assert {row["state"] for row in rows(store.root)} == {"interrupted"}
    filler.unlink()
    again = start(*line)
    epochs = num_epochs(store)
    wait_until(lambda: again.poll() is not None or num_epochs(store) > epochs)
    assert again.poll() is None, again.communicate()
    os.killpg(again.pid, signal.SIGINT)
    again.communicate(timeout=PATIENCE)
    assert [row["state"] for row in rows(store.root)] == ["interrupted"]


def num_epochs(store: Store) -> int:
    try:
        return sum(len(trial.curve) for trial in read_record(store).get(NAME, []))
    except Exception:  # there is no search yet, or its disk is full
        return 0


def test_deleting_a_search_frees_room_on_a_full_disk(disk: Path, space: Path) -> None:
    """Even one that has nearly no files of its own."""
    store = open_store(disk / "store")
    search(store, space)
    (store.trial(NAME, 0) / WEIGHTS).unlink()
    script(SHOW, store.root)
    fill(disk)
    assert shutil.disk_usage(disk).free == 0
    answer = command("delete", NAME, "--yes", "--store", store.root)
    assert answer.code == 0, answer.stderr
    assert shutil.disk_usage(disk).free > 2**19
    assert command("report", "--store", store.root).code == 2
