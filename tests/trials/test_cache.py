"""The cache of a large record: finished trials are read from a file of the store, and nothing else changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_store import make_store

from cifar_tune.search.identity import open_record
from cifar_tune.search.space import load_space
from cifar_tune.store import Store
from cifar_tune.trials import cache
from cifar_tune.trials.cache import FILE
from cifar_tune.trials.reading import as_trials, read_record
from cifar_tune.trials.storage import open_storage

NAME = "many"


@pytest.fixture
def many(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with a search of 40 trials, which counts as many."""
    monkeypatch.setattr(cache, "MIN_NEW", 10)
    make_store(store.root, 40, 4, NAME)
    return store


def from_optuna(store: Store) -> list[Any]:
    """All trials, read without the cache file."""
    import optuna

    study = optuna.load_study(study_name=NAME, storage=open_storage(store))
    return as_trials(study, study.get_trials(deepcopy=False))


@pytest.mark.slow
def test_trials_read_from_the_file_equal_those_of_optuna(many: Store) -> None:
    expected = from_optuna(many)
    assert read_record(many)[NAME] == expected
    file = many.search(NAME) / FILE
    written = file.read_bytes()
    assert read_record(many)[NAME] == expected
    assert file.read_bytes() == written


@pytest.mark.slow
def test_trials_that_end_after_the_file_was_written_are_read_from_optuna(many: Store) -> None:
    read_record(many)
    space = load_space(Path(__file__).parents[2] / "search_spaces" / "mini_resnet.py", {"epochs": "4"})
    record = open_record(many, NAME, space, 0)
    running = record.start_trial()
    ended = record.start_trial()
    record.finish_trial(ended.number, "diverged")
    trials = read_record(many)[NAME]
    assert [trial.state for trial in trials[-2:]] == ["interrupted", "diverged"]
    assert trials == [replace(t, state="interrupted") if t.number == running.number else t for t in from_optuna(many)]
    record.finish_trial(running.number, "failed", "why")
    assert read_record(many)[NAME] == from_optuna(many)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 0}', '{"format": 1, "id": "of another search"}'])
def test_a_damaged_or_foreign_file_is_replaced(many: Store, content: str) -> None:
    expected = read_record(many)[NAME]
    (many.search(NAME) / FILE).write_text(content, encoding="utf-8")
    assert read_record(many)[NAME] == expected
    assert len((many.search(NAME) / FILE).read_text(encoding="utf-8")) > 1000


def test_a_small_search_has_no_such_file(store: Store) -> None:
    make_store(store.root, 5, 2, NAME)
    assert len(read_record(store)[NAME]) == 5
    assert not (store.search(NAME) / FILE).exists()
