"""`confirm` through the command line: real Ray, Optuna and MLflow on tiny trials of the built-in data set."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from helpers.command_line import GOOD, Call, Start, by_optuna, wait_until
from helpers.made_trials import RECIPE
from helpers.records import train, written
from mlflow.tracking import MlflowClient

from cifar_tune.commands.confirm import newer_finalists, render
from cifar_tune.evaluation.confirmation import _read_values, judge, read_confirmation
from cifar_tune.evaluation.reruns import Design, count_reruns, fresh_seeds, read_design, read_runs, unfinished_or_last
from cifar_tune.report.leaderboard import leaderboard
from cifar_tune.report.sentences import describe_gain, headline
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record
from cifar_tune.store import HITS, Store
from cifar_tune.tracking.runs import find_parent
from cifar_tune.training.checkpoint import save_array
from cifar_tune.training.scores import image_values
from cifar_tune.trials.facts import SMALLEST_CLASS
from cifar_tune.trials.goal import Goal
from cifar_tune.trials.ranking import best_trial
from cifar_tune.trials.reading import read_attributes, read_record
from cifar_tune.trials.storage import open_storage
from cifar_tune.trials.trial import RERUN_OF, SEED, State, Trial

SPACE = GOOD.replace("epochs=1", "epochs=2").replace("num_trials=2", 'num_trials=2, scheduler={"name": "none"}')


@pytest.fixture
def searched(store: Store, tmp_path: Path) -> Store:
    """A store with a search of hand-made scores, on no data."""
    record = open_record(store, "tiny", written(tmp_path, SPACE), seed=0)
    record.check_unchanged("data", "a digest")
    driver = Driver(record, 2, [])
    for scores in ((0.2, 0.3), (0.3, 0.5)):
        train(driver, scores)
    return store


@pytest.mark.slow
def test_finalists_are_trained_again_through_a_kill_and_shown_with_their_intervals(
    tmp_path: Path, start: Start, call: Call
) -> None:
    store, path = Store(tmp_path / "store"), tmp_path / "tiny.py"
    path.write_text(SPACE, encoding="utf-8")
    assert call("run", path, "--store", store.root).code == 0
    arguments = ("confirm", "tiny", "--store", store.root, "--top", 1, "--seeds", 2)
    process = start(*arguments)
    wait_until(lambda: num_epochs(store) >= 3)
    process.kill()
    process.wait()
    assert call("report", "--store", store.root).code == 0
    answer = call(*arguments)
    assert answer.code == 0, answer.stderr
    design, runs = read_design(store, "tiny", "confirm", 1), read_runs(store, "tiny", "confirm", 1)
    assert [run.params for run in runs] == list(design.runs())
    assert {run.recipe.seed for run in runs} == {1, 2}
    assert {run.state for run in runs} == {"completed"}
    assert all([epoch["epoch"] for epoch in run.curve] == [1, 2] for run in runs)
    (finalist,) = design.finalists
    trials = read_record(store)["tiny"]
    for run in runs:
        assert run.recipe.model_copy(update={"seed": 0}) == trials[run.params[RERUN_OF]].recipe
        hits = np.load(store.trial(run.search, run.number) / HITS)
        assert hits.mean() == pytest.approx(run.score)
    assert sorted(path.name for path in store.search("tiny/confirm-1").rglob("*.*")) == [HITS] * 4

    confirmation = read_confirmation(store, "tiny")
    assert confirmation is not None
    gain = confirmation.gains.get(finalist)
    assert gain is not None
    scores = {(run.params[RERUN_OF], run.params[SEED]): run.score or 0.0 for run in runs}
    assert gain.mean == pytest.approx(np.mean([scores[finalist, seed] - scores[0, seed] for seed in (1, 2)]))
    assert f"{gain.verdict}, {100 * gain.mean:+.2f} points" in answer.stdout
    assert "share one validation split" in " ".join(answer.stdout.split())

    shown = call(*arguments)
    assert (shown.code, shown.stdout) == (0, answer.stdout)
    assert "Starting" not in shown.stderr
    assert_report_has_the_verdict(store, call, finalist, gain.verdict)
    assert_mlflow_has_the_runs(store)
    if best_trial(trials) == trials[finalist]:
        assert_mlflow_has_the_gain(store, 100 * gain.mean)
    else:  # the baseline is the best, as on some processors it is
        assert_mlflow_has_no_gain(store)
    assert {study["name"] for study in by_optuna(store, "studies")} == {"tiny", "tiny/confirm-1"}
    assert_the_next_would_have_other_seeds(store, call, arguments)

    with store.running("tiny/confirm-1"):
        refused = call("delete", "tiny", "--store", store.root, "--yes")
    assert refused.code == 2
    assert "running in another process" in refused.stderr
    (store.trial("tiny/confirm-1", 3) / HITS).unlink()
    report = call("report", "--store", store.root)
    assert report.code == 0
    assert "not judged" in " ".join(report.stdout.split())
    assert call("delete", "tiny", "--store", store.root, "--yes").code == 0
    assert by_optuna(store, "studies") == []
    assert not store.search("tiny").exists()


def assert_mlflow_has_the_gain(store: Store, points: float) -> None:
    """On the search's own run, in figures and in words."""
    parent = find_parent(MlflowClient(store.mlflow_url), read_attributes(store, "tiny")["id"])
    assert parent.data.metrics["confirmed_gain"] == pytest.approx(points)
    assert parent.data.metrics["gain_low"] < points < parent.data.metrics["gain_high"]
    assert f"{points:+.2f} points" in parent.data.tags["mlflow.note.content"]


