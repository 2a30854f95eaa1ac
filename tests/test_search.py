"""Whole searches through the command line: real Ray, Optuna and MLflow on tiny trials of the built-in data set."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from mlflow.tracking import MlflowClient

from cifar_tune.search.record import read_record
from cifar_tune.store import Store, open_store

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet"},
    optimizer={"name": "sgd", "lr": 0.1},
    schedule={"name": "constant"},
    epochs=EPOCHS,
    batch_size=32,
    train_images=64,
)
RATES = [0.1, 0.0, 1e30]  # the baseline's, one that learns nothing, one that diverges


def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-9, 1e38, log=True)})


SEARCH = Search(num_trials=4, rungs=(0.5,), keep=0.5)
"""

FINISHED = {"completed", "pruned", "diverged"}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A space of short trials, many of which diverge."""
    path = tmp_path / "tiny.py"
    path.write_text(SPACE.replace("EPOCHS", "4"))
    return path


@pytest.fixture
def slow_space(tmp_path: Path) -> Path:
    """The same with trials long enough to be interrupted."""
    path = tmp_path / "tiny.py"
    path.write_text(SPACE.replace("EPOCHS", "30"))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cifar_tune.cli", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=240)


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Start a command in a process group of its own, which is gone after the test."""
    started: list[subprocess.Popen[str]] = []

    def start_command(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield start_command
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def num_epochs(store: Store, name: str = "tiny") -> int:
    """Epochs in the record so far."""
    try:
        return sum(trial.epochs for trial in read_record(store, [name])[name])
    except Exception:
        return 0


def wait_until(condition: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)


def children_states(store: Store, name: str = "tiny") -> dict[int, tuple[str, str]]:
    """Trial number to the (status, state tag) of its MLflow run; every trial has one run."""
    client = MlflowClient(store.mlflow_url)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = [run for run in client.search_runs(ids) if "cifar_tune.trial" in run.data.tags]
    runs = [run for run in runs if run.data.tags["cifar_tune.search"] == name]
    numbers = [int(run.data.tags["cifar_tune.trial"]) for run in runs]
    assert len(numbers) == len(set(numbers)), "a trial has two runs"
    return {n: (run.info.status, run.data.tags["cifar_tune.state"]) for n, run in zip(numbers, runs, strict=True)}


def assert_records_agree(store: Store, num_trials: int, name: str = "tiny") -> None:
    """Each trial once, over, and the same in Optuna, MLflow and the report."""
    study = optuna.load_study(study_name=name, storage=store.optuna_url)
    shown = children_states(store, name)
    report = json.loads(run("report", name, "--store", store.root, "--format", "json").stdout)
    assert sorted(row["trial"] for row in report) == list(range(num_trials)) == sorted(shown)
    expected = {
        "completed": ("COMPLETE", "FINISHED"),
        "pruned": ("PRUNED", "FINISHED"),
        "diverged": ("COMPLETE", "FINISHED"),
    }
    for row in report:
        trial = study.trials[row["trial"]]
        optuna_state, mlflow_status = expected[row["state"]]
        assert trial.state.name == optuna_state
        assert trial.user_attrs["state"] == row["state"]
        assert shown[row["trial"]] == (mlflow_status, row["state"])
        assert len(trial.intermediate_values) == row["epochs"]
        if trial.state == optuna.trial.TrialState.COMPLETE:
            assert trial.value == pytest.approx(row["val_accuracy"])


def metric_steps(store: Store, run_id: str) -> list[int]:
    return [metric.step for metric in MlflowClient(store.mlflow_url).get_metric_history(run_id, "val_accuracy")]


def test_a_search_ends_with_one_truth_everywhere_and_a_larger_one_continues_it(space: Path, store: Store) -> None:
    first = run("run", space, "--store", store.root)
    assert first.returncode == 0, first.stderr
    assert_records_agree(store, 4)
    trials = read_record(store, ["tiny"])["tiny"]
    assert trials[0].is_baseline
    assert trials[0].state == "completed"
    assert trials[0].recipe.optimizer.lr == 0.1
    assert "diverged" in {trial.state for trial in trials}
    weights = list(store.search("tiny").rglob("*.safetensors"))
    assert len(weights) == 1
    assert str(weights[0]) in first.stdout
    assert not list(store.search("tiny").rglob("state.pt"))

    again = run("run", space, "--store", store.root)
    assert again.returncode == 0
    assert "is complete" in again.stderr
    larger = run("run", space, "--store", store.root, "--num-trials", 6)
    assert larger.returncode == 0, larger.stderr
    assert_records_agree(store, 6)
    assert [t.recipe for t in read_record(store)["tiny"][:4]] == [t.recipe for t in trials]

    changed = run("run", space, "--store", store.root, "--set", "epochs=2")
    assert changed.returncode == 2
    assert "Traceback" not in changed.stderr
    space.write_text(space.read_text().replace("keep=0.5", "keep=0.4"))
    changed = run("run", space, "--store", store.root)
    assert changed.returncode == 2
    assert "keep=0.4" in changed.stderr

    deleted = run("delete", "tiny", "--store", store.root, "--yes")
    assert deleted.returncode == 0, deleted.stderr
    assert not store.search("tiny").exists()
    assert children_states(store) == {}
    assert run("report", "tiny", "--store", store.root).returncode == 2


def test_a_search_killed_three_times_completes_with_each_trial_once(slow_space: Path, store: Store, start: Any) -> None:
    arguments = ("run", slow_space, "--store", store.root, "--num-trials", 3)
    for _ in range(3):
        before = num_epochs(store)
        process = start(*arguments)
        wait_until(lambda before=before: num_epochs(store) > before + 1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    last = run(*arguments)
    assert last.returncode == 0, last.stderr
    assert_records_agree(store, 3)
    for trial in read_record(store)["tiny"]:
        assert [epoch["epoch"] for epoch in trial.curve] == list(range(1, trial.epochs + 1))
        assert trial.mlflow_run_id is not None
        assert metric_steps(store, trial.mlflow_run_id) == list(range(1, trial.epochs + 1))


def test_ctrl_c_and_a_time_budget_end_cleanly_and_listen_on_loopback_alone(
    slow_space: Path, store: Store, start: Any
) -> None:
    arguments = ("run", slow_space, "--store", store.root, "--num-trials", 2)
    process = start(*arguments)
    wait_until(lambda: num_epochs(store) > 1)
    assert listening_addresses(process.pid) <= {"127.0.0.1", "::1"}
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "To go on from here: cifar-tune run" in stderr
    states = Counter(trial.state for trial in read_record(store)["tiny"])
    assert states["running"] == 0
    assert states["interrupted"] >= 1
    assert "KILLED" in {status for status, _ in children_states(store).values()}
    done = num_epochs(store)

    out_of_time = run(*arguments, "--time-budget", "1s")
    assert out_of_time.returncode == 0, out_of_time.stderr
    assert "time budget is used up" in out_of_time.stderr
    assert num_epochs(store) >= done

    last = run(*arguments)
    assert last.returncode == 0, last.stderr
    assert_records_agree(store, 2)


def listening_addresses(pid: int) -> set[str]:
    """The addresses that a process and all its descendants listen on."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    found = set()
    for member in family:
        try:
            connections = member.net_connections(kind="inet")
        except psutil.NoSuchProcess:
            continue
        found |= {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert found, "a running search has servers"
    return found


def test_a_worker_that_dies_fails_its_trial_alone(slow_space: Path, store: Store, start: Any) -> None:
    process = start("run", slow_space, "--store", store.root, "--num-trials", 3, "--set", "epochs=12")
    wait_until(lambda: num_epochs(store) > 1)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "ImplicitFunc" in p.name()]
    workers = workers or [
        p for p in psutil.Process(process.pid).children(recursive=True) if "ImplicitFunc" in " ".join(p.cmdline())
    ]
    workers[0].kill()
    stdout, stderr = process.communicate(timeout=200)
    trials = read_record(store)["tiny"]
    assert Counter(trial.state for trial in trials)["failed"] == 1
    assert all(trial.is_over for trial in trials)
    failed = next(trial for trial in trials if trial.state == "failed")
    assert failed.error
    assert children_states(store)[failed.number] == ("FAILED", "failed")
    shown = run("report", "tiny", "--store", store.root, "--trial", failed.number)
    assert "died" in shown.stdout
    assert process.returncode == (1 if failed.is_baseline else 0), stdout + stderr
