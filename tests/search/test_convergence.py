"""A search that ends once no recipe is expected to be worth another training, without Ray."""

import math
from pathlib import Path

import pytest
from helpers.records import metrics, written

from cifar_tune.search.draws import NoTrialLeftError
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record
from cifar_tune.search.record import Record
from cifar_tune.store import Store, open_store

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.001},
                  schedule={"name": "constant"}, epochs=8, batch_size=32)


def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-1, log=True)})


SEARCH = Search(scheduler={"name": "SCHEDULER"})
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def opened(store: Store, scheduler: str = "forecast", *, until_converged: bool = True) -> Record:
    record = open_record(store, "tiny", written(store.root.parent, SPACE.replace("SCHEDULER", scheduler)), 0)
    record.ends_when_converged = until_converged
    return record


def search(record: Record, num_trials: int = 60) -> Driver:
    """Train until the search is over; the score is best, 0.9, at a learning rate of 0.01."""
    driver = Driver(record, num_trials, [])
    while not driver.is_over:
        try:
            trial = driver.next_trial()
        except NoTrialLeftError:
            break
        end = 0.9 - 0.02 * math.log10(trial.recipe.optimizer.lr / 0.01) ** 2
        for epoch in range(trial.epochs + 1, 9):
            if not driver.add_epoch(trial.number, metrics(epoch, end - 0.2 / epoch), {}):
                break
    driver.end_search()
    return driver


@pytest.mark.parametrize("scheduler", ["forecast", "freeze-thaw"])
def test_a_search_ends_when_no_recipe_is_worth_another_training(store: Store, scheduler: str) -> None:
    record = search(opened(store, scheduler)).record
    assert 10 < record.num_started < 60
    assert record.is_converged
    assert record.num_left(60) == 0
    best = max(trial.scores[-1] for trial in record.trials() if trial.is_complete)
    assert best > 0.9 - 0.2 / 8 - 0.001
    assert record.expected_gain is not None
    assert record.expected_gain < 0.001


def test_the_same_command_finds_it_complete_and_another_one_goes_on(store: Store) -> None:
    num_started = search(opened(store)).record.num_started
    again = opened(store)
    assert again.is_converged
    assert again.num_left(60) == 0
    going_on = opened(store, until_converged=False)
    assert not going_on.is_converged
    assert going_on.num_left(60) == 60 - num_started
    search(going_on, num_started + 2)
    assert not opened(store).is_converged, "two more trials may have shown something new"


def test_a_search_goes_on_to_its_last_trial_unless_it_is_asked_to_end(store: Store) -> None:
    record = search(opened(store, until_converged=False), 40).record
    assert record.num_started == 40
    assert record.expected_gain is not None
    assert record.expected_gain < 0.001


def test_nothing_is_foreseen_of_a_short_search(store: Store) -> None:
    record = search(opened(store), 8).record
    assert record.num_started == 8
    assert record.expected_gain is None
