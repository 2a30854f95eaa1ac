"""Reading the records of a store: the trials and attributes of searches, for reports and commands.

search/record.py writes them.
"""

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
from cifar_tune.trials.storage import explaining_damage, has_storage, open_for_reading, open_storage
from cifar_tune.trials.trial import Trial, as_trial

PRIOR = "extended_from"  # attribute of a result taken over by `--extend`: the search and trial that it comes from
NUM_SHOWN = "num_shown"  # attribute of a search as a whole: the number of trials of which MLflow has the end
RUNS = "mlflow_runs"  # attribute of a search as a whole: ids of runs in MLflow that its trials do not have themselves
DERIVED = "/"  # in the names of records of reruns, as in `resnet9/confirm-1`; names of searches have none


@dataclass(frozen=True)
class Extension:
    """The older search that a search extends: of its results, those that fit the new space were taken over."""

    search: str
    num_fitting: int
    num_results: int

    def __str__(self) -> str:
        return f"{self.num_fitting} of {self.num_results} results of {self.search}"


@explaining_damage
def read_record(store: Store, names: Sequence[str] = ()) -> dict[str, list[Trial]]:
    """The trials of the named searches, or of all in the store, by search; a UserError for an unknown name."""
    searches: list[str] = []
    if has_storage(store):
        storage = open_for_reading(store)
        searches = [name for name in optuna.get_all_study_names(storage) if DERIVED not in name]
    if not searches:
        raise _no_search(store)
    for name in names:
        if name not in searches:
            raise UserError(f"There is no search {name!r} in {store.root}; {nearest(name, searches)}.")
    with _without_garbage_collection():
        trials = {name: _read_trials_in(store, name, storage) for name in names or searches}
    started = {name: trials[name] for name in trials if trials[name] or name in names}
    if not started:
        raise _no_search(store)
    return started


def _no_search(store: Store) -> UserError:
    return UserError(f"There is no search in {store.root}; start one with `cifar-tune run`, or name its --store.")


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Switch garbage collection off: it takes a third of the time, and everything that is read stays in use."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@explaining_damage
def derived_names(store: Store, name: str) -> list[str]:
    """The names of the records of a search's reruns, like `resnet9/confirm-1`."""
    return [each for each in optuna.get_all_study_names(open_for_reading(store)) if each.startswith(name + DERIVED)]


@explaining_damage
def read_attributes(store: Store, name: str) -> dict[str, Any]:
    """The attributes of a search as a whole: its `id`, `identity`, digests of its `data` and `weights`, and others."""
    return dict(optuna.load_study(study_name=name, storage=open_for_reading(store)).user_attrs)


def write_attribute(store: Store, name: str, key: str, value: Any) -> None:  # noqa: ANN401 - anything JSON holds
    """Set an attribute of a search as a whole."""
    optuna.load_study(study_name=name, storage=open_storage(store)).set_user_attr(key, value)


@explaining_damage
def read_trials_of(store: Store, name: str) -> list[Trial]:
    """The trials of a search or of its reruns, by number."""
    return _read_trials_in(store, name, open_for_reading(store))


def _read_trials_in(store: Store, name: str, storage: RDBStorage) -> list[Trial]:
    study = optuna.load_study(study_name=name, storage=storage)
    return [_with_present_state(store, trial) for trial in as_trials(study, read_optuna_trials(store, study, storage))]


def delete_record(store: Store, name: str) -> None:
    """Delete the study of a search, after those of its reruns."""
    for each in [*derived_names(store, name), name]:
        optuna.delete_study(study_name=each, storage=open_storage(store))


@explaining_damage
def read_extensions(store: Store, names: Iterable[str]) -> dict[str, Extension]:
    """The extension of each of the named searches that has one."""
    storage = open_for_reading(store)
    extensions = {name: extension_of(optuna.load_study(study_name=name, storage=storage)) for name in names}
    return {name: extension for name, extension in extensions.items() if extension}


def as_trials(study: optuna.Study, optuna_trials: Iterable[FrozenTrial]) -> list[Trial]:
    """The trials of a study that were started, without results taken over, in the order of Optuna's."""
    num_baselines = study.user_attrs.get("num_baselines", 1)
    goal, runs = Goal.model_validate(study.user_attrs.get("goal", {})), study.user_attrs.get(RUNS, {})
    data = study.user_attrs.get("data")
    trials = [
        as_trial(study.study_name, trial, trial.number < num_baselines, goal, data)
        for trial in optuna_trials
        if {"recipe", "state"} <= trial.user_attrs.keys() and PRIOR not in trial.user_attrs
    ]
    keys = [str(trial.number) for trial in trials]
    return [replace(t, mlflow_run_id=runs[key]) if key in runs else t for t, key in zip(trials, keys, strict=True)]


def extension_of(study: optuna.Study) -> Extension | None:
    """The extension in a study's attributes; None for a search that extends no other."""
    attribute = study.user_attrs.get("extension")
    return Extension(**attribute) if attribute else None


def _with_present_state(store: Store, trial: Trial) -> Trial:
    """The trial, interrupted if the record says that it runs but no process works on its search."""
    if trial.state == "running" and not store.is_running(trial.search):
        return replace(trial, state="interrupted")
    return trial
