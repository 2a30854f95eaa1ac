"""What the records of a store hold, for whoever does not search; record.py writes them."""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import nearest
from cifar_tune.store import Store
from cifar_tune.trials.cache import read_optuna_trials
from cifar_tune.trials.goal import Goal
from cifar_tune.trials.storage import open_storage
from cifar_tune.trials.trial import Trial, as_trial

PRIOR = "extended_from"  # of a result that the search was given to learn from: whose it is
DERIVED = "/"  # in the name of a record that belongs to a search's, which has none


@dataclass(frozen=True)
class Extension:
    """What a search was given of an older one to learn from: so many of its results as fit the new space."""

    search: str
    num_fitting: int
    num_results: int

    def __str__(self) -> str:
        return f"{self.num_fitting} of {self.num_results} results of {self.search}"


def read_record(store: Store, names: Sequence[str] = ()) -> dict[str, list[Trial]]:
    """The trials of the named searches, or of all in the store, by search; a UserError for an unknown name."""
    known: list[str] = []
    if (store.root / "optuna.db").exists():
        storage = open_storage(store)
        known = [name for name in optuna.get_all_study_names(storage) if DERIVED not in name]
    if not known:
        raise UserError(f"There is no search in {store.root}; start one with `cifar-tune run`, or name its --store.")
    for name in names:
        if name not in known:
            raise UserError(f"There is no search {name!r} in {store.root}; {nearest(name, known)}.")
    with _collecting_nothing():
        return {name: _read_trials_in(store, name, storage) for name in names or known}


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """All that is read lives on: to search it for garbage, as Python does ever so often, takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def derived_names(store: Store, name: str) -> list[str]:
    """The records that belong to the search's: `resnet9/confirm-1`."""
    return [each for each in optuna.get_all_study_names(open_storage(store)) if each.startswith(name + DERIVED)]


def read_attributes(store: Store, name: str) -> dict[str, Any]:
    """What a record says of its search as a whole: its `id`, `identity`, the `data` and `weights` it was begun with."""
    return dict(optuna.load_study(study_name=name, storage=open_storage(store)).user_attrs)


def write_attribute(store: Store, name: str, key: str, value: Any) -> None:  # noqa: ANN401 - anything JSON holds
    """Add to what a record says of its search as a whole."""
    optuna.load_study(study_name=name, storage=open_storage(store)).set_user_attr(key, value)


def read_trials_of(store: Store, name: str) -> list[Trial]:
    """The trials of any record, by number."""
    return _read_trials_in(store, name, open_storage(store))


def _read_trials_in(store: Store, name: str, storage: RDBStorage) -> list[Trial]:
    study = optuna.load_study(study_name=name, storage=storage)
    return [_as_seen(store, trial) for trial in as_trials(study, read_optuna_trials(store, study, storage))]


def delete_record(store: Store, name: str) -> None:
    """Remove the study of a search, after those that belong to it."""
    for each in [*derived_names(store, name), name]:
        optuna.delete_study(study_name=each, storage=open_storage(store))


def read_extensions(store: Store, names: Iterable[str]) -> dict[str, Extension]:
    """What those of the named searches that began with another's results began with."""
    storage = open_storage(store)
    found = {name: extension_of(optuna.load_study(study_name=name, storage=storage)) for name in names}
    return {name: extension for name, extension in found.items() if extension}


def as_trials(study: optuna.Study, found: Iterable[FrozenTrial]) -> list[Trial]:
    """Those of Optuna's trials that were started, by number."""
    num_baselines = study.user_attrs.get("num_baselines", 1)
    goal = Goal.model_validate(study.user_attrs.get("goal", {}))
    return [
        as_trial(study.study_name, trial, trial.number < num_baselines, goal)
        for trial in found
        if {"recipe", "state"} <= trial.user_attrs.keys() and PRIOR not in trial.user_attrs
    ]


def extension_of(study: optuna.Study) -> Extension | None:
    known = study.user_attrs.get("extension")
    return Extension(**known) if known else None


def _as_seen(store: Store, trial: Trial) -> Trial:
    """A trial that was left running by a process that is gone is interrupted."""
    if trial.state == "running" and not store.is_running(trial.search):
        return replace(trial, state="interrupted")
    return trial
