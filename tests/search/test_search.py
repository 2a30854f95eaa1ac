"""Whole searches through the command line: real Ray, Optuna and MLflow on tiny trials of the built-in data set."""

import contextlib
import ipaddress
import json
import os
import signal
from collections import Counter
from pathlib import Path

import optuna
import psutil
import pytest
from helpers.command_line import PATIENCE, Call, Start, wait_until
from mlflow.tracking import MlflowClient

from cifar_tune.errors import UserError
from cifar_tune.report.findings import read_findings
from cifar_tune.report.text import format_report
from cifar_tune.store import Store, open_store
from cifar_tune.trials.facts import EARLIER, WORKER
from cifar_tune.trials.reading import read_record

SPACE = """
from cifar_tune import Recipe, Search

GOOD = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet"},
    optimizer={"name": "sgd", "lr": 0.1},
    schedule={"name": "constant"},
    epochs=EPOCHS,
    batch_size=32,
    train_images=64,
)
BASELINES = [GOOD, GOOD.replace({"optimizer/lr": 1e38}), GOOD.replace({"optimizer/lr": 0.01})]


def space(trial):
    return GOOD.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-9, 1e38, log=True)})


SEARCH = Search(num_trials=4, scheduler={"name": "asha", "rungs": (0.5,), "let_through": 0})
"""

STATES = {  # of the report, in Optuna and in MLflow
    "completed": ("COMPLETE", "FINISHED"),
    "stopped early": ("COMPLETE", "FINISHED"),
    "pruned": ("PRUNED", "FINISHED"),
    "diverged": ("COMPLETE", "FINISHED"),
    "failed": ("FAIL", "FAILED"),
}


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
    path.write_text(SPACE.replace("EPOCHS", "10"))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def num_epochs(store: Store, name: str = "tiny") -> int:
    """Epochs in the record so far."""
    try:
        return sum(trial.epochs for trial in read_record(store, [name])[name])
    except UserError:  # not made yet
        return 0


def num_trials(store: Store, name: str = "tiny") -> int:
    """Trials that were started."""
    try:
        return len(read_record(store, [name])[name])
    except UserError:  # not made yet
        return 0


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
    report = json.loads(format_report(read_findings(store, [name]), "json"))
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


@pytest.mark.slow
def test_a_search_resumes_after_ctrl_c_and_a_killed_worker_and_continues_to_more_trials(
    slow_space: Path, store: Store, start: Start
) -> None:
    # One core a trial in both runs: an epoch that is repeated with another number of threads has other results.
    arguments = ("run", slow_space, "--store", store.root, "--cpus-per-trial", 1)
    process = start(*arguments, "--num-trials", 3)
    wait_until(lambda: process.poll() is not None or num_epochs(store) > 1)
    assert process.poll() is None, process.communicate()
    assert all(address.is_loopback for address in listening_addresses(process.pid))
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "To resume: cifar-tune run" in stderr
    states = Counter(trial.state for trial in read_record(store)["tiny"])
    assert states["running"] == 0
    assert states["interrupted"] >= 1
    assert "KILLED" in {status for status, _ in shown_states(store).values()}

    last = start(*arguments, "--num-trials", 4, "--max-concurrent", 1)
    wait_until(lambda: bool(live_workers(last.pid)))
    live_workers(last.pid)[0].kill()
    stdout, stderr = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0, stdout + stderr
    assert_each_trial_and_epoch_once(store, 4)


@pytest.mark.slow
def test_a_search_whose_driver_is_killed_three_times_completes(
    slow_space: Path, store: Store, start: Start, call: Call
) -> None:
    resources = ("--cpus-per-trial", 1, "--max-concurrent", 1)
    arguments = ("run", slow_space, "--store", store.root, "--num-trials", 3, *resources)
    for least in (0, 1, 2):  # killed while its first trial starts, and after an epoch, twice
        process = start(*arguments)
        wait_until(lambda least=least: num_trials(store) > 0 and num_epochs(store) >= least)  # type: ignore[misc]
        process.kill()
        process.wait()
    last = call(*arguments)
    assert last.code == 0, last.stderr
    assert_each_trial_and_epoch_once(store, 3)
    first = read_record(store)["tiny"][0]
    assert first.facts[EARLIER][0][WORKER] != first.facts[WORKER], "the earlier worker is lost"


def assert_each_trial_and_epoch_once(store: Store, num_trials: int) -> None:
    """The record and MLflow have each trial once and each of its epochs once."""
    assert_records_agree(store, num_trials)
    for trial in read_record(store)["tiny"]:
        if trial.state == "diverged":
            continue  # in its first epoch; MLflow has its chance accuracy
        assert [epoch["epoch"] for epoch in trial.curve] == list(range(1, trial.epochs + 1))
        assert trial.mlflow_run_id is not None
        assert metric_steps(store, trial.mlflow_run_id) == list(range(1, trial.epochs + 1))


def listening_addresses(pid: int) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses on which a process and its descendants listen."""
    addresses = set()
    for member in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = member.net_connections(kind="inet")
            addresses |= {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert addresses, "a running search has servers"
    return {ipaddress.ip_address(address.removeprefix("::ffff:")) for address in addresses}


def live_workers(pid: int) -> list[psutil.Process]:
    """The processes that train: Ray names them after what they run."""
    workers = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie, which is one
            if any("ray::ImplicitFunc" in part for part in child.cmdline()):
                workers.append(child)
    return workers
