"""What ends a trial besides its own recipe: a machine that cannot write, a worker that hangs; and a space used up."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from helpers.command_line import GOOD, PATIENCE, Call, Start, trials_of, wait_until

from cifar_tune.store import Store, open_store

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ONE_WORKER = ("--cpus-per-trial", 1, "--max-concurrent", 1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def test_where_nothing_can_be_written_the_search_stops_and_goes_on_once_it_can(
    tmp_path: Path, store: Store, call: Call
) -> None:
    """The folder of trial 1 is a file, so that no checkpoint of it can be written."""
    (tmp_path / "good.py").write_text(GOOD)
    taken = store.trial("good", 1)
    taken.parent.mkdir(parents=True)
    taken.write_text("no folder")
    command = ("run", tmp_path / "good.py", "--store", store.root, *ONE_WORKER)

    stopped = call(*command)
    assert stopped.code == 2, stopped.stderr
    last = stopped.stderr.strip().splitlines()[-1]
    assert last.startswith("cifar-tune: 3 trials in a row failed alike: A checkpoint cannot be read or written: [")
    assert "Traceback" not in stopped.stderr
    assert [trial.state for trial in trials_of(store, "good")] == ["completed", "interrupted"]

    taken.unlink()
    resumed = call(*command)
    assert resumed.code == 0, resumed.stderr
    assert [trial.state for trial in trials_of(store, "good")] == ["completed", "completed"]


def test_a_worker_that_hangs_ends_its_trial_and_not_the_search(tmp_path: Path, store: Store, start: Start) -> None:
    """The worker is stopped by a signal while it trains trial 1, which has a minute."""
    epochs = '.replace({"epochs": trial.suggest_int("epochs", 1, 2000)}).replace({'
    space = GOOD.replace("return BASELINE.replace({", f"return BASELINE{epochs}").replace(
        "Search(num_trials=2)", 'Search(num_trials=2, scheduler={"name": "none"}, minutes_per_trial=1)'
    )
    (tmp_path / "good.py").write_text(space)
    search = start("run", tmp_path / "good.py", "--store", store.root, *ONE_WORKER)
    wait_until(
        lambda: search.poll() is not None or [trial.state for trial in trials_of(store, "good")][:1] == ["completed"]
    )
    worker = int(trials_of(store, "good")[0].facts["worker"].rpartition(":")[2])
    os.kill(worker, signal.SIGSTOP)
    _, stderr = search.communicate(timeout=PATIENCE)
    assert search.returncode == 0, stderr
    assert not psutil.pid_exists(worker)
    assert [trial.state for trial in trials_of(store, "good")] == ["completed", "failed"]
    assert "It took longer than the 1:00 that the search allows a trial" in stderr


def test_a_space_of_three_recipes_ends_after_them(tmp_path: Path, store: Store, call: Call) -> None:
    choice = 'trial.suggest_categorical("optimizer/lr", [0.0005, 0.001, 0.002])'
    few = GOOD.replace('trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)', choice)
    (tmp_path / "good.py").write_text(few.replace("num_trials=2", "num_trials=12"))
    command = ("run", tmp_path / "good.py", "--store", store.root)
    for _ in range(2):
        answer = call(*command)
        assert answer.code == 0, answer.stderr
        assert "good is complete: its space has no recipe left to try, 3 were tried." in answer.stderr
    rows = json.loads(call("report", "good", "--store", store.root, "--format", "json").stdout)
    assert sorted(row["recipe"]["optimizer"]["lr"] for row in rows) == [0.0005, 0.001, 0.002]
