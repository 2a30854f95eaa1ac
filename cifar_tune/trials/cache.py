"""Optuna's trials of a record, the finished ones from a file of the store where there are many.

Optuna takes most of a millisecond to read a trial. One that is over never changes again, so it need not be read twice.
The file may be deleted at any time.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from cifar_tune.store import Store

FILE = "finished.json"
FORMAT = 1
MIN_NEW = 500  # finished trials that the file lacks, to write it anew


def read_optuna_trials(store: Store, study: Study, storage: RDBStorage) -> list[FrozenTrial]:
    """All of them, by number; without the intermediate values and times of those that are in the file."""
    path = store.search(study.study_name) / FILE
    known = _load(path, study)
    # As Optuna's own cache in memory asks for what it lacks.
    new = storage._get_trials(study._study_id, None, set(known["open"]), known["last"])
    trials = sorted([*_trials(known), *new], key=lambda trial: trial.number)
    if path.parent.is_dir() and sum(trial.state.is_finished() for trial in new) >= MIN_NEW:
        with contextlib.suppress(OSError):  # a store that may only be read
            _save(path, study, trials)
    return trials


def _load(path: Path, study: Study) -> dict[str, Any]:
    """What the file holds; as good as nothing where there is none of this search."""
    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (known["format"], known["id"]) == (FORMAT, study.user_attrs.get("id")):
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"open": [], "last": -1, "distributions": [], "trials": []}


def _trials(known: dict[str, Any]) -> list[FrozenTrial]:
    names_and_distributions = [(name, json_to_distribution(text)) for name, text in known["distributions"]]
    return [_trial(document, names_and_distributions) for document in known["trials"]]


def _trial(document: dict[str, Any], distributions: Sequence[tuple[str, BaseDistribution]]) -> FrozenTrial:
    return FrozenTrial(
        number=document["number"],
        state=TrialState[document["state"]],
        value=None,
        values=document["values"],
        datetime_start=None,
        datetime_complete=None,
        params=document["params"],
        distributions=dict(distributions[i] for i in document["distributions"]),
        user_attrs=document["user_attrs"],
        system_attrs={},
        intermediate_values={},
        trial_id=document["id"],
    )


def _save(path: Path, study: Study, trials: Sequence[FrozenTrial]) -> None:
    indices: dict[tuple[str, str], int] = {}
    documents = []
    for trial in trials:
        if not trial.state.is_finished():
            continue
        used = [(name, distribution_to_json(found)) for name, found in trial.distributions.items()]
        documents.append(
            {
                "number": trial.number,
                "id": trial._trial_id,
                "state": trial.state.name,
                "values": trial.values,
                "params": trial.params,
                "distributions": [indices.setdefault(each, len(indices)) for each in used],
                "user_attrs": trial.user_attrs,
            }
        )
    known = {
        "format": FORMAT,
        "id": study.user_attrs.get("id"),
        "open": [trial._trial_id for trial in trials if not trial.state.is_finished()],
        "last": max(trial._trial_id for trial in trials),
        "distributions": list(indices),
        "trials": documents,
    }
    scratch = path.with_suffix(f".{os.getpid()}")
    try:
        scratch.write_text(json.dumps(known), encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
