"""Whole searches through the command line: real Ray, Optuna and MLflow on tiny trials of the built-in data set."""

import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import psutil
import pytest
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from cifar_tune.errors import UserError
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


def space(trial):
    # Half of the range diverges.
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-9, 1e38, log=True)})


SEARCH = Search(num_trials=4, rungs=(0.5,), keep=0.5)
"""

STATES = {  # of the report, in Optuna and in MLflow
    "completed": ("COMPLETE", "FINISHED"),
    "pruned": ("PRUNED", "FINISHED"),
    "diverged": ("COMPLETE", "FINISHED"),
    "failed": ("FAIL", "FAILED"),
}

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A space of trials of a few seconds."""
    path = tmp_path / "tiny.py"
    path.write_text(SPACE.replace("EPOCHS", "4"))
    return path


@pytest.fixture
def slow_space(tmp_path: Path) -> Path:
    """The same with trials long enough to be interrupted."""
    path = tmp_path / "tiny.py"
    path.write_text(SPACE.replace("EPOCHS", "16"))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cifar_tune.cli", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=240)


@pytest.fixture
def start() -> Iterator[Start]:
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
    except (UserError, SQLAlchemyError):  # not made yet, or half made
        return 0


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)


def shown_states(store: Store, name: str = "tiny") -> dict[int, tuple[str, str]]:
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
    shown = shown_states(store, name)
    report = json.loads(run("report", name, "--store", store.root, "--format", "json").stdout)
    assert sorted(row["trial"] for row in report) == list(range(num_trials)) == sorted(shown)
    for row in report:
        trial = study.trials[row["trial"]]
        optuna_state, mlflow_status = STATES[row["state"]]
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
    larger = run("run", space, "--store", store.root, "--num-trials", 6, "--max-concurrent", 1)
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
    assert shown_states(store) == {}
    assert run("report", "tiny", "--store", store.root).returncode == 2


def test_a_search_that_is_ended_in_every_way_completes_with_each_trial_once(
    slow_space: Path, store: Store, start: Start
) -> None:
    """Ctrl-C, a time budget, three kill -9 of the driver and one of a worker, and the same command each time."""
    # One core a trial throughout: an epoch that is trained again on another number of threads comes out otherwise.
    arguments = ("run", slow_space, "--store", store.root, "--num-trials", 3, "--cpus-per-trial", 1)
    process = start(*arguments)
    wait_until(lambda: num_epochs(store) > 1)
    assert all(address.is_loopback for address in listening_addresses(process.pid))
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "To go on from here: cifar-tune run" in stderr
    states = Counter(trial.state for trial in read_record(store)["tiny"])
    assert states["running"] == 0
    assert states["interrupted"] >= 1
    assert "KILLED" in {status for status, _ in shown_states(store).values()}

    arguments += ("--max-concurrent", 1)
    done = num_epochs(store)
    out_of_time = run(*arguments, "--time-budget", "1s")
    assert out_of_time.returncode == 0, out_of_time.stderr
    assert "time budget is used up" in out_of_time.stderr
    assert num_epochs(store) >= done

    for _ in range(3):
        before = num_epochs(store)
        process = start(*arguments)
        wait_until(lambda before=before: num_epochs(store) > before)  # type: ignore[misc]
        process.kill()
        process.wait()

    last = start(*arguments)
    wait_until(lambda: bool(live_workers(last.pid)))
    live_workers(last.pid)[0].kill()
    stdout, stderr = last.communicate(timeout=200)
    assert last.returncode == 0, stdout + stderr
    assert_records_agree(store, 3)
    for trial in read_record(store)["tiny"]:
        assert [epoch["epoch"] for epoch in trial.curve] == list(range(1, trial.epochs + 1))
        assert trial.mlflow_run_id is not None
        assert metric_steps(store, trial.mlflow_run_id) == list(range(1, trial.epochs + 1))


def test_what_a_trial_fails_of_is_told_and_a_search_without_its_baseline_exits_with_1(
    space: Path, store: Store
) -> None:
    in_the_way = store.trial("tiny", 0)
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("no folder: the weights cannot be saved")
    answer = run("run", space, "--store", store.root, "--num-trials", 1)
    assert answer.returncode == 1
    assert "The baseline did not complete" in answer.stderr
    assert_records_agree(store, 1)
    shown = run("report", "tiny", "--store", store.root, "--trial", 0).stdout
    assert "save_weights" in shown
    assert "FileExistsError" in shown or "NotADirectoryError" in shown


def listening_addresses(pid: int) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses that a process and all its descendants listen on."""
    found = set()
    for member in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = member.net_connections(kind="inet")
            found |= {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert found, "a running search has servers"
    return {ipaddress.ip_address(address.removeprefix("::ffff:")) for address in found}


def live_workers(pid: int) -> list[psutil.Process]:
    """The processes that train: Ray names them after what they run."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie, which is one
            if any("ray::ImplicitFunc" in part for part in child.cmdline()):
                found.append(child)
    return found
