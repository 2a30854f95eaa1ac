"""How a search goes on, or stops, after trials that fail; draws that are no trials; trials that take too long."""

import time
from pathlib import Path

import optuna
import pytest
from helpers.records import RISING, driver_of, metrics, train, written

from cifar_tune.search import watchdog
from cifar_tune.search.draws import NoTrialLeftError
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record_in

SPACE = """
import optuna
from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "sgd", "lr": 0.01},
    schedule={"name": "constant"}, epochs=4, batch_size=32, train_images=64,
)

def space(trial):
    lr = trial.suggest_float("optimizer/lr", 1e-3, 1e-1, log=True)
    return BASELINE.replace({"optimizer/lr": lr})

SEARCH = Search(num_trials=40, scheduler={"name": "none"})
"""
FEW = SPACE.replace(
    'trial.suggest_float("optimizer/lr", 1e-3, 1e-1, log=True)',
    'trial.suggest_categorical("optimizer/lr", [0.001, 0.01, 0.1])',
)
SKIPS = SPACE.replace("    return", "    if lr > 0.02:\n        raise optuna.TrialPruned\n    return")
TOGETHER = SPACE.replace(
    "    return BASELINE.replace({",
    """    head = trial.suggest_int("finetune/head_epochs", 1, 6)
    return BASELINE.replace({"finetune/name": "two-phase", "finetune/head_epochs": head,""",
).replace("epochs=4,", 'epochs=4, finetune={"name": "two-phase", "head_epochs": 1, "lr": 0.001},')


def opened(folder: Path, text: str = SPACE, num_trials: int = 20) -> Driver:
    space = written(folder, text)
    return driver_of(open_record_in(optuna.storages.InMemoryStorage(), "s", space, 0), num_trials)


def fail(driver: Driver, by: str, error: str) -> None:
    number = driver.next_trial().number
    if by == "machine":
        driver.put_back(number, error)
    else:
        driver.finish(number, "failed", error=error)


def test_a_failed_baseline_stops_the_search_and_is_left_to_be_resumed(tmp_path: Path) -> None:
    driver = opened(tmp_path)
    number = driver.next_trial().number
    driver.finish(number, "failed", error="Traceback\nKeyError: 'x'")
    assert driver.fault == "The baseline failed: KeyError: 'x'."
    (trial,) = driver.record.trials()
    assert (trial.state, trial.error) == ("interrupted", "Traceback\nKeyError: 'x'")
    assert driver.record.num_left(20) == 20


def test_what_the_machine_ends_is_resumed_and_counts_once(tmp_path: Path) -> None:
    driver = opened(tmp_path)
    train(driver, RISING)
    trial = driver.next_trial()
    driver.add_epoch(trial.number, metrics(1, 0.2), {})
    left = driver.num_left
    driver.put_back(trial.number, "OSError: no room")
    assert driver.num_left == left + 1
    resumed = driver.next_trial()
    assert (resumed.number, resumed.epochs, resumed.params) == (trial.number, 1, trial.params)
    for epoch in (2, 3, 4):
        driver.add_epoch(resumed.number, metrics(epoch, 0.3), {})
    done = driver.record.trials()[trial.number]
    assert (done.state, done.error) == ("completed", None)
    assert driver.fault is None


@pytest.mark.parametrize("by", ["machine", "recipe"])
def test_the_third_failure_alike_in_a_row_stops_the_search(tmp_path: Path, by: str) -> None:
    driver = opened(tmp_path)
    train(driver, RISING)
    for n in range(3):
        assert driver.fault is None
        fail(driver, by, f"OSError: {n} bytes left")
    assert driver.fault == "3 trials in a row failed alike: OSError: 2 bytes left."


@pytest.mark.parametrize("by", ["machine", "recipe"])
def test_the_sixth_failure_in_a_row_stops_the_search_whatever_the_kinds(tmp_path: Path, by: str) -> None:
    driver = opened(tmp_path)
    for _ in range(2):  # what trains between them sets the count back
        train(driver, RISING)
        for n in range(5):
            fail(driver, by, ("OSError: no data", "RuntimeError: no block")[n % 2])
    assert driver.fault is None
    fail(driver, by, "RuntimeError: no block")
    assert driver.fault == "6 trials in a row failed, the last one with: RuntimeError: no block."


