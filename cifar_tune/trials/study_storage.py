"""A study held in memory, whose changes go to the database in one transaction for each event of a search.

Optuna's own storage of a database commits every sampled value and every attribute by itself, and reads back what this
process has written. A search is the only one that writes its study, so it reads the study once.
"""

import copy
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import Connection, exists, insert, select, update
from sqlalchemy.dialects import sqlite

from cifar_tune.errors import UserError

Model = type[models.BaseModel]
Row = dict[str, Any]

TRIALS = models.TrialModel.__table__
KEYS: dict[Model, tuple[str, str]] = {  # of the rows that belong to a trial or to a study
    models.TrialParamModel: ("trial_id", "param_name"),
    models.TrialValueModel: ("trial_id", "objective"),
    models.TrialIntermediateValueModel: ("trial_id", "step"),
    models.TrialUserAttributeModel: ("trial_id", "key"),
    models.TrialSystemAttributeModel: ("trial_id", "key"),
    models.StudyUserAttributeModel: ("study_id", "key"),
    models.StudySystemAttributeModel: ("study_id", "key"),
}


def _upsert(model: Model) -> sqlite.Insert:
    """Inserts rows, or puts them in the place of those with the same keys."""
    statement = sqlite.insert(model)
    replaced = {
        column.name: statement.excluded[column.name]
        for column in model.__table__.columns
        if column.name not in KEYS[model] and not column.primary_key
    }
    return statement.on_conflict_do_update(index_elements=KEYS[model], set_=replaced)


UPSERTS = {model: _upsert(model) for model in KEYS}


