"""What Ray's controller is told, by the real objects that it calls."""

from pathlib import Path

import pytest
from helpers.records import driver_of, metrics, written

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
