"""A search with a trial in every state: Optuna, MLflow and the report agree about all of them."""

import json
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.command_line import PATIENCE, Call, Start, by_optuna, trials_of, wait_until
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from cifar_tune.store import Store, open_store
from cifar_tune.trials.trial import curve_of

# Baselines are never pruned, so each ends as its recipe makes it; sampled recipes learn little and are pruned.
SPACE = """
from cifar_tune import Recipe, Search

GOOD = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet", "width": 0.25},
    optimizer={"name": "sgd", "lr": 0.1},
    schedule={"name": "constant"},
    epochs=10,
    batch_size=32,
    train_images=128,
)
PATIENCE = {"early_stopping/name": "patience", "early_stopping/patience": 1}
SECOND_PHASE = {"finetune/name": "two-phase", "finetune/head_epochs": 1, "finetune/lr": 1e38}
BASELINES = [
    GOOD,
    GOOD.replace({"optimizer/lr": 1e-9, **PATIENCE}),
    GOOD.replace({"optimizer/lr": 0.05, **SECOND_PHASE}),
    GOOD.replace({"optimizer/lr": 0.04, "model/width": 1e12}),  # its first layer has more bytes than an address space
]
OF_RATE = {recipe.optimizer.lr: recipe for recipe in BASELINES}


def space(trial):
    lr = trial.suggest_float("optimizer/lr", 1e-9, 0.1, log=True)
    if getattr(trial, "number", None) == 4:  # the first that the sampler draws; the size of its layers overflows
        return GOOD.replace({"optimizer/lr": lr, "model/width": 1e16})
    return OF_RATE.get(lr) or GOOD.replace({"optimizer/lr": lr})


SEARCH = Search(scheduler={"name": "asha", "rungs": (0.5,), "keep": 0.1, "let_through": 0})
"""
FAILS = 4  # the number of the trial whose network cannot be built

TABLE = {  # a state of the report, in Optuna and in MLflow
    "completed": ("COMPLETE", "FINISHED"),
    "stopped early": ("COMPLETE", "FINISHED"),
    "pruned": ("PRUNED", "FINISHED"),
    "diverged": ("COMPLETE", "FINISHED"),
    "out of memory": ("COMPLETE", "FINISHED"),
    "failed": ("FAIL", "FAILED"),
    "interrupted": ("RUNNING", "KILLED"),
}
ENDS = set(TABLE) - {"interrupted"}
CHANCE = 0.1


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def has_every_end(store: Store) -> bool:
    """Whether there is a trial in every final state, and one in the middle of its training."""
    trials = trials_of(store, "tiny")
    is_in_the_middle = any(trial.state == "running" and trial.epochs for trial in trials)
    return {trial.state for trial in trials} >= ENDS and is_in_the_middle


def runs_in_mlflow(store: Store) -> dict[int | None, Run]:
    """The runs by trial number, the search's under None; each trial has one."""
    client = MlflowClient(store.mlflow_url)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    by_number = {int(n) if (n := run.data.tags.get("cifar_tune.trial")) else None: run for run in runs}
    assert len(by_number) == len(runs), "a trial has two runs"
    return by_number


