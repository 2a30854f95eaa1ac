"""`confirm` through the command line: real Ray, Optuna and MLflow on tiny trials of the built-in data set."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import Call, Start, by_optuna, wait_until
from mlflow.tracking import MlflowClient

from cifar_tune.confirm import render
from cifar_tune.confirmation import judge, read_confirmation
from cifar_tune.recipe import Recipe
from cifar_tune.report import headline, leaderboard
from cifar_tune.search.record import read_record
from cifar_tune.search.reruns import Design, read_design, read_runs
from cifar_tune.search.trial import RERUN_OF, SEED, State, Trial
from cifar_tune.store import HITS, Store

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet"},
    optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "constant"},
    epochs=2,
    batch_size=32,
    train_images=64,
)


def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)})


SEARCH = Search(num_trials=3, scheduler={"name": "none"})
"""
RECIPE = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet"},
    optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "constant"},
    epochs=1,
    batch_size=32,
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a search of three trials."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "tiny.py").write_text(SPACE, encoding="utf-8")
    from cifar_tune.cli import app

    app(["run", str(folder / "tiny.py"), "--store", str(folder / "store")], standalone_mode=False)
    return folder / "store"


@pytest.fixture
def store(searched: Path, tmp_path: Path) -> Store:
    """A copy of it."""
    shutil.copytree(searched, tmp_path / "store")
    return Store(tmp_path / "store")


def test_finalists_are_trained_again_paired_and_told_with_their_intervals(store: Store, call: Call) -> None:
    arguments = ("confirm", "tiny", "--store", store.root, "--top", 1, "--seeds", 2)
    answer = call(*arguments)
    assert answer.code == 0, answer.stderr
    design, runs = read_design(store, "tiny", "confirm", 1), read_runs(store, "tiny", "confirm", 1)
    assert [run.params for run in runs] == list(design.runs())
    assert {run.recipe.seed for run in runs} == {1, 2}
    assert {run.state for run in runs} == {"completed"}
    (finalist,) = design.finalists
    trials = read_record(store)["tiny"]
    assert trials[finalist].val_accuracy == max(trial.val_accuracy or 0 for trial in trials[1:])
    for run in runs:
        assert run.recipe.model_copy(update={"seed": 0}) == trials[run.params[RERUN_OF]].recipe
        hits = np.load(store.trial(run.search, run.number) / HITS)
        assert hits.mean() == pytest.approx(run.val_accuracy, abs=1e-7)
    assert sorted(path.name for path in store.search("tiny/confirm-1").rglob("*.*")) == [HITS] * 4

    found = read_confirmation(store, "tiny")
    assert found is not None
    gain = found.gain(finalist)
    assert gain is not None
    scores = {(run.params[RERUN_OF], run.params[SEED]): run.val_accuracy or 0.0 for run in runs}
    assert gain.mean == pytest.approx(np.mean([scores[finalist, seed] - scores[0, seed] for seed in (1, 2)]))
    assert f"{gain.verdict}, {100 * gain.mean:+.2f} points" in answer.stdout
    assert "share one validation split" in " ".join(answer.stdout.split())

    again = call(*arguments)
    assert (again.code, again.stdout) == (0, answer.stdout)
    assert len(read_runs(store, "tiny", "confirm", 1)) == 4
    assert_report_has_the_verdict(store, call, finalist, gain.verdict)
    assert_mlflow_has_the_runs(store)
    assert {study["name"] for study in by_optuna(store, "studies")} == {"tiny", "tiny/confirm-1"}


def assert_report_has_the_verdict(store: Store, call: Call, finalist: int, verdict: str) -> None:
    rows = {row["trial"]: row for row in json.loads(call("report", "--store", store.root, "--format", "json").stdout)}
    assert rows[finalist]["verdict"] == verdict
    assert rows[finalist]["gain_low"] < rows[finalist]["confirmed_gain"] < rows[finalist]["gain_high"]
    assert rows[0]["verdict"] is None
    (other,) = {1, 2} - {finalist}
    assert (rows[other]["verdict"], rows[other]["confirmed_gain"]) == ("unconfirmed", None)
    table = call("report", "--store", store.root).stdout
    assert verdict in table
    assert "share one validation split" in " ".join(table.split())


