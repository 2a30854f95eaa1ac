"""Trials that are paused and taken up again: what the driver, the record and the planner do, without Ray."""

import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from helpers.command_line import PATIENCE
from helpers.records import driver_of, metrics, written
from optuna.trial import TrialState

from cifar_tune.search import driver as driver_module
from cifar_tune.search.draws import NoTrialLeftError
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record
from cifar_tune.search.planner import Planner
from cifar_tune.search.record import Record
from cifar_tune.store import Store, open_store
from cifar_tune.trials.facts import RUNGS, STATE_BYTES, STOPPED_AT
from cifar_tune.trials.reading import read_record
from cifar_tune.trials.trial import State, Trial

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.001},
                  schedule={"name": "constant"}, epochs=4, batch_size=32)


def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-1, log=True)})


SEARCH = Search(sampler="random", scheduler={"name": "asha-promotion", "rungs": (0.25, 0.5)})
"""
FEW = SPACE.replace("1e-4, 1e-1, log=True", "[0.001, 0.003, 0.01, 0.1]").replace("suggest_float", "suggest_categorical")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def opened(store: Store, text: str = SPACE) -> Record:
    return open_record(store, "tiny", written(store.root.parent, text), 0)


QUALITIES = (0.95, 0.55, 0.35, 0.7, 0.5, 0.3, 0.65, 0.45, 0.25, 0.75, 0.4, 0.6)  # of the first trials, 0 the baseline
ORDER = [0, 1, 2, 3, 3, 4, 5, 1, 6, 6, 3, 7]  # in which eight trials are trained one after the other


def quality(number: int) -> float:
    """The accuracy of a trial in all its epochs."""
    return QUALITIES[number % len(QUALITIES)]


def train(driver: Driver, trial: Trial, checkpoint_bytes: int = 1) -> list[int]:
    """Train a trial until it leaves its worker, beginning with its last epoch as a worker does; the epochs."""
    epochs = list(range(max(1, trial.epochs), 5))
    for place, epoch in enumerate(epochs):
        facts = {STATE_BYTES: checkpoint_bytes}
        if not driver.add_epoch(trial.number, metrics(epoch, quality(trial.number)), facts):
            return epochs[: place + 1]
    raise AssertionError("it never ended")


def train_next(driver: Driver) -> int:
    trial = driver.next_trial()
    train(driver, trial)
    return trial.number


def train_all(driver: Driver) -> list[int]:
    """Train one after the other until the search is over; the numbers of the trials."""
    numbers = []
    while not driver.is_over:
        try:
            numbers.append(train_next(driver))
        except NoTrialLeftError:
            assert driver.is_over
    return numbers


def states(store: Store) -> list[State]:
    return [trial.state for trial in read_record(store)["tiny"]]


def in_optuna(store: Store, number: int) -> optuna.trial.FrozenTrial:
    return optuna.load_study(study_name="tiny", storage=store.optuna_url).trials[number]


def test_a_paused_trial_is_open_in_optuna_and_paused_in_the_record_for_whoever_reads_it(store: Store) -> None:
    driver = driver_of(opened(store), 5)
    assert [train_next(driver) for _ in range(2)] == [0, 1]
    assert states(store) == ["completed", "paused"]
    paused = in_optuna(store, 1)
    assert (paused.state, paused.user_attrs["state"]) == (TrialState.RUNNING, "paused")
    assert paused.intermediate_values == {1: quality(1)}
    assert driver.record.num_live == 0
    assert not driver.is_over


def test_the_best_paused_trial_is_taken_up_with_its_epochs_before_a_new_one_begins(store: Store) -> None:
    driver = driver_of(opened(store), 5)
    assert [train_next(driver) for _ in range(4)] == [0, 1, 2, 3]
    trial = driver.next_trial()
    assert (trial.number, trial.state, trial.epochs) == (3, "running", 1)
    assert trial.facts[RUNGS] == {"1": 0.25}
    assert states(store)[3] == "interrupted", "it runs, and no process works on it"
    assert train(driver, trial) == [1, 2]
    assert driver.record.trials()[3].state == "paused"
    assert [epoch["epoch"] for epoch in driver.record.trials()[3].curve] == [1, 2]


def test_a_search_begins_its_number_of_trials_and_prunes_what_is_paused_when_none_goes_on(store: Store) -> None:
    driver = driver_of(opened(store), 8)
    assert train_all(driver) == ORDER
    assert states(store) == ["completed", "paused", "paused", "completed", *["paused"] * 4]
    driver.end_search()
    assert states(store) == ["completed", "pruned", "pruned", "completed", *["pruned"] * 4]
    for trial in read_record(store)["tiny"]:
        if trial.state == "pruned":
            assert in_optuna(store, trial.number).state == TrialState.PRUNED
            assert in_optuna(store, trial.number).value == quality(trial.number)
            assert trial.facts[STOPPED_AT] == {1: 0.25, 2: 0.5}[trial.epochs]
    assert opened(store).num_left(8) == 0


def test_the_order_of_the_trials_does_not_change_with_interruptions(store: Store) -> None:
    """After each trial the driver dies without a word, and another one goes on."""
    resumed = []
    while True:
        driver = driver_of(opened(store), 8)
        try:
            resumed.append(train_next(driver))
        except NoTrialLeftError:
            break
    assert resumed == ORDER
    assert driver.is_over
    driver.end_search()
    assert set(states(store)) == {"completed", "pruned"}


def test_a_paused_trial_stays_paused_when_the_search_is_interrupted(store: Store) -> None:
    driver = driver_of(opened(store), 4)
    train_next(driver)
    train_next(driver)
    driver.interrupt()
    assert states(store) == ["completed", "paused"]
    record = opened(store)
    assert (record.num_to_start(4), record.num_left(4), record.num_started) == (2, 3, 2)
    assert record.num_left(2) == 1, "whether it goes on is not known"


def test_a_trial_that_was_taken_up_and_interrupted_is_resumed_first(store: Store) -> None:
    driver = driver_of(opened(store), 5)
    for _ in range(4):
        train_next(driver)
    assert driver.next_trial().number == 3  # killed
    driver = driver_of(opened(store), 5)
    assert driver.record.trials()[3].state == "interrupted"
    assert driver.num_left == 2
    again = driver.next_trial()
    assert again.number == 3
    assert train(driver, again) == [1, 2], "its rung was passed"
    assert driver.num_left == 1


def test_a_trial_that_the_machine_ends_after_it_was_taken_up_is_resumed(store: Store) -> None:
    driver = driver_of(opened(store), 4)
    for _ in range(4):
        train_next(driver)
    taken_up = driver.next_trial()
    driver.put_back(taken_up.number, "OSError: no room")
    assert driver.num_left == 1
    again = driver.next_trial()
    assert (again.number, driver.num_left) == (taken_up.number, 0)
    train(driver, again)
    assert (driver.record.trials()[3].state, driver.record.trials()[3].error) == ("paused", None)


def test_a_paused_trial_that_is_prepared_is_not_chosen_twice_and_is_paused_again_on_interruption(store: Store) -> None:
    driver = driver_of(opened(store), 7)
    for _ in range(4):
        train_next(driver)
    driver.prepare()
    driver.prepare()
    assert (driver.num_prepared, driver.record.num_prepared_paused) == (2, 1)
    assert states(store) == ["completed", "paused", "paused", "paused"]
    driver.interrupt()
    assert driver.record.num_paused == 3
    driver = driver_of(opened(store), 7)
    assert [driver.next_trial().number for _ in range(2)] == [3, 4]


def test_where_the_space_has_no_recipe_left_paused_trials_may_go_on(store: Store) -> None:
    driver = driver_of(opened(store, FEW), 12)
    *first, fourth, again = train_all(driver)
    assert (first, again) == ([0, 1, 2], fourth), "it is better than two of the others"
    assert driver.num_left == 0
    driver.end_search()
    assert states(store) == ["completed", "pruned", "pruned", "pruned"]
    assert opened(store, FEW).num_left(12) == 0


def test_more_trials_go_on_with_the_scores_of_pruned_ones(store: Store) -> None:
    driver = driver_of(opened(store), 4)
    train_all(driver)
    driver.end_search()
    before = {trial.number: trial for trial in read_record(store)["tiny"]}
    driver = driver_of(opened(store), 12)
    assert set(train_all(driver)) == set(range(4, 12))
    driver.end_search()
    after = {trial.number: trial for trial in read_record(store)["tiny"]}
    assert {number: after[number] for number in before} == before
    assert {trial.state for trial in after.values()} == {"completed", "pruned"}


def test_the_least_promising_trials_are_pruned_where_too_many_are_paused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "MAX_PAUSED", 2)
    driver = driver_of(opened(store, SPACE.replace('"rungs"', '"keep": 0.01, "rungs"')), 8)
    train_all(driver)
    assert driver.record.num_paused == 2
    assert [trial.number for trial in driver.record.paused_trials()] == [3, 6], "0.7 and 0.65"


def test_the_least_promising_trials_are_pruned_where_their_checkpoints_take_too_much_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "MAX_PAUSED_BYTES", 1000)
    driver = driver_of(opened(store, SPACE.replace('"rungs"', '"keep": 0.01, "rungs"')), 8)
    for _ in range(4):
        train(driver, driver.next_trial(), checkpoint_bytes=400)
    assert states(store) == ["completed", "paused", "pruned", "paused"]
    assert in_optuna(store, 2).state == TrialState.PRUNED


def test_a_pause_shows_that_trials_train_and_ends_a_row_of_failures(store: Store) -> None:
    driver = driver_of(opened(store), 20)
    train_next(driver)
    for _ in range(3):
        for _ in range(2):
            driver.finish(driver.next_trial().number, "failed", error="OSError: x")
        train_next(driver)
    assert driver.fault is None


def test_time_in_which_a_trial_is_paused_does_not_count_for_its_limit(store: Store) -> None:
    text = SPACE.replace("SEARCH = Search(", "SEARCH = Search(minutes_per_trial=1.6 / 60, ")
    driver = driver_of(opened(store, text), 4)  # an epoch takes half a second by its own account
    for _ in range(4):
        train_next(driver)
    driver._watchdog._now += 1000.0
    assert driver.next_trial().number == 3
    assert driver.end_overdue() == []
    driver._watchdog._now += 2.0
    assert driver.end_overdue() == [3]


def test_the_forecast_does_not_believe_that_a_paused_trial_runs(store: Store) -> None:
    driver = driver_of(opened(store, SPACE.replace('sampler="random"', 'sampler="forecast"')), 9)
    forecast = driver.record.forecast
    assert forecast is not None
    for _ in range(4):
        train_next(driver)
    assert forecast.numbers == [0, 1, 2, 3]
    assert not forecast._is_running.any()
    assert not np.isnan(forecast.scores[3, 0]), "its early score counts"
    assert driver.next_trial().number == 3
    assert forecast._is_running.tolist() == [False, False, False, True]


def test_nobody_waits_for_a_choice_where_the_scheduler_refuses_all_paused_trials(store: Store) -> None:
    driver = driver_of(opened(store), 3)
    while driver.num_left:
        train_next(driver)
    planner = Planner(driver, most_ahead=2)
    with planner.planning():
        start = time.monotonic()
        assert planner.next_trial(30.0) is None
        assert time.monotonic() < start + 15
    assert driver.is_over


def test_with_a_planner_every_epoch_is_trained_once(store: Store) -> None:
    driver = driver_of(opened(store), 12)
    planner = Planner(driver, most_ahead=2)
    trained: list[tuple[int, int]] = []
    with planner.planning():
        while not driver.is_over:
            trial = planner.next_trial(PATIENCE if driver.can_prepare else 0.0)
            if trial is not None:
                epochs = train(driver, trial)
                trained += [(trial.number, epoch) for epoch in epochs if epoch > trial.epochs]
    driver.end_search()
    trials = read_record(store)["tiny"]
    assert sorted(trained) == [(trial.number, epoch) for trial in trials for epoch in range(1, trial.epochs + 1)]
    assert {trial.state for trial in trials} == {"completed", "pruned"}
    assert len(trials) == 12