class StudyStorage(InMemoryStorage):
    """A storage with the one study `name` of a database.

    The database is read here, and from then on it is written only, by `save`. Its ids are other ones: here a trial's id
    is its number.
    """

    def __init__(self, database: RDBStorage, name: str) -> None:
        super().__init__()
        self._database = database
        self._name = name
        self._study_row_id = row_id = database.get_study_id_from_name(name)
        study_id = super().create_new_study(database.get_study_directions(row_id), name)
        study = self._studies[study_id]
        study.user_attrs, study.system_attrs = (
            database.get_study_user_attrs(row_id),
            database.get_study_system_attrs(row_id),
        )
        trials = database.get_all_trials(row_id, deepcopy=False)
        self._row_ids = [trial._trial_id for trial in trials]  # of the saved trials in the database, by number
        self._saved = _snapshots(trials)  # what the database has of trials that may still change
        for number, trial in enumerate(trials):
            if trial.number != number:
                raise ValueError(f"The study {name} lacks trial {number}.")
            self._adopt(study_id, trial)
        self._saved_attrs = study.user_attrs, study.system_attrs  # Optuna changes a copy
        self._changed: set[int] = set()  # numbers of trials

    def _adopt(self, study_id: int, trial: FrozenTrial) -> None:
        """Add a trial as `create_new_trial` would, but not a copy of it, which takes as long as reading it."""
        self._max_trial_id = trial._trial_id = trial.number
        self._trial_id_to_study_id_and_number[trial.number] = (study_id, trial.number)
        self._studies[study_id].trials.append(trial)
        self._update_cache(trial.number, study_id)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Add a trial, and note that it is to be written."""
        with self._lock:
            number = super().create_new_trial(study_id, template_trial)
            self._changed.add(number)
            return number

    def _set_trial(self, trial_id: int, trial: FrozenTrial) -> None:
        super()._set_trial(trial_id, trial)
        self._changed.add(trial_id)

    def check_database(self) -> None:
        """Raise the database's error if the study cannot be read there any more."""
        with self._database.engine.connect() as connection:
            self._check_study(connection)

    def save(self, below: int, but: Collection[int] = ()) -> None:
        """Write what changed since the last time in one transaction: the study, and its trials with numbers `below`.

        Trials `but` these numbers; the database has them already. After an error nothing is written, and the next call
        tries again.
        """
        with self._lock:
            study = self._studies[0]
            attrs = study.user_attrs, study.system_attrs
            trials = [study.trials[number] for number in sorted(self._changed) if number < below and number not in but]
            if trials or attrs != self._saved_attrs:
                self._row_ids += self._write(trials, [*self._study_rows(attrs)])
                for trial in trials:
                    self._saved.pop(trial.number, None)
                self._saved |= _snapshots(trials)
                self._saved_attrs = attrs
                self._changed -= {trial.number for trial in trials}

    def _write(self, trials: list[FrozenTrial], study_rows: list[tuple[Model, Row]]) -> list[int]:
        """Write these trials and rows of the study; returns the ids of new trials, which are the last ones."""
        rows: dict[Model, list[Row]] = defaultdict(list)
        for model, row in study_rows:
            rows[model].append({"study_id": self._study_row_id, **row})
        num_saved, new_ids = len(self._row_ids), list[int]()
        with self._database.engine.begin() as connection:
            _lock(connection)
            self._check_study(connection)
            if any(trial.number >= num_saved for trial in trials):
                self._check_alone(connection)
            for trial in trials:
                saved = self._saved.get(trial.number)
                if trial.number >= num_saved:
                    row_id = self._insert(connection, trial)
                    new_ids.append(row_id)
                else:
                    row_id = self._row_ids[trial.number]
                    if saved is None or saved.state != trial.state:
                        connection.execute(update(TRIALS).where(TRIALS.c.trial_id == row_id).values(_columns(trial)))
                for model, row in _changed_rows(trial, saved):
                    rows[model].append({"trial_id": row_id, **row})
            for model, of_model in rows.items():
                connection.execute(UPSERTS[model], of_model)
        return new_ids

    def _insert(self, connection: Connection, trial: FrozenTrial) -> int:
        values = {"study_id": self._study_row_id, "number": trial.number, **_columns(trial)}
        key = connection.execute(insert(TRIALS).values(values)).inserted_primary_key
        assert key is not None
        return int(key[0])

    def _check_study(self, connection: Connection) -> None:
        """Raise Optuna's error for a study that is not there, if another program has deleted it."""
        query = select(models.StudyModel.study_id).where(models.StudyModel.study_name == self._name)
        if connection.execute(query).scalar() != self._study_row_id:
            raise KeyError(models.NOT_FOUND_MSG)

    def _check_alone(self, connection: Connection) -> None:
        """Raise a UserError if another program has added trials, because two would get the same number."""
        last = self._row_ids[-1] if self._row_ids else -1
        theirs = TRIALS.c.study_id == self._study_row_id, TRIALS.c.trial_id > last
        if connection.execute(select(exists().where(*theirs))).scalar():
            raise UserError(
                f"Another program has added trials to the search {self._name} while it ran; "
                f"run the same command again to go on with them."
            )

    def _study_rows(self, attrs: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Iterator[tuple[Model, Row]]:
        tables = models.StudyUserAttributeModel, models.StudySystemAttributeModel
        for model, now, saved in zip(tables, attrs, self._saved_attrs, strict=True):
            for key in _changed_keys(now, saved):
                yield model, _attribute(now, key)


def _lock(connection: Connection) -> None:
    """Keep other programs from writing until the transaction ends, so that what it reads first stays true.

    Python begins a transaction in SQLite with the first row that is written, and not before what is read.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _snapshots(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The open trials as they are now, by number; whoever holds an `optuna.Trial` may change the original."""
    snapshots = {trial.number: copy.copy(trial) for trial in trials if not trial.state.is_finished()}
    for snapshot in snapshots.values():
        for name in ("params", "distributions", "intermediate_values", "user_attrs", "system_attrs"):
            setattr(snapshot, name, dict(getattr(snapshot, name)))
    return snapshots


def _columns(trial: FrozenTrial) -> Row:
    """The columns of the trial's own row that change."""
    return {
        "state": trial.state,
        "datetime_start": _utc(trial.datetime_start),
        "datetime_complete": _utc(trial.datetime_complete),
    }


def _utc(local: datetime | None) -> datetime | None:
    """Optuna's database has times in UTC, and its trials have them in local time, both without a time zone."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)


def _changed_rows(trial: FrozenTrial, saved: FrozenTrial | None) -> Iterator[tuple[Model, Row]]:
    """What differs from the saved trial, as rows of Optuna's tables without the trial's id."""
    for name in _changed_keys(trial.params, saved.params if saved else {}):
        distribution = trial.distributions[name]
        number = distribution.to_internal_repr(trial.params[name])
        row = {"param_name": name, "param_value": number, "distribution_json": distribution_to_json(distribution)}
        yield models.TrialParamModel, row
    if trial.values and not (saved and saved.values):
        for objective, value in enumerate(trial.values):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            yield models.TrialValueModel, {"objective": objective, "value": stored, "value_type": kind}
    to_stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
    for step in _changed_keys(trial.intermediate_values, saved.intermediate_values if saved else {}):
        score, score_kind = to_stored(trial.intermediate_values[step])
        row = {"step": step, "intermediate_value": score, "intermediate_value_type": score_kind}
        yield models.TrialIntermediateValueModel, row
    for key in _changed_keys(trial.user_attrs, saved.user_attrs if saved else {}):
        yield models.TrialUserAttributeModel, _attribute(trial.user_attrs, key)
    for key in _changed_keys(trial.system_attrs, saved.system_attrs if saved else {}):
        yield models.TrialSystemAttributeModel, _attribute(trial.system_attrs, key)


def _changed_keys(now: Mapping[Any, Any], saved: Mapping[Any, Any]) -> list[Any]:
    return [key for key in now if key not in saved or now[key] is not saved[key]]


def _attribute(attrs: Mapping[str, Any], key: str) -> Row:
    return {"key": key, "value_json": json.dumps(attrs[key])}
