"""`--extend`: a new search that learns from an old one's results, in real Optuna studies, and once through Ray."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import optuna
import pytest
from helpers.command_line import Call
from helpers.records import RISING, accuracies, driver_of, train, train_by_rate, written
from mlflow.tracking import MlflowClient

from cifar_tune.data.datasets import load_training_data
from cifar_tune.errors import UserError
from cifar_tune.report.sentences import headline
from cifar_tune.search.driver import Driver
from cifar_tune.search.extend import check_extends, extend
from cifar_tune.search.identity import open_record
from cifar_tune.search.record import Record
from cifar_tune.search.search import SamplerName
from cifar_tune.store import Store
from cifar_tune.trials.reading import PRIOR, Extension, delete_record, read_record
from cifar_tune.trials.trial import Trial

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet", "width": 0.25}, optimizer={"name": "sgd", "lr": 0.1},
    schedule={"name": "constant"}, epochs=4, batch_size=32, train_images=64,
)

def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-3, 1.0, log=True)})

SEARCH = Search(num_trials=4, scheduler={"name": "asha", "rungs": (0.5,), "let_through": 0})
"""
# Half of the old range, and a dimension more.
OTHER = SPACE.replace("1e-3, 1.0", "0.03, 1.0").replace(
    "log=True)})", 'log=True), "optimizer/momentum": trial.suggest_float("optimizer/momentum", 0.5, 0.99)})'
)
ALL_FIT = SPACE.replace("1e-3", "0.03")
TWO_BASELINES = OTHER + 'BASELINES = [BASELINE, BASELINE.replace({"optimizer/lr": 0.3})]\n'

Open = Callable[..., Record]


@pytest.fixture
def opened(store: Store, tmp_path: Path) -> Open:
    """Open a search by its name, as a new process would."""

    def open_named(name: str, text: str = OTHER, settings: dict[str, str] | None = None) -> Record:
        return open_record(store, name, written(tmp_path, text, settings), 0)

    return open_named


@pytest.fixture
def old(opened: Open) -> list[Trial]:
    """Trials of a search `old`: one in each state, most on either side of 0.03, the low end of the other space."""
    driver = driver_of(opened("old", SPACE))
    for curve in (RISING, *[(0.6, 0.6, 0.6, 0.6), (0.1, 0.1, 0.1, 0.1)] * 5):
        train(driver, curve)
    driver.finish(driver.next_trial().number, "failed", error="KeyError")
    driver.finish(driver.next_trial().number, "diverged", facts={"diverged_at_step": 3})
    driver.next_trial()
    driver.interrupt()
    return driver.record.trials()


def extended(store: Store, record: Record, old: str = "old") -> Record:
    check_extends(record, store, old)
    extend(record, store, old)
    return record


def fitting(trials: list[Trial]) -> list[Trial]:
    """The results whose learning rate lies in the other space's range."""
    inside = [trial for trial in trials if trial.recipe.optimizer.lr >= 0.03]
    return [trial for trial in inside if trial.state not in ("failed", "interrupted")]


def test_the_results_that_fit_are_taken_over_whole(store: Store, opened: Open, old: list[Trial]) -> None:
    record = extended(store, opened("new"))
    taken, expected = record.prior_trials(), fitting(old)
    assert {"completed", "pruned"} <= {trial.state for trial in expected}
    assert [(t.recipe, t.state, t.curve, t.facts) for t in taken] == [
        (t.recipe, t.state, t.curve, t.facts) for t in expected
    ]
    theirs = optuna.load_study(study_name="old", storage=store.optuna_url).trials
    for trial, source in zip(taken, expected, strict=True):
        ours, its = record.study.trials[trial.number], theirs[source.number]
        assert (ours.state, ours.value, ours.intermediate_values) == (its.state, its.value, its.intermediate_values)
        assert ours.user_attrs[PRIOR] == {"search": "old", "number": source.number}
        assert ours.params == {"optimizer/lr": its.params["optimizer/lr"], "optimizer/momentum": 0.9}
        assert ours.datetime_complete == its.datetime_complete


