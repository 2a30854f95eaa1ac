"""A real search whose trials are paused and taken up again, over Ctrl-C, `kill -9`, and the death of a worker."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from agreement import disagreements
from helpers.command_line import PATIENCE, Call, Start, trials_of, wait_until
from mlflow.tracking import MlflowClient

from cifar_tune.store import STATE, Store, open_store
from cifar_tune.trials.facts import RUNGS, STOPPED_AT, WORKER
from cifar_tune.trials.trial import Trial

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet", "width": 0.25}, optimizer={"name": "adam", "lr": 0.003},
    schedule={"name": "constant"}, epochs=8, batch_size=32, train_images=64,
)


def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-5, 1e-1, log=True)})


SEARCH = Search(num_trials=1000, scheduler={"name": "asha-promotion"})
"""
TABLE = {  # a state of the report, in Optuna and in MLflow
    "completed": ("COMPLETE", "FINISHED"),
    "diverged": ("COMPLETE", "FINISHED"),
    "interrupted": ("RUNNING", "KILLED"),
    "paused": ("RUNNING", "SCHEDULED"),
    "pruned": ("PRUNED", "FINISHED"),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def paused(store: Store) -> dict[int, Trial]:
    return {trial.number: trial for trial in trials_of(store, "tiny") if trial.state == "paused"}


def num_taken_up(store: Store) -> int:
    """How often a trial went on from a rung at which it was paused."""
    return sum(len(trial.facts.get(RUNGS, ())) for trial in trials_of(store, "tiny") if not trial.is_baseline)


def workers_of(store: Store, since: int) -> list[int]:
    """The processes that trained the trials from this number on."""
    facts = [trial.facts for trial in trials_of(store, "tiny")[since:]]
    return [int(each[WORKER].rpartition(":")[2]) for each in facts if WORKER in each]


def assert_all_agree(store: Store, call: Call) -> list[dict[str, Any]]:
    """The rows of the report, after the state of each was compared with Optuna and MLflow."""
    rows = json.loads(call("report", "tiny", "--store", store.root, "--format", "json").stdout)
    trials = optuna.load_study(study_name="tiny", storage=store.optuna_url).trials
    client = MlflowClient(store.mlflow_url)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    by_trial = {int(number): run for run in runs if (number := run.data.tags.get("cifar_tune.trial"))}
    for row in rows:
        trial, run = trials[row["trial"]], by_trial[row["trial"]]
        assert (trial.state.name, run.info.status) == TABLE[row["state"]]
        assert trial.user_attrs["state"] == run.data.tags["cifar_tune.state"] == row["state"]
        assert row["mlflow_run_id"] == run.info.run_id
        assert run.data.metrics.get("val_accuracy") == row["val_accuracy"]
    return list(rows)


def test_paused_trials_go_on_after_ctrl_c_after_kill_9_and_where_a_worker_dies(
    tmp_path: Path, store: Store, start: Start, call: Call
) -> None:
    (tmp_path / "tiny.py").write_text(SPACE)
    arguments = ("run", tmp_path / "tiny.py", "--store", store.root, "--cpus-per-trial", 1, "--max-concurrent", 2)

    search = start(*arguments)
    wait_until(lambda: search.poll() is not None or (len(paused(store)) > 2 and num_taken_up(store) > 2))
    os.killpg(search.pid, signal.SIGINT)
    _, stderr = search.communicate(timeout=PATIENCE)
    assert search.returncode == 130, stderr
    assert "paused at" in stderr
    rows = assert_all_agree(store, call)
    assert {"completed", "paused"} <= {row["state"] for row in rows}
    before = paused(store)
    assert all((store.trial("tiny", number) / STATE).exists() for number in before)
    assert f"{len(before)} paused" in call("report", "tiny", "--store", store.root).stdout

    killed = start(*arguments)
    taken_up = num_taken_up(store)
    wait_until(lambda: killed.poll() is not None or num_taken_up(store) > taken_up + 2)
    killed.kill()
    killed.communicate()
    waiting, begun = paused(store), trials_of(store, "tiny")
    assert waiting
    assert {trial.state for trial in begun} <= set(TABLE) - {"pruned"}, "the search is not over"
    assert all(trial.curve[: len(old.curve)] == old.curve for n, old in before.items() for trial in [begun[n]])

    last = start(*arguments, "--num-trials", len(begun) + 4)
    wait_until(lambda: last.poll() is not None or bool(workers_of(store, since=len(begun))))
    psutil.Process(workers_of(store, since=len(begun))[-1]).kill()
    _, stderr = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0, stderr
    rows = assert_all_agree(store, call)
    assert {"completed", "pruned"} <= {row["state"] for row in rows} <= {"completed", "pruned", "diverged"}
    assert disagreements(store, "tiny", len(begun) + 4) == []
    assert not list(store.search("tiny").rglob(STATE))
    after = trials_of(store, "tiny")
    assert all(after[n].curve[: len(old.curve)] == old.curve for n, old in waiting.items()), "nothing is trained twice"
    assert all(trial.facts[STOPPED_AT] in (0.25, 0.5) for trial in after if trial.state == "pruned")
    assert any(trial.state == "completed" and set(trial.facts[RUNGS]) == {"2", "4"} for trial in after[1:])

    deleted = call("delete", "tiny", "--store", store.root, "--yes")
    assert deleted.code == 0, deleted.stderr
    assert trials_of(store, "tiny") == []