def assert_mlflow_has_the_runs(store: Store) -> None:
    client = MlflowClient(store.mlflow_url)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    (parent,) = [run for run in runs if run.info.run_name == "tiny/confirm-1"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 4
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert {run.data.params["seed"] for run in children} == {"1", "2"}


def test_a_confirmation_that_is_killed_goes_on_and_another_has_other_seeds(
    store: Store, start: Start, call: Call
) -> None:
    arguments = ("confirm", "tiny", "--store", store.root, "--top", 1, "--seeds", 2)
    for least in (0, 3):  # killed while its first runs start, and in the middle
        process = start(*arguments)
        wait_until(lambda least=least: num_epochs(store) >= least)  # type: ignore[misc]
        process.kill()
        process.wait()
    assert call("report", "--store", store.root).code == 0
    last = call(*arguments)
    assert last.code == 0, last.stderr
    runs = read_runs(store, "tiny", "confirm", 1)
    assert [run.params for run in runs] == list(read_design(store, "tiny", "confirm", 1).runs())
    assert all([epoch["epoch"] for epoch in run.curve] == [1, 2] for run in runs)

    refused = call(*arguments[:-1], 3)
    assert refused.code == 2
    assert "--top 1 --seeds 2" in refused.stderr
    assert call(*arguments, "--again").code == 0
    assert read_design(store, "tiny", "confirm", 2).seeds == (3, 4)
    found = read_confirmation(store, "tiny")
    assert found is not None
    assert found.count == 2

    assert call("delete", "tiny", "--store", store.root, "--yes").code == 0
    assert by_optuna(store, "studies") == []
    assert not store.search("tiny").exists()


def num_epochs(store: Store) -> int:
    """Of all runs; none as long as there is no confirmation."""
    try:
        return sum(run.epochs for run in read_runs(store, "tiny", "confirm", 1))
    except KeyError:
        return -1


def test_an_unknown_search_is_refused(store: Store, call: Call) -> None:
    answer = call("confirm", "tiny2", "--store", store.root)
    assert answer.code == 2
    assert "the nearest is tiny" in answer.stderr


def test_other_data_than_the_searchs_is_refused(store: Store, call: Call) -> None:
    from cifar_tune.search.storage import open_storage

    storage = open_storage(store)
    study_id = storage.get_study_id_from_name("tiny")
    storage.set_study_user_attr(study_id, "data", "another digest")
    answer = call("confirm", "tiny", "--store", store.root)
    assert answer.code == 2
    assert "begun with other data" in answer.stderr


# Without training: what is made of the runs


def design(top: int = 2) -> Design:
    recipes = {number: RECIPE.replace({"optimizer/lr": 0.01 * (1 + number)}) for number in (0, 7, 4)}
    return Design(0, top, (1, 2, 3), recipes)


def runs_of(design: Design, states: dict[int, State] | None = None) -> list[Trial]:
    return [
        Trial("tiny/confirm-1", i, (states or {}).get(i, "completed"), RECIPE, params, False)
        for i, params in enumerate(design.runs())
    ]


def hits_of(runs: list[Trial], shares: dict[int, float]) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    return {run.number: rng.random(2_000) < shares[run.params[RERUN_OF]] for run in runs if run.is_complete}


def test_a_large_gain_is_real_and_none_is_tied() -> None:
    runs = runs_of(design())
    found = judge(1, design(), runs, hits_of(runs, {0: 0.5, 7: 0.9, 4: 0.5}))
    assert [found.confirmed[number].gain.verdict for number in (7, 4)] == ["real", "tied"]  # type: ignore[union-attr]
    assert found.confirmed[0].gain is None
    assert found.confirmed[7].low < found.confirmed[7].mean < found.confirmed[7].high


def test_a_finalist_that_broke_down_is_not_judged_and_the_others_are() -> None:
    runs = runs_of(design(), {4: "diverged"})  # the second run of trial 7
    found = judge(1, design(), runs, hits_of(runs, {0: 0.5, 7: 0.9, 4: 0.6}))
    assert found.broken == {7: "diverged with seed 2"}
    assert found.gain(7) is None
    assert found.gain(4) is not None


def test_without_the_baseline_nobody_is_judged() -> None:
    runs = runs_of(design(), {0: "failed"})
    found = judge(1, design(), runs, hits_of(runs, {0: 0.5, 7: 0.9, 4: 0.6}))
    assert found.gain(7) is None
    assert found.broken == {0: "failed with seed 1"}


def test_what_a_confirmation_found_is_in_the_table_the_leaderboard_and_the_headline() -> None:
    runs = runs_of(design())
    found = judge(1, design(), runs, hits_of(runs, {0: 0.5, 7: 0.9, 4: 0.5}))
    curve = [{"epoch": 1, "val_accuracy": 0.8, "seconds": 1.0}]
    trials = [Trial("tiny", number, "completed", RECIPE, {}, number == 0, curve) for number in range(8)]
    trials[7] = replace(trials[7], curve=[{"epoch": 1, "val_accuracy": 0.95, "seconds": 1.0}])
    frame = leaderboard({"tiny": trials}, {"tiny": found})
    verdicts = dict(zip(frame["trial"], frame["verdict"], strict=True))
    assert (verdicts[7], verdicts[4], verdicts[3]) == ("real", "tied", "unconfirmed")
    assert pd.isna(verdicts[0])
    assert "Again with 3 fresh seeds: real, +39.68 points" in headline(trials, None, found)
    table, _ = render(found, trials)
    assert table.row_count == 3


def test_a_design_is_read_as_it_was_written() -> None:
    assert Design.loads(design().dumps()) == design()