def assert_mlflow_has_no_gain(store: Store) -> None:
    """The gain of a finalist is not the best trial's."""
    parent = find_parent(MlflowClient(store.mlflow_url), read_attributes(store, "tiny")["id"])
    assert np.isnan(parent.data.metrics["confirmed_gain"])


def assert_report_has_the_verdict(store: Store, call: Call, finalist: int, verdict: str) -> None:
    rows = {row["trial"]: row for row in json.loads(call("report", "--store", store.root, "--format", "json").stdout)}
    assert rows[finalist]["verdict"] == verdict
    assert rows[finalist]["gain_low"] < rows[finalist]["confirmed_gain"] < rows[finalist]["gain_high"]
    assert rows[0]["verdict"] is None
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


def assert_the_next_would_have_other_seeds(store: Store, call: Call, arguments: tuple[object, ...]) -> None:
    refused = call(*arguments[:-1], 3)
    assert refused.code == 2
    assert "--top 1 --seeds 2" in refused.stderr
    assert unfinished_or_last(store, "tiny", "confirm", again=False) == 1
    assert unfinished_or_last(store, "tiny", "confirm", again=True) is None
    assert fresh_seeds(store, "tiny", read_record(store)["tiny"], 3) == (3, 4, 5)


def num_epochs(store: Store) -> int:
    """The epochs of all runs so far; -1 before there is a confirmation."""
    try:
        return sum(run.epochs for run in read_runs(store, "tiny", "confirm", 1))
    except KeyError:
        return -1


def test_an_unknown_search_is_refused(searched: Store, call: Call) -> None:
    answer = call("confirm", "tiny2", "--store", searched.root)
    assert answer.code == 2
    assert "the nearest is tiny" in answer.stderr


@pytest.mark.slow
def test_other_data_than_the_searchs_is_refused(searched: Store, call: Call) -> None:
    answer = call("confirm", "tiny", "--store", searched.root)
    assert answer.code == 2
    assert "started with other data" in answer.stderr
    assert [study["name"] for study in by_optuna(searched, "studies")] == [
        "tiny"
    ]  # nothing is left of what did not start


@pytest.mark.slow
def test_a_confirmation_that_died_before_its_first_run_is_none(searched: Store, call: Call) -> None:
    optuna.create_study(storage=open_storage(searched), study_name="tiny/confirm-1")
    assert count_reruns(searched, "tiny", "confirm") == 0
    assert call("report", "--store", searched.root).code == 0
    assert call("delete", "tiny", "--store", searched.root, "--yes").code == 0
    assert by_optuna(searched, "studies") == []


# Without training: statistics of hand-made runs


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
    confirmation = judge(1, design(), runs, hits_of(runs, {0: 0.5, 7: 0.9, 4: 0.5}))
    assert [confirmation.gains[number].verdict for number in (7, 4)] == ["real", "tied"]
    assert 0 not in confirmation.gains
    assert confirmation.scores[7].low < confirmation.scores[7].mean < confirmation.scores[7].high


def test_a_confirmation_is_of_the_score_of_its_search(tmp_path: Path) -> None:
    """The recipe of trial 7 knows the rare class and is wrong more often; the files hold the values of images."""
    store = Store(tmp_path)
    by_f1 = replace(design(), recipes={0: RECIPE, 7: RECIPE}, score="macro_f1")
    assert Design.loads(by_f1.dumps()) == by_f1
    runs = [replace(run, goal=Goal(score="macro_f1")) for run in runs_of(by_f1)]
    rng, labels = np.random.default_rng(0), np.repeat([0, 1], [900, 100])
    for run in runs:
        flips = rng.random(1000) < (0.15 if run.params[RERUN_OF] else 0.0)
        guesses = np.where(flips, 1 - labels, labels if run.params[RERUN_OF] else 0)
        save_array(store.trial(run.search, run.number) / HITS, image_values("macro_f1", guesses, labels))
    values = {run.number: _read_values(store, run) for run in runs}
    confirmation = judge(1, by_f1, runs, {number: row for number, row in values.items() if row is not None})
    assert confirmation.gains[7].verdict == "real"
    assert confirmation.scores[0].mean == pytest.approx(18 / 19 / 2)
    assert _read_values(store, replace(runs[0], goal=Goal())) is None, "these are no hits"


