"""Reading Optuna's trials of a record, finished ones from a cache file where there are many.

Optuna takes most of a millisecond to read a trial, and a finished trial never changes again. The file may be deleted at
any time.
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
MIN_NEW = 500  # number of finished trials missing in the file, from which it is written again


def read_optuna_trials(store: Store, study: Study, storage: RDBStorage) -> list[FrozenTrial]:
    """All trials by number; those from the cache file lack intermediate values and times."""
    path = store.search(study.study_name) / FILE
    finished, open_ids, last_id = _load(path, study)
    # Optuna's own cache in memory asks for missing trials in the same way.
    new = storage._get_trials(study._study_id, None, open_ids, last_id)
    trials = sorted([*finished, *new], key=lambda trial: trial.number)
    if path.parent.is_dir() and sum(trial.state.is_finished() for trial in new) >= MIN_NEW:
        with contextlib.suppress(OSError):  # a read-only store
            _save(path, study, trials)
    return trials


def _load(path: Path, study: Study) -> tuple[list[FrozenTrial], set[int], int]:
    """The finished trials of the cache file, the ids of open ones and the last id.

    Nothing is known if the file is missing, damaged or of another search.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        cached: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (cached["format"], cached["id"]) == (FORMAT, study.user_attrs.get("id")):
            return _trials(cached), {int(number) for number in cached["open"]}, int(cached["last"])
    return [], set(), -1


def _trials(cached: dict[str, Any]) -> list[FrozenTrial]:
    names_and_distributions = [(name, json_to_distribution(text)) for name, text in cached["distributions"]]
    return [_trial(document, names_and_distributions) for document in cached["trials"]]


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
        ranges = [(name, distribution_to_json(each)) for name, each in trial.distributions.items()]
        documents.append(
            {
                "number": trial.number,
                "id": trial._trial_id,
                "state": trial.state.name,
                "values": trial.values,
                "params": trial.params,
                "distributions": [indices.setdefault(each, len(indices)) for each in ranges],
                "user_attrs": trial.user_attrs,
            }
        )
    contents = {
        "format": FORMAT,
        "id": study.user_attrs.get("id"),
        "open": [trial._trial_id for trial in trials if not trial.state.is_finished()],
        "last": max(trial._trial_id for trial in trials),
        "distributions": list(indices),
        "trials": documents,
    }
    scratch = path.with_suffix(f".{os.getpid()}")
    try:
        scratch.write_text(json.dumps(contents), encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
