"""The planner, which prepares trials in a thread of its own."""

import math
import threading
import time
from pathlib import Path

import optuna
import pytest
from helpers.command_line import PATIENCE
from helpers.records import driver_of, metrics, train, written
from optuna.trial import TrialState

from cifar_tune.errors import UserError
from cifar_tune.search.draws import NoTrialLeftError
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record
from cifar_tune.search.planner import NUM_STARTS, Planner
from cifar_tune.search.record import Record
from cifar_tune.store import Store, open_store
from cifar_tune.trials.reading import read_record

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.001},
                  schedule={"name": "constant"}, epochs=4, batch_size=32)


def space(trial):
    HOOK
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-1, log=True)})


SEARCH = Search(sampler="random", scheduler={"name": "none"})
"""


FEW = SPACE.replace("1e-4, 1e-1, log=True", "[0.001, 0.01, 0.1]").replace("suggest_float", "suggest_categorical")
HELD = "import time, pathlib\n    while not pathlib.Path({!r}).exists(): time.sleep(0.01)"  # until the file is there


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def opened(store: Store, hook: str = "pass", text: str = SPACE) -> Record:
    return open_record(store, "tiny", written(store.root.parent, text.replace("HOOK", hook)), 0)


def train_all(driver: Driver, planner: Planner) -> list[int]:
    """Train every trial that is left, one after the other; their numbers."""
    numbers = []
    with planner.planning():
        while driver.num_left:
            trial = planner.next_trial(PATIENCE)
            if trial is None:
                break
            numbers.append(trial.number)
            for epoch in range(trial.epochs + 1, 5):
                if not driver.add_epoch(trial.number, metrics(epoch, 0.5), {}):
                    break
    return numbers


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_trials_are_prepared_while_others_train_and_started_in_their_order(store: Store) -> None:
    record = opened(store)
    driver = driver_of(record, 6)
    planner = Planner(driver, most_ahead=2)
    with planner.planning():
        first = planner.next_trial(PATIENCE)
        wait_for(lambda: driver.num_prepared == 1)
        assert [trial.number for trial in read_record(store)["tiny"]] == [0]  # the prepared one leaves no trace
        second = planner.next_trial(0.0)
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (0, 1)
    assert [trial.state for trial in read_record(store)["tiny"]] == ["interrupted"] * 2  # no process works on them


def test_a_baseline_that_is_prepared_and_not_started_still_waits_in_the_record(store: Store) -> None:
    record = opened(store)
    driver_of(record, 3).prepare()
    record.set_attribute("any", 1)
    (trial,) = optuna.load_study(study_name="tiny", storage=store.optuna_url).trials
    assert (trial.state, trial.user_attrs) == (TrialState.WAITING, {})
    assert record.start_trial().is_baseline
    (trial,) = optuna.load_study(study_name="tiny", storage=store.optuna_url).trials
    assert (trial.state, trial.user_attrs["state"]) == (TrialState.RUNNING, "running")


def test_a_search_with_a_planner_trains_exactly_its_trials(store: Store) -> None:
    driver = driver_of(opened(store), 7)
    assert train_all(driver, Planner(driver, most_ahead=3)) == list(range(7))
    assert driver.is_over
    assert [trial.state for trial in read_record(store)["tiny"]] == ["completed"] * 7
    study = optuna.load_study(study_name="tiny", storage=store.optuna_url)
    assert len(study.trials) == 7


def test_an_interrupted_trial_that_was_prepared_is_resumed_by_the_next_command(store: Store) -> None:
    driver = driver_of(opened(store), 3)
    with Planner(driver, most_ahead=1).planning():
        wait_for(lambda: driver.num_prepared == 1)
    number = driver.next_trial().number
    driver.add_epoch(number, metrics(1, 0.5), {})
    driver.interrupt()
    driver = driver_of(opened(store), 3)
    driver.prepare()  # the interrupted one, which is not started
    driver.interrupt()
    record = opened(store)
    assert record.num_left(3) == 3
    driver = driver_of(record, 3)
    assert train_all(driver, Planner(driver, most_ahead=1)) == [0, 1, 2]
    assert [trial.state for trial in read_record(store)["tiny"]] == ["completed"] * 3


def test_a_free_worker_gets_nothing_while_nothing_is_prepared(store: Store) -> None:
    release = store.root.parent / "release"
    hook = HELD.format(str(release))
    driver = driver_of(opened(store), 3)
    release.touch()
    driver.next_trial()
    driver = Driver(opened_with(store, hook), 3, [])
    release.unlink()
    planner = Planner(driver, most_ahead=1)
    with planner.planning():
        assert planner.next_trial(0.05) is None
        release.touch()
        assert planner.next_trial(PATIENCE) is not None


def opened_with(store: Store, hook: str) -> Record:
    (store.root.parent / "release").touch()
    return open_record(store, "other", written(store.root.parent, SPACE.replace("HOOK", hook)), 0)


def test_an_error_of_the_space_in_the_planners_thread_reaches_the_search(store: Store) -> None:
    hook = "import threading\n    assert threading.current_thread().name != 'planner', 'no such thing'"
    driver = driver_of(opened(store, hook), 5)
    planner = Planner(driver, most_ahead=1)
    with planner.planning(), pytest.raises(UserError, match="no such thing"):
        planner.next_trial(PATIENCE)


def test_a_search_whose_space_is_exhausted_ends(store: Store) -> None:
    driver = driver_of(opened(store, text=FEW), 12)
    assert len(train_all(driver, Planner(driver, most_ahead=2))) == 3
    assert driver.num_left == 0
    assert opened(store, text=FEW).is_exhausted


def test_recipes_chosen_ahead_when_no_other_is_left_are_tried_after_an_interruption(store: Store) -> None:
    driver = driver_of(opened(store, text=FEW), 12)
    first = driver.next_trial()
    driver.prepare()
    driver.prepare()
    with pytest.raises(NoTrialLeftError):
        driver.prepare()
    for epoch in range(1, 5):  # the last one writes all that is known
        driver.add_epoch(first.number, metrics(epoch, 0.5), {})
    assert driver.record.is_exhausted
    record = opened(store, text=FEW)  # as after a kill
    assert not record.is_exhausted
    again = driver_of(record, 12)
    assert len(train_all(again, Planner(again, most_ahead=2))) == 2


def test_failed_trials_are_tried_again_where_no_other_recipe_is_left(store: Store) -> None:
    driver = driver_of(opened(store, text=FEW), 12)
    for _ in range(2):
        train(driver, [0.1, 0.2, 0.3, 0.4])
    driver.finish(driver.next_trial().number, "failed", error="ValueError: no")
    with pytest.raises(NoTrialLeftError):
        driver.next_trial()
    record = opened(store, text=FEW)
    assert record.num_left(12) == 0
    assert record.retry_failed() == 1
    driver = driver_of(opened(store, text=FEW), 12)
    train(driver, [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(NoTrialLeftError):
        driver.next_trial()
    assert [trial.state for trial in driver.record.trials()] == ["completed", "completed", "failed", "completed"]


def test_a_trial_that_is_put_back_when_no_recipe_is_left_goes_on(store: Store) -> None:
    driver = driver_of(opened(store, text=FEW), 12)
    planner = Planner(driver, most_ahead=3)
    with planner.planning():
        started = [trial.number for trial in [planner.next_trial(PATIENCE) for _ in range(3)] if trial is not None]
        wait_for(lambda: driver.record.is_exhausted)
        driver.put_back(started[1], "OSError: the node died")
        again = None
        while driver.num_left and again is None:
            again = planner.next_trial(0.1)
        assert again is not None
        assert again.number == started[1]
        assert planner.next_trial(0.0) is None
    assert len(started) == 3
    assert driver.num_left == 0


def test_where_a_choice_takes_next_to_nothing_it_is_made_when_a_worker_asks(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it knows how the trial before has ended."""
    monkeypatch.setattr("cifar_tune.search.planner.MOST_WAITING", math.inf)
    driver = driver_of(opened(store), NUM_STARTS + 3)
    planner = Planner(driver, most_ahead=1)
    with planner.planning():
        for _ in range(NUM_STARTS):
            trial = planner.next_trial(PATIENCE)
            assert trial is not None
        prepared_before = driver.num_prepared  # chosen before it was known how long trials take
        for _ in range(prepared_before + 1):
            assert planner.next_trial(PATIENCE) is not None
        time.sleep(0.2)
        assert driver.num_prepared == 0
        assert planner.next_trial(PATIENCE) is not None


