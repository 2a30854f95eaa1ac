"""The storage of a search's study: what it holds in memory is in the database, as Optuna itself reads it."""

import math
import sqlite3
from contextlib import closing
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event

from cifar_tune.errors import UserError
from cifar_tune.store import Store, open_store
from cifar_tune.trials.storage import open_storage
from cifar_tune.trials.study_storage import StudyStorage

ALL = 10**6
RANGES = {
    "lr": FloatDistribution(1e-5, 1.0, log=True),
    "width": IntDistribution(1, 64),
    "name": CategoricalDistribution(("adam", "sgd", None, True, 1)),
}


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("store"))


def opened(store: Store, name: str = "s", num_objectives: int = 1) -> optuna.Study:
    database = open_storage(store)
    directions = [StudyDirection.MAXIMIZE] * num_objectives
    optuna.create_study(storage=database, study_name=name, directions=directions, load_if_exists=True)
    return optuna.load_study(study_name=name, storage=StudyStorage(database, name))


def saved(study: optuna.Study, below: int = ALL) -> None:
    assert isinstance(study._storage, StudyStorage)
    study._storage.save(below)


def as_optuna_reads(store: Store, name: str = "s") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=store.optuna_url)


def contents(trial: FrozenTrial) -> dict[str, Any]:
    """Everything of a trial but its id, in a form that NaN does not disturb."""
    names = ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs")
    times = {name: getattr(trial, name) for name in ("datetime_start", "datetime_complete")}
    scores = {step: repr(score) for step, score in trial.intermediate_values.items()}
    return {**{name: getattr(trial, name) for name in names}, **times, "scores": scores}