def test_failures_between_trials_that_train_do_not_stop_the_search(tmp_path: Path) -> None:
    driver = opened(tmp_path)
    for _ in range(4):
        train(driver, RISING)
        driver.put_back(driver.next_trial().number, "OSError: x")
    assert driver.fault is None


def test_failed_trials_are_tried_again_on_request_only_once(tmp_path: Path) -> None:
    driver = opened(tmp_path, num_trials=3)
    train(driver, RISING)
    first = driver.next_trial()
    driver.finish(first.number, "failed", error="KeyError: 'x'")
    train(driver, RISING)
    record = driver.record
    assert record.num_left(3) == 0
    assert record.retry_failed() == 1
    assert record.num_left(3) == 1
    again = driver_of(record, 3).next_trial()
    assert (again.number, again.recipe) == (3, first.recipe)
    record.finish_trial(again.number, "completed") if again.curve else record.put_back(again.number, "x")
    assert record.retry_failed() == 0


@pytest.mark.parametrize("text", [SKIPS, TOGETHER], ids=["TrialPruned", "values that make no recipe together"])
@pytest.mark.parametrize("sampler", ["forecast", "tpe", "random"])
def test_a_draw_that_makes_no_recipe_is_drawn_again(tmp_path: Path, text: str, sampler: str) -> None:
    driver = opened(tmp_path, text.replace("num_trials=40", f"num_trials=40, sampler={sampler!r}"))
    for _ in range(20):
        train(driver, RISING)
    trials = driver.record.trials()
    assert [trial.state for trial in trials] == ["completed"] * 20
    assert all(trial.recipe.optimizer.lr <= 0.02 for trial in trials) or text == TOGETHER
    states = [trial.state for trial in driver.record.study.get_trials(deepcopy=False)]
    assert sampler == "forecast" or optuna.trial.TrialState.PRUNED in states, "the sampler is told"


@pytest.mark.parametrize("sampler", ["forecast", "tpe", "random"])
def test_a_space_whose_recipes_were_all_tried_ends_the_search(tmp_path: Path, sampler: str) -> None:
    driver = opened(tmp_path, FEW.replace("num_trials=40", f"num_trials=40, sampler={sampler!r}"))
    for _ in range(3):
        train(driver, RISING)
    with pytest.raises(NoTrialLeftError):
        driver.next_trial()
    assert driver.is_over
    assert driver.record.num_left(20) == 0
    assert sorted(trial.recipe.optimizer.lr for trial in driver.record.trials()) == [0.001, 0.01, 0.1]


def test_a_trial_beyond_the_time_limit_fails_with_the_reason(tmp_path: Path) -> None:
    driver = opened(tmp_path, SPACE.replace("num_trials=40", "num_trials=40, minutes_per_trial=1e-9"))
    driver.record.finish_trial(driver.record.start_trial().number, "diverged")
    number = driver.next_trial().number
    assert driver.end_overdue() == [number]
    trial = driver.record.trials()[number]
    assert trial.state == "failed"
    assert trial.error == "It took longer than the 0:00 that the search allows a trial."


def test_a_trial_without_a_sign_of_life_has_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = opened(tmp_path)
    train(driver, RISING)
    number = driver.next_trial().number
    assert driver.end_overdue() == []
    monkeypatch.setattr(watchdog, "SHORTEST", -1.0)
    monkeypatch.setattr(watchdog, "HUNG", 0.0)
    assert driver.end_overdue() == [number]
    assert "It hung" in str(driver.record.trials()[number].error)


def test_the_time_of_a_suspended_process_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = opened(tmp_path, SPACE.replace("num_trials=40", "num_trials=40, minutes_per_trial=1e-4"))
    driver.next_trial()
    monkeypatch.setattr(watchdog, "LONGEST_LOOK", 1e-4)
    time.sleep(0.1)  # ten times the limit, between two looks
    assert driver.end_overdue() == []
