"""The scheduler freeze-thaw with the sampler forecast: who gets the next epochs, without Ray."""

import math
from collections import Counter
from pathlib import Path

import pytest
from helpers.records import driver_of, metrics, written

from cifar_tune.errors import UserError
from cifar_tune.search.draws import NoTrialLeftError
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record
from cifar_tune.search.record import Record
from cifar_tune.store import Store, open_store
from cifar_tune.trials.trial import Trial

EPOCHS = 16
SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.0003},
                  schedule={"name": "constant"}, epochs=16, batch_size=32)


def space(trial):
    return BASELINE.replace({
        "optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-1, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.5),
    })


SEARCH = Search(scheduler={"name": "freeze-thaw"})
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def opened(store: Store) -> Record:
    return open_record(store, "tiny", written(store.root.parent, SPACE), 0)


def accuracy(trial: Trial, epoch: int) -> float:
    """Best at a learning rate of 0.01 without label smoothing; half of it is seen after the first epoch."""
    recipe = trial.recipe
    end = 0.9 - abs(math.log10(recipe.optimizer.lr / 0.01)) / 5 - recipe.label_smoothing / 5
    return end * (0.5 + 0.5 * math.log2(epoch + 1) / math.log2(EPOCHS + 1)) + 0.003 * math.sin(7 * trial.number + epoch)


def train_next(driver: Driver, trained: Counter[tuple[int, int]]) -> Trial:
    """Train the next trial until it leaves its worker, and count its epochs."""
    trial = driver.next_trial()
    for epoch in range(trial.epochs + 1, trial.recipe.epochs + 1):
        trained[trial.number, epoch] += 1
        if not driver.add_epoch(trial.number, metrics(epoch, accuracy(trial, epoch)), {}):
            return trial
    raise AssertionError("it never ended")


def train_all(driver: Driver) -> Counter[tuple[int, int]]:
    trained = Counter[tuple[int, int]]()
    while not driver.is_over:
        try:
            train_next(driver, trained)
        except NoTrialLeftError:
            break
    driver.end_search()
    return trained


def test_a_search_finds_the_best_recipes_in_few_epochs_and_trains_none_twice(store: Store) -> None:
    driver = driver_of(opened(store), 40)
    trained = train_all(driver)
    trials = driver.record.trials()
    assert len(trials) == 40
    assert set(trained.values()) == {1}
    assert len(trained) < 0.6 * 40 * EPOCHS
    assert trials[0].state == "completed"
    best = max((trial for trial in trials if trial.is_complete), key=lambda trial: accuracy(trial, EPOCHS))
    assert accuracy(best, EPOCHS) > 0.86
    assert {trial.state for trial in trials} == {"completed", "pruned"}
    assert min(trial.epochs for trial in trials) == 1
    for trial in trials:
        assert [each["epoch"] for each in trial.curve] == list(range(1, trial.epochs + 1))


def test_paused_trials_go_on_in_the_next_command(store: Store) -> None:
    driver, trained = driver_of(opened(store), 40), Counter[tuple[int, int]]()
    for _ in range(14):
        train_next(driver, trained)
    paused = {trial.number for trial in driver.record.paused_trials()}
    assert paused
    driver.interrupt()
    again = driver_of(opened(store), 40)
    assert {trial.number for trial in again.record.paused_trials()} == paused
    trained += train_all(again)
    assert set(trained.values()) == {1}
    assert {number for number, epoch in trained if epoch > 1} & paused


def test_a_search_too_short_for_a_forecast_promotes_the_better_half(store: Store) -> None:
    driver = driver_of(opened(store), 6)
    train_all(driver)
    states = Counter(trial.state for trial in driver.record.trials())
    assert states["completed"] >= 2
    assert states["pruned"] >= 2


def test_a_short_search_trains_a_second_trial_to_its_end_even_if_the_baseline_leads(store: Store) -> None:
    space = SPACE.replace('"lr": 0.0003}', '"lr": 0.01}')
    driver = driver_of(open_record(store, "tiny", written(store.root.parent, space), 0), 4)
    train_all(driver)
    assert sum(trial.state == "completed" for trial in driver.record.trials()) >= 2


def test_a_short_search_with_several_baselines_trains_a_new_recipe_to_its_end(store: Store) -> None:
    rates = "BASELINES = [BASELINE.replace({'optimizer/lr': lr}) for lr in (0.008, 0.009, 0.01, 0.011)]\n\n\ndef space"
    space = written(store.root.parent, SPACE.replace("def space", rates))
    driver = driver_of(open_record(store, "tiny", space, 0), 7)
    train_all(driver)
    assert any(trial.state == "completed" for trial in driver.record.trials()[4:])


@pytest.mark.parametrize("change", [("epochs=16", "epochs=1"), ('"freeze-thaw"', '"freeze-thaw", "rungs": ()')])
def test_a_search_without_a_rung_trains_every_trial_to_its_end(store: Store, change: tuple[str, str]) -> None:
    driver = driver_of(open_record(store, "tiny", written(store.root.parent, SPACE.replace(*change)), 0), 14)
    train_all(driver)
    assert {trial.state for trial in driver.record.trials()} == {"completed"}


def test_a_poor_trial_that_still_runs_at_the_end_is_not_trained_to_its_own(store: Store) -> None:
    driver, trained = driver_of(opened(store), 16), Counter[tuple[int, int]]()
    while driver.record.num_started < 15:
        train_next(driver, trained)
    while (last := driver.next_trial()).number != 15:
        assert not driver.add_epoch(last.number, metrics(last.epochs + 1, 0.05), {})
    while driver.can_start:  # paused ones, until none is worth it
        try:
            train_next(driver, trained)
        except NoTrialLeftError:
            break
    assert not driver.add_epoch(last.number, metrics(1, 0.05), {})


def test_it_needs_the_sampler_that_it_compares_with(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="freeze-thaw needs the sampler forecast; leave the sampler out, or take asha"):
        written(tmp_path, SPACE.replace("Search(", "Search(sampler='tpe', "))
