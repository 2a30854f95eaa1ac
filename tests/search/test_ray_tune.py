"""What Ray's controller is told, by the real objects that it calls."""

from pathlib import Path

import pytest
from helpers.records import driver_of, metrics, train, written

from cifar_tune.search.identity import open_record
from cifar_tune.search.planner import Planner
from cifar_tune.search.ray_tune import Complete, _DriverSearcher
from cifar_tune.search.resources import Resources
from cifar_tune.store import open_store

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.001},
                  schedule={"name": "constant"}, epochs=1, batch_size=32)


def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_categorical("optimizer/lr", [0.001, 0.01, 0.1])})


SEARCH = Search(sampler="random", scheduler={"name": "none"})
"""


def test_a_search_without_a_recipe_left_ends_when_nothing_runs(tmp_path: Path) -> None:
    """Ray waits ten minutes for a searcher that has no trial while none runs."""
    store = open_store(tmp_path / "store")
    driver = driver_of(open_record(store, "tiny", written(tmp_path, SPACE), 0), 12)
    planner = Planner(driver, most_ahead=1)
    searcher = _DriverSearcher(driver, planner, store, Resources(1, 0.0, 1), "weights")
    with planner.planning():
        for number in range(3):
            assignment = searcher.suggest(str(number))
            assert assignment is not None
            assert not driver.add_epoch(assignment["number"], metrics(1, 0.5), {})
            searcher.on_trial_complete(str(number))
        with pytest.raises(Complete):
            searcher.suggest("another")


def test_a_search_of_which_only_paused_trials_are_left_ends_where_none_goes_on(tmp_path: Path) -> None:
    """It was killed after its last trial was paused, and before the paused ones were pruned."""
    store = open_store(tmp_path / "store")
    text = SPACE.replace('{"name": "none"}', '{"name": "asha-promotion"}').replace("epochs=1", "epochs=4")
    driver = driver_of(open_record(store, "tiny", written(tmp_path, text), 0), 2)
    train(driver, [0.9, 0.9, 0.9, 0.9])
    train(driver, [0.5])
    record = open_record(store, "tiny", written(tmp_path, text), 0)
    assert record.num_left(2) == 1
    driver = driver_of(record, 2)
    planner = Planner(driver, most_ahead=2)
    searcher = _DriverSearcher(driver, planner, store, Resources(1, 0.0, 2), "weights")
    with planner.planning(), pytest.raises(Complete):
        searcher.suggest("one")
    driver.end_search()
    assert [trial.state for trial in record.trials()] == ["completed", "pruned"]


def test_a_worker_is_told_after_which_epochs_its_trial_may_be_paused(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    text = SPACE.replace('{"name": "none"}', '{"name": "asha-promotion"}').replace("epochs=1", "epochs=8")
    driver = driver_of(open_record(store, "tiny", written(tmp_path, text), 0), 2)
    planner = Planner(driver, most_ahead=2)
    searcher = _DriverSearcher(driver, planner, store, Resources(1, 0.0, 2), "weights")
    with planner.planning():
        assignments = [searcher.suggest(name) for name in ("one", "two")]
    assert [assignment and assignment["pauses"] for assignment in assignments] == [[], [2, 4]]