def over(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The rows of trials in a final state, by number."""
    return {row["trial"]: row for row in rows if row["state"] != "interrupted"}


def assert_all_agree(store: Store, call: Call) -> list[dict[str, Any]]:
    """The rows of the report without their ranks, after each was compared with Optuna and MLflow."""
    rows = json.loads(call("report", "tiny", "--store", store.root, "--format", "json").stdout)
    rows = sorted(({**row, "rank": None} for row in rows), key=lambda row: int(row["trial"]))
    table = call("report", "tiny", "--store", store.root).stdout
    study = optuna.load_study(study_name="tiny", storage=store.optuna_url)
    in_optuna = {trial["number"]: trial for trial in by_optuna(store, "trials", "--study-name", "tiny")}
    shown = runs_in_mlflow(store)
    numbers = [row["trial"] for row in rows]
    assert numbers == sorted(in_optuna) == sorted(number for number in shown if number is not None)
    for row in rows:
        number, state = row["trial"], row["state"]
        assert re.search(rf"^ *\d+ +{number} +{state} ", table, re.MULTILINE), table
        assert (in_optuna[number]["state"], shown[number].info.status) == TABLE[state]
        assert in_optuna[number]["user_attrs"]["state"] == shown[number].data.tags["cifar_tune.state"] == state
        assert row["mlflow_run_id"] == shown[number].info.run_id
        assert_same_scores(row, study.trials[number], shown[number], store)
    return rows


def assert_same_scores(row: Mapping[str, Any], trial: optuna.trial.FrozenTrial, run: Run, store: Store) -> None:
    curve = [epoch["val_accuracy"] for epoch in curve_of(trial.user_attrs)]
    assert row["epochs"] == len(curve)
    is_patient = row["recipe"]["early_stopping"]["name"] == "patience"
    so_far = [max(curve[: n + 1]) if is_patient else curve[n] for n in range(len(curve))]
    assert trial.intermediate_values == dict(enumerate(so_far, start=1))
    if row["state"] in ("diverged", "out of memory"):
        assert row["val_accuracy"] == trial.value == run.data.metrics["val_accuracy"] == CHANCE
    elif row["state"] == "failed":
        assert (row["val_accuracy"], trial.value) == (None, None)
    else:
        assert row["val_accuracy"] == (so_far[-1] if so_far else None)
        assert trial.value == (None if row["state"] == "interrupted" else so_far[-1])
        assert run.data.metrics.get("val_accuracy") == row["val_accuracy"]
    history = MlflowClient(store.mlflow_url).get_metric_history(run.info.run_id, "train_loss")
    assert [metric.value for metric in history] == [epoch["train_loss"] for epoch in curve_of(trial.user_attrs)]
    assert all(value == value and abs(value) != float("inf") for value in run.data.metrics.values())


def assert_causes_are_shown(store: Store, call: Call) -> None:
    """`report --trial N` and MLflow show why a trial broke down."""
    reports = {number: call("report", "tiny", "--store", store.root, "--trial", number).stdout for number in range(5)}
    tags = {number: run.data.tags for number, run in runs_in_mlflow(store).items()}
    trials = trials_of(store, "tiny")
    step = trials[2].facts["diverged_at_step"]
    assert 4 <= step < 8, "the first epoch, of four steps, trained only the head at a moderate learning rate"
    assert trials[2].epochs == 1
    assert re.search(rf"diverged_at_step +{step}\b", reports[2])
    assert tags[2]["diverged_at_step"] == str(step)
    peak = trials[3].facts["peak_memory_bytes"]
    assert peak > 2**20
    assert re.search(r"peak_memory_bytes +[\d,]+", reports[3])
    assert tags[3]["peak_memory_bytes"] == str(peak)
    assert "Storage size calculation overflowed" in reports[FAILS]
    assert "Storage size calculation overflowed" in tags[FAILS]["error"]


@pytest.mark.slow
def test_optuna_mlflow_and_the_report_agree_about_every_state_until_the_search_is_deleted(
    tmp_path: Path, store: Store, start: Start, call: Call
) -> None:
    space = tmp_path / "tiny.py"
    space.write_text(SPACE)
    arguments = ("run", space, "--store", store.root, "--cpus-per-trial", 1, "--num-trials")

    search = start(*arguments, 1000)
    wait_until(lambda: has_every_end(store))
    (study,) = by_optuna(store, "studies")
    trials = by_optuna(store, "trials", "--study-name", "tiny")
    assert search.poll() is None, "it runs, and Optuna's command reads its record"
    assert (study["name"], study["n_trials"] <= len(trials)) == ("tiny", True)
    assert "RUNNING" in {trial["state"] for trial in trials}
    os.killpg(search.pid, signal.SIGINT)
    _, stderr = search.communicate(timeout=PATIENCE)
    assert search.returncode == 130, stderr

    before = assert_all_agree(store, call)
    assert {row["state"] for row in before} == set(TABLE)
    assert runs_in_mlflow(store)[None].info.status == "KILLED"
    assert_causes_are_shown(store, call)

    resumed = call(*arguments, len(before))
    assert resumed.code == 0, resumed.stderr
    after = assert_all_agree(store, call)
    assert {row["state"] for row in after} == ENDS
    assert len(after) == len(before)
    assert {row["trial"]: row for row in after if row["trial"] in over(before)} == over(before)
    assert runs_in_mlflow(store)[None].info.status == "FINISHED"
    assert_causes_are_shown(store, call)
    (weights,) = store.search("tiny").rglob("*.safetensors")
    assert str(weights) in resumed.stdout
    assert not list(store.search("tiny").rglob("state.pt"))

    larger = call(*arguments, 1000, "--time-budget", "3s")
    assert larger.code == 0, larger.stderr
    assert "The time budget is used up. To resume: cifar-tune run" in " ".join(larger.stderr.split())
    more = assert_all_agree(store, call)
    assert len(after) < len(more) < 1000
    assert [row["recipe"] for row in more[: len(after)]] == [row["recipe"] for row in after]

    deleted = call("delete", "tiny", "--store", store.root, "--yes")
    assert deleted.code == 0, deleted.stderr
    assert not store.search("tiny").exists()
    assert runs_in_mlflow(store) == {}
    assert call("report", "tiny", "--store", store.root).code == 2