numbers = st.integers(0, 4)
attribute = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
steps = st.one_of(
    st.tuples(st.just("ask")),
    st.tuples(st.just("enqueue"), st.floats(1e-5, 1.0)),
    st.tuples(st.just("suggest"), numbers, st.sampled_from(sorted(RANGES))),
    st.tuples(st.just("attribute"), numbers, st.text(min_size=1, max_size=3), attribute),
    st.tuples(st.just("report"), numbers, st.integers(0, 3), st.floats()),
    st.tuples(st.just("tell"), numbers, st.sampled_from(["COMPLETE", "PRUNED", "FAIL"]), st.floats(allow_nan=False)),
    st.tuples(st.just("study attribute"), st.text(min_size=1, max_size=3), attribute),
    st.tuples(st.just("save")),
    st.tuples(st.just("reopen")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(steps, max_size=25), name=st.uuids())
def test_what_happens_in_memory_is_read_by_optuna(store: Store, plan: list[tuple[Any, ...]], name: object) -> None:
    """Whatever happens, and whenever it is saved: Optuna reads from the file what the storage says."""
    study, live = opened(store, str(name)), dict[int, optuna.Trial]()
    for action, *arguments in plan:
        if action == "ask":
            trial = study.ask()
            live[trial.number] = trial
        elif action == "enqueue":
            study.enqueue_trial({"lr": arguments[0]})
        elif action == "study attribute":
            study.set_user_attr(*arguments)
        elif action == "save":
            saved(study)
        elif action == "reopen":
            saved(study)
            study, live = opened(store, str(name)), {}
        elif arguments[0] in live:
            _act(study, live, action, *arguments)
    saved(study)
    theirs = as_optuna_reads(store, str(name))
    assert [contents(trial) for trial in theirs.trials] == [contents(trial) for trial in study.trials]
    assert theirs.user_attrs == study.user_attrs
    again = opened(store, str(name))
    assert [contents(trial) for trial in again.trials] == [contents(trial) for trial in study.trials]


def _act(study: optuna.Study, live: dict[int, optuna.Trial], action: str, number: int, *arguments: Any) -> None:  # noqa: ANN401
    trial = live[number]
    if action == "suggest":
        trial._suggest(arguments[0], RANGES[arguments[0]])
    elif action == "attribute":
        trial.set_user_attr(*arguments)
    elif action == "report":
        study._storage.set_trial_intermediate_value(trial._trial_id, *arguments)
    else:
        state, value = TrialState[arguments[0]], arguments[1]
        study.tell(live.pop(number), value if state == TrialState.COMPLETE else None, state=state)


def test_all_that_one_event_changes_is_one_transaction(store: Store) -> None:
    study = opened(store)
    commits: list[object] = []
    assert isinstance(study._storage, StudyStorage)
    event.listen(study._storage._database.engine, "commit", commits.append)
    trial = study.ask(RANGES)
    trial.set_user_attr("recipe", {"epochs": 4})
    trial.set_user_attr("state", "running")
    trial.report(0.5, 1)
    study.set_user_attr("exhausted", value=True)
    assert as_optuna_reads(store).trials == []
    saved(study)
    assert len(commits) == 1
    assert contents(as_optuna_reads(store).trials[0]) == contents(study.trials[0])
    saved(study)
    assert len(commits) == 1


def test_a_trial_that_is_not_started_leaves_no_trace(store: Store) -> None:
    study = opened(store)
    first, second = study.ask(), study.ask()
    second.set_user_attr("recipe", {})
    saved(study, below=second.number)
    assert [trial.number for trial in as_optuna_reads(store).trials] == [first.number]
    saved(study, below=second.number + 1)
    assert as_optuna_reads(store).trials[1].user_attrs == {"recipe": {}}


def test_values_of_several_objectives_and_infinite_ones_are_kept(store: Store) -> None:
    study = opened(store, num_objectives=2)
    study.tell(study.ask(), [0.5, math.inf])
    saved(study)
    assert as_optuna_reads(store).trials[0].values == [0.5, math.inf]
    assert opened(store, num_objectives=2).trials[0].values == [0.5, math.inf]


def test_finished_trials_are_added_as_they_are(store: Store) -> None:
    study = opened(store)
    study.add_trial(
        create_trial(value=0.5, params={"width": 3}, distributions={"width": RANGES["width"]}, user_attrs={"a": 1})
    )
    saved(study)
    assert contents(as_optuna_reads(store).trials[0]) == contents(study.trials[0])


def test_a_study_that_was_deleted_is_not_written(store: Store) -> None:
    study = opened(store)
    study.ask()
    optuna.delete_study(study_name="s", storage=store.optuna_url)
    optuna.create_study(study_name="other", storage=store.optuna_url)  # gets the row of the one that was deleted
    with pytest.raises(KeyError, match="does not exist"):
        saved(study)
    assert as_optuna_reads(store, "other").trials == []


def test_two_programs_that_add_trials_are_told_so(store: Store) -> None:
    study = opened(store)
    study.ask()
    as_optuna_reads(store).ask()
    with pytest.raises(UserError, match="Another program has added trials to the search s while it ran"):
        saved(study)
    assert len(as_optuna_reads(store).trials) == 1


def test_no_program_adds_trials_between_the_look_and_the_write(store: Store) -> None:
    study = opened(store)
    study.ask()
    storage = study._storage
    assert isinstance(storage, StudyStorage)
    refusals: list[str] = []

    def write_too(*arguments: object) -> None:
        if str(arguments[2]).startswith("INSERT INTO trials "):
            with closing(sqlite3.connect(store.optuna_path, timeout=0)) as other:
                try:
                    other.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    refusals.append(str(error))

    event.listen(storage._database.engine, "before_cursor_execute", write_too)
    saved(study)
    assert refusals == ["database is locked"]
    assert len(as_optuna_reads(store).trials) == 1


def test_what_could_not_be_written_is_written_by_the_next_call(store: Store) -> None:
    study = opened(store)
    trial = study.ask()
    storage = study._storage
    assert isinstance(storage, StudyStorage)

    def fail(*arguments: object) -> None:
        raise OSError("no room")

    event.listen(storage._database.engine, "commit", fail)
    with pytest.raises(OSError, match="no room"):
        saved(study)
    event.remove(storage._database.engine, "commit", fail)
    assert as_optuna_reads(store).trials == []
    trial.set_user_attr("state", "running")
    saved(study)
    assert [contents(each) for each in as_optuna_reads(store).trials] == [contents(each) for each in study.trials]