@pytest.mark.parametrize(("number", "is_judged"), [(10, True), (9, False), (1, False), (0, False)])
def test_a_gain_is_judged_where_each_class_has_enough_images(number: int, is_judged: bool) -> None:
    by_f1 = replace(design(), score="macro_f1")
    runs = [replace(run, goal=Goal(score="macro_f1"), facts={SMALLEST_CLASS: number}) for run in runs_of(by_f1)]
    confirmation = judge(1, by_f1, runs, hits_of(runs, {0: 0.5, 7: 0.9, 4: 0.5}))
    assert bool(confirmation.gains) == is_judged
    assert set(confirmation.scores) == {0, 7, 4}
    if not is_judged:
        images = f"the smallest class has {number:,} validation image"
        assert (confirmation.too_few or "").startswith(images)
        assert describe_gain(None, confirmation.too_few).endswith("and a gain in macro F1 needs 10")


def test_a_finalist_that_broke_down_is_not_judged_and_the_others_are() -> None:
    runs = runs_of(design(), {4: "diverged"})  # the second run of trial 7
    confirmation = judge(1, design(), runs, hits_of(runs, {0: 0.5, 7: 0.9, 4: 0.6}))
    assert confirmation.broken == {7: "diverged with seed 2"}
    assert confirmation.gains.get(7) is None
    assert confirmation.gains.get(4) is not None


def test_without_the_baseline_no_finalist_is_judged() -> None:
    runs = runs_of(design(), {0: "failed"})
    confirmation = judge(1, design(), runs, hits_of(runs, {0: 0.5, 7: 0.9, 4: 0.6}))
    assert confirmation.gains.get(7) is None
    assert confirmation.broken == {0: "failed with seed 1"}


def test_what_a_confirmation_found_is_in_the_table_the_leaderboard_and_the_headline() -> None:
    runs = runs_of(design())
    confirmation = judge(1, design(), runs, hits_of(runs, {0: 0.5, 7: 0.9, 4: 0.5}))
    curve = [{"epoch": 1, "val_accuracy": 0.8, "seconds": 1.0}]
    trials = [Trial("tiny", number, "completed", RECIPE, {}, number == 0, curve) for number in range(8)]
    trials[7] = replace(trials[7], curve=[{"epoch": 1, "val_accuracy": 0.95, "seconds": 1.0}])
    frame = leaderboard({"tiny": trials}, {"tiny": confirmation})
    verdicts = dict(zip(frame["trial"], frame["verdict"], strict=True))
    assert (verdicts[7], verdicts[4], verdicts[3]) == ("real", "tied", "unconfirmed")
    assert pd.isna(verdicts[0])
    assert "Retrained with 3 fresh seeds: real, +39.68 points" in headline(trials, None, confirmation)
    table, _ = render(confirmation, trials)
    assert table.row_count == 3


def test_the_headline_says_why_the_best_trial_was_not_judged() -> None:
    runs = runs_of(design(), {4: "diverged"})  # the second run of trial 7
    confirmation = judge(1, design(), runs, hits_of(runs, {0: 0.5, 7: 0.9, 4: 0.5}))
    curves = {0: 0.8, 7: 0.95}
    trials = [
        Trial("tiny", n, "completed", RECIPE, {}, n == 0, [{"epoch": 1, "val_accuracy": score, "seconds": 1.0}])
        for n, score in curves.items()
    ]
    assert "Fresh seeds could not judge the gain: trial 7 diverged with seed 2." in headline(trials, None, confirmation)


def test_a_design_is_read_as_it_was_written() -> None:
    assert Design.loads(design().dumps()) == design()


def test_a_finalist_that_appeared_since_is_named() -> None:
    """The search was continued after its confirmation; nothing is trained here."""
    runs = runs_of(design())
    confirmation = judge(1, design(), runs, hits_of(runs, {0: 0.5, 7: 0.9, 4: 0.5}))
    curve = [{"epoch": 1, "val_accuracy": 0.8, "seconds": 1.0}]
    trials = [
        Trial("tiny", number, "completed", design().recipes[number], {}, number == 0, curve) for number in (0, 4, 7)
    ]
    assert newer_finalists(confirmation, trials) == []
    other = Trial(
        "tiny", 9, "completed", RECIPE.replace({"optimizer/lr": 0.5}), {}, False, [{**curve[0], "val_accuracy": 0.9}]
    )
    assert newer_finalists(confirmation, [*trials, other]) == [9]
