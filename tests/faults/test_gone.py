"""The store, or the search in it, goes away while the search runs: moved, removed, deleted by another program."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from helpers.command_line import GOOD, PATIENCE, Start, trials_of, wait_until
from helpers.mlflow_runs import assert_each_trial_once

from cifar_tune.store import Place, Store

pytestmark = [pytest.mark.faults, pytest.mark.slow]

EPOCHS = 150  # so many that MLflow has opened its database meanwhile
SLOW = GOOD.replace("epochs=1", f"epochs={EPOCHS}").replace(
    "num_trials=2", 'num_trials=2, scheduler={"name": "none"}, sampler="random"'
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    return Store(tmp_path / "store")


def stderr_of_a_search_of_which(start: Start, store: Store, lose: Callable[[], object]) -> str:
    """What a search says that loses something while it trains."""
    search = start("run", store.root.parent / "slow.py", "--store", store.root)
    wait_until(lambda: search.poll() is not None or any(trial.mlflow_run_id for trial in trials_of(store, "slow")))
    lose()
    stdout, stderr = search.communicate(timeout=PATIENCE)
    assert (search.returncode, stdout) == (2, ""), stderr
    assert "Traceback" not in stderr
    assert "MLflow" not in stderr
    return stderr.splitlines()[-1]


def test_a_search_whose_store_is_moved_ends_and_goes_on_there(store: Store, start: Start) -> None:
    moved = Store(store.root.with_name("moved"))
    line = stderr_of_a_search_of_which(start, store, lambda: store.root.rename(moved.root))
    assert line == (
        f"cifar-tune: The store {store.root} was moved or removed while the search ran; "
        f"put it back, and run the same command again."
    )
    assert [path for path in store.root.rglob("*.db*") if path.exists()] == []
    again = start("run", store.root.parent / "slow.py", "--store", moved.root)
    _, stderr = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, stderr
    trials = trials_of(moved, "slow")
    assert [(trial.number, trial.state) for trial in trials] == [(0, "completed"), (1, "completed")]
    assert [[epoch["epoch"] for epoch in trial.curve] for trial in trials] == [list(range(1, EPOCHS + 1))] * 2
    assert_each_trial_once(moved.mlflow_url, "slow", dict.fromkeys(range(2), EPOCHS))


def test_a_search_whose_store_is_removed_makes_no_other_database(store: Store, start: Start) -> None:
    def remove() -> None:
        store.root.rename(store.root.with_name("gone"))  # at one moment
        shutil.rmtree(store.root.with_name("gone"))

    assert "was moved or removed while" in stderr_of_a_search_of_which(start, store, remove)
    time.sleep(2)  # for whatever is still at work
    assert [path for path in store.root.rglob("*.db*") if path.exists()] == []


def test_a_search_that_is_deleted_with_optunas_own_function_ends(store: Store, start: Start) -> None:
    def delete() -> None:
        optuna.delete_study(study_name="slow", storage=store.optuna_url)

    line = stderr_of_a_search_of_which(start, store, delete)
    assert line.startswith(f"cifar-tune: The search was deleted from {store.optuna_path} while it ran; ")
    assert "the same command" in line
    assert not (store.search("slow") / "ray").exists()
    assert trials_of(store, "slow") == []


def test_a_place_is_left_when_another_file_is_there_or_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    place = Place(file)
    assert not place.is_left
    file.rename(tmp_path / "moved")
    assert place.is_left
    file.touch()
    assert place.is_left
    (tmp_path / "moved").rename(file)
    assert not place.is_left
