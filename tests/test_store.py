"""The store: names of searches, one process at a time for a search, and a folder that can be written."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from cifar_tune.errors import UserError
from cifar_tune.store import MAX_PATH, Store, check_name, open_store
from cifar_tune.trials.storage import open_storage

HOLD = """
import sys
from pathlib import Path
from cifar_tune.store import open_store

with open_store(Path(sys.argv[1])).running(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""

# Waits for a line, so that several processes continue at the same moment.
OPEN = """
import sys
from pathlib import Path

import optuna

from cifar_tune.trials.reading import read_record
from cifar_tune.trials.storage import open_storage
from cifar_tune.store import open_store
from cifar_tune.tracking.subject import Subject
from cifar_tune.tracking.tracker import Tracker

store, name = open_store(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
optuna.create_study(storage=open_storage(store), study_name=name)
assert name in read_record(store, [name])  # by its name, because it has no trial
Tracker(store, Subject(name, name, "shapes", "digest", "", "", {}), lambda number, run_id: None)
print("opened")
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def holder(store: Store) -> Iterator[subprocess.Popen[str]]:
    """Another process that works on the search `taken`."""
    command = [sys.executable, "-c", HOLD, str(store.root), "taken"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("name", ["resnet9", "a", "2", "resnet9-v1.2_b", "A" * 100])
def test_a_search_is_named_with_letters_digits_dots_underscores_and_dashes(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a/b", "..", ".hidden", "-v", "_a", "a\n", "a'b", "größe", "a\\b", "A" * 101]
)
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="--name") as refused:
        check_name(name)
    assert len(str(refused.value).splitlines()) == 1


def test_a_store_is_made_if_there_is_none(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a" / "b")
    assert store.root == tmp_path / "a" / "b"
    assert list(store.root.iterdir()) == []


def test_a_store_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store(Path("here")).root == tmp_path / "here"


def test_opening_a_store_keeps_its_files(store: Store) -> None:
    (store.root / "optuna.db").write_text("kept")
    assert open_store(store.root) == store
    assert [path.name for path in store.root.iterdir()] == ["optuna.db"]


@pytest.mark.parametrize(("name", "part"), [("what?", "?"), ("my%20store", "%20"), ("{x}", "{"), ("x}", "}")])
def test_a_store_whose_path_its_databases_would_misread_is_refused(tmp_path: Path, name: str, part: str) -> None:
    with pytest.raises(UserError, match=rf"'{re.escape(part)}' in its path.*--store"):
        open_store(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_store_works_up_to_the_longest_path_that_its_databases_allow(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 200) / ("b" * 200)
    store = open_store(folder / ("c" * (MAX_PATH - len(str(folder)) - 1)))
    optuna.create_study(storage=open_storage(store))
    assert (store.root / "optuna.db-wal").exists()
    with pytest.raises(UserError, match="choose a shorter --store"):
        open_store(Path(f"{store.root}d"))


@pytest.mark.parametrize("path", ["file", "file/store"])
def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot be written.*--store"):
        open_store(tmp_path / path)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["a store", "100%", "5%x", "größe#1"])
def test_the_databases_are_in_a_store_of_any_name(tmp_path: Path, name: str) -> None:
    store = open_store(tmp_path / name)
    optuna.storages.RDBStorage(store.optuna_url).remove_session()
    assert [path.name for path in store.root.iterdir()] == ["optuna.db"]


def test_one_process_at_a_time_works_on_a_search(store: Store, holder: subprocess.Popen[str]) -> None:
    assert store.is_running("taken")
    with pytest.raises(UserError, match="taken is running in another process"), store.running("taken"):
        pass
    assert store.is_running("taken")
    with store.running("free"):
        pass


def test_a_killed_process_releases_its_search(store: Store, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert not store.is_running("taken")
    with store.running("taken"):
        assert store.is_running("taken")


def test_a_search_is_released_when_the_block_raises(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.running("taken"):
        raise KeyboardInterrupt
    with store.running("taken"):
        pass


def test_a_search_that_was_never_started_is_not_running(store: Store) -> None:
    assert not store.is_running("never")
    assert list(store.root.iterdir()) == []


def test_deleting_a_search_deletes_its_folder_only(store: Store) -> None:
    for name in ("gone", "kept"):
        folder = store.trial(name, 3)
        folder.mkdir(parents=True)
        (folder / "weights.safetensors").write_bytes(bytes(1000))
    assert store.delete_search("gone") == 1000
    assert not store.search("gone").exists()
    assert [path.name for path in store.trial("kept", 3).iterdir()] == ["weights.safetensors"]


def test_deleting_an_unknown_search_deletes_nothing(store: Store) -> None:
    assert store.delete_search("never") == 0


@pytest.mark.slow
def test_a_new_store_can_be_opened_by_several_processes_at_once(store: Store) -> None:
    """Optuna and MLflow cannot make their tables in several processes at once: all but one would fail."""
    command = [sys.executable, "-c", OPEN, str(store.root)]
    opened = [
        subprocess.Popen(
            [*command, f"search-{i}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for i in range(4)
    ]
    for process in opened:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in opened:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in opened:
        stdout, stderr = process.communicate()
        assert (process.returncode, stdout) == (0, "opened\n"), stderr


def test_on_a_full_disk_decoded_images_go_with_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    store.cache.mkdir(parents=True, exist_ok=True)
    for name in ("a.npy", "a.labels.npz", "b.unfinished", "old.npz"):
        (store.cache / name).write_bytes(b"x")
    store.make_room()
    assert len(list(store.cache.iterdir())) == 4, "there is room"
    monkeypatch.setattr("cifar_tune.store.ROOM_OF_DATABASES", 2**62)
    store.make_room()
    assert not list(store.cache.iterdir())