def test_what_the_model_imports_is_there_before_its_first_choice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = driver_of(opened(store), 6)
    warmed: list[int] = []
    monkeypatch.setattr(driver.record, "warm_up", lambda num_left: warmed.append(driver.record.num_started))
    planner = Planner(driver, most_ahead=2)
    train_all(driver, planner)
    assert min(warmed) in (3, 4)  # each worker has had a trial by then, and MIN_TRIALS is later


def test_what_cannot_be_imported_ahead_does_not_end_the_planner(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(num_left: int) -> None:
        raise ImportError("libtorch.so is damaged")

    driver = driver_of(opened(store), 6)
    monkeypatch.setattr(driver.record, "warm_up", fail)
    assert train_all(driver, Planner(driver, most_ahead=1)) == list(range(6))


def test_a_worker_that_asks_again_and_again_has_waited_once(store: Store) -> None:
    """Otherwise one slow choice would let as many be made ahead as there are workers, and each would know less."""
    driver = Driver(opened_with(store, HELD.format(str(store.root.parent / "release"))), 20, [])
    (store.root.parent / "release").unlink()
    planner = Planner(driver, most_ahead=8)
    with planner.planning():
        for _ in range(5):
            assert planner.next_trial(0.01) is None
        (store.root.parent / "release").touch()
        assert planner.next_trial(PATIENCE) is not None
        wait_for(lambda: driver.num_prepared == 1)
        time.sleep(0.3)
        assert driver.num_prepared == 1


def test_values_at_which_the_space_fails_are_not_tried_again(store: Store) -> None:
    bad = store.root.parent / "bad"
    hook = f"import pathlib\n    assert not pathlib.Path({str(bad)!r}).exists(), 'bad'"
    driver = driver_of(opened(store, hook), 3)
    train(driver, [0.1, 0.2, 0.3, 0.4])
    driver.finish(driver.next_trial().number, "failed", error="ValueError: no")
    record = opened(store, hook)
    assert record.retry_failed() == 1
    bad.touch()
    with pytest.raises(UserError, match="goes on with another draw"):
        record.prepare()
    bad.unlink()
    record = opened(store, hook)
    assert record.study.trials[2].state == TrialState.FAIL
    assert record.start_trial().number == 3


def test_the_thread_ends_with_the_search(store: Store) -> None:
    driver = driver_of(opened(store), 2)
    train_all(driver, Planner(driver, most_ahead=1))
    assert "planner" not in {thread.name for thread in threading.enumerate()}