def test_results_that_are_taken_over_are_counted_in_the_report(store: Store, opened: Open, old: list[Trial]) -> None:
    record = extended(store, opened("new"))
    num_results = sum(trial.state not in ("failed", "interrupted") for trial in old)
    assert record.extension == Extension("old", len(fitting(old)), num_results)
    sentence = f"It was seeded with {len(fitting(old))} of {num_results} results of old."
    assert sentence in headline(record.trials(), record.extension)


def test_results_that_are_taken_over_are_no_trials_of_the_new_search(
    store: Store, opened: Open, old: list[Trial]
) -> None:
    record = extended(store, opened("new", TWO_BASELINES))
    assert (record.trials(), record.num_started, record.num_left(4)) == ([], 0, 4)
    driver = driver_of(record, num_trials=4)
    numbers = [train(driver, RISING) for _ in range(4)]
    assert driver.is_over
    after = 2 + len(fitting(old))
    assert numbers == [0, 1, after, after + 1], "the baselines are still the first"
    assert [trial.number for trial in read_record(store, ["new"])["new"]] == numbers
    assert [trial.is_baseline for trial in record.trials()] == [True, True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("best", [0.05, 0.6])
def test_the_sampler_learns_from_the_results_that_are_taken_over(store: Store, opened: Open, best: float) -> None:
    """Without results to learn from, the first ten trials would be random."""
    old = driver_of(opened("old", ALL_FIT))
    for _ in range(16):
        train_by_rate(old, best)
    new = driver_of(extended(store, opened("new")))
    rates = [train_by_rate(new, best) for _ in range(9)][1:]
    assert best / 2 < statistics.median(rates) < 2 * best


@pytest.mark.slow
@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_every_sampler_continues_from_the_results_that_are_taken_over(
    store: Store, opened: Open, sampler: SamplerName
) -> None:
    old = driver_of(opened("old", ALL_FIT))
    for _ in range(16):
        train_by_rate(old, 0.3)
    new = driver_of(extended(store, opened("new", OTHER.replace("Search(", f"Search(sampler={sampler!r}, "))))
    assert [0.03 <= train_by_rate(new, 0.3) <= 1 for _ in range(3)] == [True] * 3


def test_the_scheduler_learns_from_the_results_that_are_taken_over(store: Store, opened: Open) -> None:
    old = driver_of(opened("old", ALL_FIT))
    for _ in range(4):
        train(old, (0.6, 0.6, 0.6, 0.6))
    new = driver_of(extended(store, opened("new")))
    train(new, RISING)
    train(new, (0.5, 0.5, 0.5, 0.5))  # the best of the new search
    assert [trial.state for trial in new.record.trials()] == ["completed", "pruned"]


def test_a_search_is_continued_with_or_without_extend_on_the_command_line(
    store: Store, opened: Open, old: list[Trial]
) -> None:
    first = extended(store, opened("new"))
    train(driver_of(first), RISING)
    delete_record(store, "old")
    again = extended(store, opened("new"))
    assert again.prior_trials() == first.prior_trials()
    silent = opened("new")
    assert (silent.extension, silent.num_started) == (first.extension, 1)
    assert train(driver_of(silent), RISING) == 1 + len(first.prior_trials())


def test_taking_over_results_is_completed_after_an_interruption(store: Store, opened: Open, old: list[Trial]) -> None:
    whole = extended(store, opened("whole"))
    record = opened("new")
    record.add_finished(whole.study.trials[1:3])
    record = extended(store, opened("new"))
    assert [trial.recipe for trial in record.prior_trials()] == [trial.recipe for trial in whole.prior_trials()]


def test_a_result_that_the_old_search_took_over_itself_keeps_its_origin(
    store: Store, opened: Open, old: list[Trial]
) -> None:
    middle = extended(store, opened("middle"))
    train(driver_of(middle), RISING)
    last = extended(store, opened("last"), "middle")
    origins = [trial.user_attrs[PRIOR] for trial in last.study.trials[1:]]
    assert {"search": "middle", "number": 0} in origins
    assert {origin["search"] for origin in origins} == {"old", "middle"}
    assert len(origins) == len(fitting(old)) + 1


def test_a_search_that_was_started_otherwise_is_no_extension(store: Store, opened: Open, old: list[Trial]) -> None:
    train(driver_of(opened("plain")), RISING)
    with pytest.raises(UserError, match="plain was started without --extend"):
        check_extends(opened("plain"), store, "old")
    train(driver_of(extended(store, opened("new"))), RISING)
    with pytest.raises(UserError, match="new was started with --extend old"):
        check_extends(opened("new"), store, "plain")


def test_an_unknown_old_search_is_refused_with_the_nearest(store: Store, opened: Open, old: list[Trial]) -> None:
    with pytest.raises(UserError, match=r"'oold'.*nearest is old"):
        check_extends(opened("new"), store, "oold")


@pytest.mark.parametrize("setting", ["dataset=cifar10", "train_images=80", "seed=1"])
def test_another_task_is_refused_in_a_sentence(store: Store, opened: Open, old: list[Trial], setting: str) -> None:
    name, value = setting.split("=")
    record = opened("new", settings={name: value})
    with pytest.raises(UserError, match=rf"^{name} is {value} here but was \w+ there, so scores of old cannot"):
        extend(record, store, "old")
    assert (record.extension, record.prior_trials()) == (None, [])


def test_other_images_or_weights_are_refused_in_a_sentence(store: Store, opened: Open, old: list[Trial]) -> None:
    opened("old", SPACE).check_unchanged("data", "a")
    opened("old", SPACE).check_unchanged("weights", {"w.pt": "1", "v.pt": "2"})
    record = opened("new")
    record.check_unchanged("data", "b")
    with pytest.raises(UserError, match="images are not the same"):
        extend(record, store, "old")
    other = opened("other")
    other.check_unchanged("data", "a")
    other.check_unchanged("weights", {"w.pt": "3", "u.pt": "4"})
    with pytest.raises(UserError, match=r"weights w\.pt are not the same file"):
        extend(other, store, "old")


def test_a_search_cannot_extend_itself(tmp_path: Path, call: Call) -> None:
    written(tmp_path, OTHER)
    answer = call("run", tmp_path / "tiny.py", "--store", tmp_path / "store", "--extend", "tiny")
    assert answer.code == 2
    assert "cannot extend itself" in answer.stderr


@pytest.mark.slow
def test_a_search_that_extends_another_runs_and_shows_its_own_trials_alone(
    tmp_path: Path, store: Store, opened: Open, call: Call
) -> None:
    data = load_training_data("shapes", train_images=64, data_dir=None, store=store.root)
    record = opened("old", SPACE)
    record.check_unchanged("data", data.digest)
    driver = Driver(record, 4, [])
    for _ in range(4):
        train(driver, (0.9, 0.9, 0.9, 0.9))

    path = written(tmp_path, OTHER).path
    answer = call("run", path, "--store", store.root, "--num-trials", 2, "--extend", "old")
    assert answer.code == 0, answer.stderr
    new = opened("tiny")
    extension = f"{len(new.prior_trials())} of 4 results of old"
    assert f"{extension} fit the new space" in answer.stderr
    assert new.prior_trials()
    assert "Best of 2 trials" in answer.stdout
    assert f"seeded with {extension}" in answer.stdout
    assert f"seeded with {extension}" in call("report", "tiny", "--store", store.root).stdout
    rows = json.loads(call("report", "tiny", "--store", store.root, "--format", "json").stdout)
    assert sorted(row["trial"] for row in rows) == [trial.number for trial in new.trials()]
    assert max(trial.score or 0 for trial in new.trials()) < 0.9, "the score of a real network"
    assert len(list(store.search("tiny").rglob("*.safetensors"))) == 1

    client = MlflowClient(store.mlflow_url)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    shown = [run.data.tags.get("cifar_tune.trial") for run in client.search_runs(ids)]
    assert sorted(number for number in shown if number) == sorted(str(trial.number) for trial in new.trials())

    assert call("delete", "old", "--store", store.root, "--yes").code == 0
    assert [accuracies(trial) for trial in opened("tiny").prior_trials()] == [[0.9] * 4] * len(new.prior_trials())
