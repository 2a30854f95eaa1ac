"""The identity of a search: name, space file with helpers, settings, seed. Opening a record starts or checks one."""

import difflib
import uuid
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from cifar_tune.errors import UserError
from cifar_tune.search.crashes import Crashes
from cifar_tune.search.forecast import Forecast
from cifar_tune.search.meaning import same_results, same_settings
from cifar_tune.search.record import Record
from cifar_tune.search.space import Space
from cifar_tune.store import Store
from cifar_tune.training.scores import metric_name
from cifar_tune.trials.storage import explaining_damage, open_storage
from cifar_tune.trials.study_storage import StudyStorage

SPACE_FILE = "space file"


@explaining_damage
def forget_unstarted(store: Store, name: str) -> None:
    """Delete a study of which no trial started, because its process was killed: it binds nobody who takes the name."""
    storage = open_storage(store)
    if name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        if all(trial.state == TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
            optuna.delete_study(study_name=name, storage=storage)


@explaining_damage
def open_record(store: Store, name: str, space: Space, seed: int) -> Record:
    """A search's record, made if there is none; a UserError where another search has the name already."""
    database = open_storage(store)
    optuna.create_study(storage=database, study_name=name, directions=_directions(space), load_if_exists=True)
    return open_record_in(StudyStorage(database, name), name, space, seed)


def open_record_in(storage: InMemoryStorage, name: str, space: Space, seed: int) -> Record:
    """As `open_record`, in memory: a simulation has no store."""
    from cifar_tune.search.samplers import build_sampler  # loads scipy.stats, a second that reports need not wait for

    study = optuna.create_study(storage=storage, study_name=name, directions=_directions(space), load_if_exists=True)
    identity = {"space": space.source, "settings": dict(space.settings), "seed": seed}
    if space.helpers:
        identity["helpers"] = dict(space.helpers)
    stored = study.user_attrs.get("identity")
    if stored is None:
        _name_objectives(study, space)
        study.set_user_attr("id", uuid.uuid4().hex)
        study.set_user_attr("num_baselines", len(space.baselines))
        study.set_user_attr("goal", space.search.goal.model_dump())
        study.set_user_attr("identity", identity)
    elif not _is_same(stored, identity):
        raise UserError(
            f"The search {name} was started with {_difference(stored, identity)}; "
            f"use the same to continue it, or start a new search with --name."
        )
    for params in space.first_params():
        study.enqueue_trial(params, skip_if_exists=True)
    scheduler = space.search.scheduler
    uses_forecast = "forecast" in (space.search.sampler, scheduler.name)
    levels = scheduler.levels(space.baselines[0])
    forecast = Forecast(space.ranges, levels, of_whole=scheduler.of_whole) if uses_forecast else None
    crashes = Crashes()
    num_trials = len(study.get_trials(deepcopy=False))
    study.sampler = build_sampler(space, forecast, crashes, seed=seed, num_trials=num_trials)
    return Record(study, space, forecast, crashes)


def _directions(space: Space) -> list[StudyDirection]:
    """What the search asks for: the highest score, and the lowest cost where it minimizes one."""
    return [StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] if space.search.minimize else [])]


def _is_same(stored: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two identities give the same trials."""
    return (
        stored["seed"] == now["seed"]
        and same_settings(stored["settings"], now["settings"])
        and not _changed_files(stored, now)
    )


def _changed_files(stored: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The stored and the present text of the space file and of each helper, where they give other trials."""
    helpers, helpers_now = stored.get("helpers", {}), now.get("helpers", {})
    pairs = {name: (helpers.get(name, ""), helpers_now.get(name, "")) for name in sorted({*helpers, *helpers_now})}
    changed = {name: pair for name, pair in pairs.items() if not same_results(*pair, is_helper=True)}
    space = (stored["space"], now["space"])
    return changed if same_results(*space) else {SPACE_FILE: space, **changed}


def _name_objectives(study: optuna.Study, space: Space) -> None:
    """Name the study's values for Optuna's own tools."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        goal = space.search.goal
        study.set_metric_names([metric_name(goal.score), *([goal.minimize] if goal.minimize else [])])


def _difference(stored: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What the search was started with and is different now: settings, seed, space file or a helper."""
    if not same_settings(stored["settings"], now["settings"]):
        return " ".join(f"--set {name}={value}" for name, value in stored["settings"].items()) or "no --set"
    if stored["seed"] != now["seed"]:
        return f"--seed {stored['seed']}"
    file, (before, after) = next(iter(_changed_files(stored, now).items()))
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
    return f"another {file}, which differs in {len(changed)} lines: " + " | ".join(changed[:6])
