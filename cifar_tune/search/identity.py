"""The identity of a search: its name, space file, settings and seed. Opening a record starts a search or checks it."""

import ast
import difflib
import uuid
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection

from cifar_tune.errors import UserError
from cifar_tune.search.crashes import Crashes
from cifar_tune.search.forecast import Forecast
from cifar_tune.search.record import Record
from cifar_tune.search.space import Space
from cifar_tune.store import Store
from cifar_tune.trials.storage import open_storage


def open_record(store: Store, name: str, space: Space, seed: int) -> Record:
    """A search's record, made if there is none; a UserError where another search has the name already."""
    return open_record_in(open_storage(store), name, space, seed)


def open_record_in(storage: optuna.storages.BaseStorage, name: str, space: Space, seed: int) -> Record:
    """As `open_record`, in any storage of Optuna's: a simulation keeps its studies in memory."""
    from cifar_tune.search.samplers import build_sampler  # loads scipy.stats, a second that reports need not wait for

    directions = [StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] if space.search.minimize else [])]
    study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    identity = {"space": space.source, "settings": dict(space.settings), "seed": seed}
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
    forecast = Forecast(study, space.ranges, space.search.scheduler.levels)
    crashes = Crashes()
    study.sampler = build_sampler(space, forecast, crashes, seed + len(study.get_trials(deepcopy=False)))
    return Record(study, space, forecast, crashes)


def _is_same(stored: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two identities give the same trials; only what changes a result is a change of a space file."""
    return all(stored[key] == now[key] for key in ("settings", "seed")) and (
        stored["space"] == now["space"] or _code(stored["space"]) == _code(now["space"])
    )


def _code(source: str) -> str:
    """A space file's code without comments, layout, docstrings, and where it imports this package's names from."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.ImportFrom) and _is_own(node.module))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _is_own(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == "cifar_tune"


def _name_objectives(study: optuna.Study, space: Space) -> None:
    """Name the study's values for Optuna's own tools."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(["val_accuracy", *([space.search.minimize] if space.search.minimize else [])])


def _difference(stored: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What the search was started with and is different now: settings, seed or space file."""
    if stored["settings"] != now["settings"]:
        return " ".join(f"--set {name}={value}" for name, value in stored["settings"].items()) or "no --set"
    if stored["seed"] != now["seed"]:
        return f"--seed {stored['seed']}"
    lines = difflib.unified_diff(now["space"].splitlines(), stored["space"].splitlines(), lineterm="", n=0)
    changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
    return f"another space file, which differs in {len(changed)} lines: " + " | ".join(changed[:6])
