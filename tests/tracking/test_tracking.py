"""What a search writes to MLflow: real runs in a real SQLite store, from hand-made trials."""

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.made_trials import RunIds
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from cifar_tune.data.images import TrainingData
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.store import Store, open_store
from cifar_tune.tracking.address import tracking_url
from cifar_tune.tracking.runs import delete_runs, find_runs, write_outcome
from cifar_tune.tracking.subject import Subject
from cifar_tune.tracking.tracker import STATUSES, Tracker
from cifar_tune.training.scores import ScoreName
from cifar_tune.trials.goal import Goal
from cifar_tune.trials.trial import State, Trial

RECIPE = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet"},
    optimizer={"name": "sgd", "lr": 0.1},
    schedule={"name": "step", "every": 3},
    epochs=4,
    batch_size=32,
)
METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds", "images_per_second")
STATES_IN_MLFLOW: dict[State, str] = {  # each state of a trial and its status
    "running": "RUNNING",
    "paused": "SCHEDULED",
    "completed": "FINISHED",
    "stopped early": "FINISHED",
    "pruned": "FINISHED",
    "diverged": "FINISHED",
    "out of memory": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One for all tests, because making MLflow's tables takes seconds; each test has a search of its own."""
    return open_store(tmp_path_factory.mktemp("tracking"))


@pytest.fixture
def search(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", request.node.name)


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


class Room:
    """One search in MLflow: opens trackers as each process that works on it does, and reads their runs."""

    def __init__(self, store: Store, search: str, data: TrainingData) -> None:
        self.store = store
        self.search = search
        self.data = data
        self.run_ids = RunIds(search)
        self.client = MlflowClient(store.mlflow_url)

    def tracker(
        self, description: str = "A space.", tags: dict[str, str] | None = None, score: ScoreName = "accuracy"
    ) -> Tracker:
        size = f"{len(self.data.train)} + {len(self.data.val)} images"
        subject = Subject(
            self.search, self.run_ids.id, self.data.dataset, self.data.digest, size, description, tags or {}, score
        )
        return Tracker(self.store, subject, self.run_ids.set_mlflow_run)

    def catch_up(self, tracker: Tracker, trials: Sequence[Trial]) -> None:
        """Write what MLflow lacks, as the outbox does when it begins and after each failure."""
        self.update(tracker, *tracker.adopt(trials))

    def update(self, tracker: Tracker, *trials: Trial) -> None:
        for trial in trials:
            tracker.update(self.run_ids.note(trial))

    def runs(self) -> list[Run]:
        return find_runs(self.client, self.search)

    def parent(self) -> Run:
        (parent,) = [run for run in self.runs() if "mlflow.parentRunId" not in run.data.tags]
        return parent

    def children(self) -> dict[int, Run]:
        """The runs of trials by number; each trial has one run, under the one parent."""
        parent_id = self.parent().info.run_id
        children = [run for run in self.runs() if "cifar_tune.trial" in run.data.tags]
        assert {run.data.tags["mlflow.parentRunId"] for run in children} <= {parent_id}
        numbers = [int(run.data.tags["cifar_tune.trial"]) for run in children]
        assert len(numbers) == len(set(numbers)), "a trial has two runs"
        return dict(zip(numbers, children, strict=True))

    def history(self, number: int, metric: str = "val_accuracy") -> list[tuple[int, float]]:
        """A metric as (step, value) in the order of the steps."""
        metrics = self.client.get_metric_history(self.children()[number].info.run_id, metric)
        return sorted((metric.step, metric.value) for metric in metrics)

    def assert_shows(self, *trials: Trial) -> None:
        """MLflow has every trial once, with its state and each of its epochs once."""
        children = self.children()
        assert sorted(children) == [trial.number for trial in trials]
        for trial in trials:
            run = children[trial.number]
            assert run.info.status == STATES_IN_MLFLOW[trial.state]
            assert run.data.tags["cifar_tune.state"] == trial.state
            expected = [(int(epoch["epoch"]), epoch["val_accuracy"]) for epoch in trial.curve]
            score = trial.score
            if trial.is_over and score is not None and score not in trial.scores[-1:]:
                expected.append((trial.epochs, score))
            assert self.history(trial.number) == sorted(expected)
            assert run.data.metrics.get("val_accuracy") == self.score(trial)

    def score(self, trial: Trial) -> float | None:
        """The accuracy of a trial's run: the score, or the last epoch's accuracy if there is none."""
        last = trial.scores[-1] if trial.curve else None
        return trial.score if trial.is_over and trial.score is not None else last


@pytest.fixture
def room(store: Store, search: str, tiny: TrainingData) -> Room:
    return Room(store, search, tiny)


def trial(
    number: int = 0,
    state: State = "running",
    accuracies: Sequence[float] = (),
    error: str | None = None,
    recipe: Recipe = RECIPE,
) -> Trial:
    curve = [
        {"epoch": i, "progress": i / 4, **dict.fromkeys(METRICS, 0.1 * i), "val_accuracy": accuracy}
        for i, accuracy in enumerate(accuracies, start=1)
    ]
    return Trial("tiny", number, state, recipe, {}, number == 0, curve, {"num_parameters": 77_850}, error)


def test_a_search_is_one_parent_run_with_its_description_and_tags(room: Room) -> None:
    tracker = room.tracker("What it is.", {"torch": "2.9", "mlflow.source.git.commit": "abc-dirty"})
    room.update(tracker, trial(0, "completed", (0.2,)))
    tracker.finish("completed")
    parent = room.parent()
    assert parent.info.run_name == room.search
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.note.content"] == "What it is."
    assert parent.data.tags["torch"] == "2.9"
    assert parent.data.tags["mlflow.source.git.commit"] == "abc-dirty"
    assert parent.data.tags["cifar_tune.search"] == room.search
    assert parent.data.tags["cifar_tune.state"] == "completed"


def test_a_trial_is_a_child_run_with_its_whole_recipe(room: Room) -> None:
    tracker = room.tracker()
    room.update(tracker, trial(0), trial(1))
    children = room.children()
    assert sorted(children) == [0, 1]
    assert children[0].data.params == {name: str(value) for name, value in RECIPE.flatten().items()}
    assert [children[n].data.tags["cifar_tune.baseline"] for n in (0, 1)] == ["true", "false"]
    assert room.run_ids.by_trial == {number: run.info.run_id for number, run in children.items()}


def test_every_run_names_its_dataset(room: Room) -> None:
    room.update(room.tracker(), trial(0))
    for run in room.runs():
        assert run.inputs is not None
        ((dataset,)) = [each.dataset for each in run.inputs.dataset_inputs]
        assert (dataset.name, dataset.digest) == ("shapes", room.data.digest[:36])
        experiment = room.client.get_experiment(run.info.experiment_id)
        assert experiment.name == "cifar-tune shapes"
        assert experiment.artifact_location == (room.store.artifacts / "shapes").as_uri()


def test_every_metric_of_every_epoch_is_logged_at_its_step(room: Room) -> None:
    tracker = room.tracker()
    accuracies = (0.2, 0.3, 0.4, 0.5)
    room.update(tracker, *(trial(0, "running", accuracies[:n]) for n in range(5)), trial(0, "completed", accuracies))
    room.assert_shows(trial(0, "completed", accuracies))
    assert set(room.children()[0].data.metrics) == set(METRICS)
    losses: list[tuple[int, Any]] = [(n, pytest.approx(0.1 * n)) for n in (1, 2, 3, 4)]
    assert room.history(0, "train_loss") == losses
    assert room.children()[0].data.tags["num_parameters"] == "77850"


def test_each_state_has_its_status() -> None:
    assert STATUSES == STATES_IN_MLFLOW


@pytest.mark.parametrize("state", STATES_IN_MLFLOW)
def test_a_state_is_shown_as_a_status_and_a_tag(room: Room, state: State) -> None:
    room.update(room.tracker(), trial(0, state, (0.3,)))
    room.assert_shows(trial(0, state, (0.3,)))


PATIENT = RECIPE.replace({"early_stopping/name": "patience", "early_stopping/patience": 2})
SCORED: list[tuple[State, Recipe, tuple[float, ...], float]] = [
    ("stopped early", PATIENT, (0.2, 0.6, 0.4, 0.5), 0.6),
    ("completed", PATIENT, (0.2, 0.3, 0.6, 0.5), 0.6),
    ("completed", PATIENT, (0.2, 0.3, 0.4, 0.5), 0.5),
    ("pruned", PATIENT, (0.2, 0.6, 0.4), 0.6),
    ("completed", RECIPE, (0.2, 0.6, 0.4, 0.5), 0.5),
    ("diverged", RECIPE, (0.2, 0.6), 0.1),
    ("diverged", RECIPE, (), 0.1),
    ("out of memory", PATIENT, (0.2, 0.6), 0.1),
]


@pytest.mark.parametrize(("state", "recipe", "accuracies", "score"), SCORED)
def test_a_finished_run_has_its_trials_score(
    room: Room, state: State, recipe: Recipe, accuracies: tuple[float, ...], score: float
) -> None:
    ended = trial(0, state, accuracies, recipe=recipe)
    assert ended.score == score
    steps = [trial(0, "running", accuracies[:n], recipe=recipe) for n in range(len(accuracies) + 1)]
    room.update(room.tracker(), *steps, ended)
    run = room.children()[0]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["val_accuracy"] == score
    room.assert_shows(ended)


def test_a_search_for_another_score_has_it_under_its_name(room: Room) -> None:
    """With early stopping the first epoch counts, whose macro F1 is the best."""
    scores, accuracies = (0.6, 0.2, 0.3), (0.5, 0.7, 0.8)
    whole = trial(0, "completed", accuracies, recipe=PATIENT)
    curve = [{**epoch, "val_macro_f1": f1} for epoch, f1 in zip(whole.curve, scores, strict=True)]
    ended = replace(whole, curve=curve, goal=Goal(score="macro_f1"))
    room.update(room.tracker(score="macro_f1"), replace(ended, state="running"))
    room.update(room.tracker(score="macro_f1"), ended)
    assert room.history(0, "val_macro_f1") == [(1, 0.6), (2, 0.2), (3, 0.3), (3, 0.6)]
    metrics = room.children()[0].data.metrics
    assert (metrics["val_macro_f1"], metrics["val_accuracy"]) == (0.6, 0.5), "both of the epoch that counts"
    assert room.parent().data.metrics == {"best_val_macro_f1": 0.6, "gain": 0.0}


def test_a_status_that_a_killed_process_did_not_write_is_corrected(room: Room) -> None:
    ended = trial(0, "stopped early", (0.2, 0.6, 0.4, 0.5), recipe=PATIENT)
    room.update(room.tracker(), ended)
    room.client.update_run(room.children()[0].info.run_id, status="RUNNING")
    room.catch_up(room.tracker(), [ended])
    run = room.children()[0]
    assert (run.info.status, run.data.metrics["val_accuracy"]) == ("FINISHED", 0.6)


@pytest.mark.parametrize("state", ["stopped early", "diverged"])
def test_a_score_is_written_once_even_if_it_is_updated_again(room: Room, state: State) -> None:
    ended = trial(0, state, (0.2, 0.6, 0.4, 0.5), recipe=PATIENT)
    tracker = room.tracker()
    for _ in range(2):
        room.update(tracker, ended)
    room.assert_shows(ended)


def test_an_error_of_any_length_is_a_tag(room: Room) -> None:
    room.update(room.tracker(), trial(0), trial(0, "failed", error="x" * 20_000 + "\nKeyError: 'lr'"))
    assert room.children()[0].data.tags["error"].endswith("x\nKeyError: 'lr'")


def test_the_parent_run_has_the_best_score_and_its_gain(room: Room) -> None:
    first, better, worse = (trial(n, "completed", (score,)) for n, score in enumerate((0.5, 0.7, 0.6)))
    tracker = room.tracker()
    room.update(tracker, trial(1), better)
    assert room.parent().data.metrics == {"best_val_accuracy": 0.7}, "there is no baseline yet"
    room.update(tracker, trial(0), first)
    room.client.log_metric(
        room.parent().info.run_id, "best_val_accuracy", 0.1
    )  # as a process that died may have left it
    resumed = room.tracker()
    room.catch_up(resumed, [first, better])
    room.update(resumed, trial(2), worse, trial(3, "pruned", (0.9,)))
    assert room.parent().data.metrics == {"best_val_accuracy": 0.7, "gain": pytest.approx(20)}
    room.update(resumed, trial(4, "completed", (0.8,)))
    assert room.parent().data.metrics == {"best_val_accuracy": 0.8, "gain": pytest.approx(30)}
    history = room.client.get_metric_history(room.parent().info.run_id, "best_val_accuracy")
    assert sorted({metric.value for metric in history}) == [0.1, 0.7, 0.8]


def test_the_outcome_of_a_search_is_above_its_description(room: Room) -> None:
    room.update(room.tracker("What it is.\n\n***\n\nAt length."), trial(0, "completed", (0.5,)))
    for outcome in ("Best of 1 trial.", "Best of 2 trials."):
        write_outcome(room.store, room.run_ids.id, outcome)
    note = room.parent().data.tags["mlflow.note.content"]
    assert note == "Best of 2 trials.\n\n<!-- about -->\n\nWhat it is.\n\n***\n\nAt length."


def test_a_long_description_below_an_outcome_is_cut_as_code(room: Room) -> None:
    code = "lr = 0.1\n" * 1000
    room.update(room.tracker(f"```python\n{code}```"), trial(0, "completed", (0.5,)))
    for _ in range(2):
        write_outcome(room.store, room.run_ids.id, "Best of 1 trial.")
    note = room.parent().data.tags["mlflow.note.content"]
    assert len(note) <= 8000
    assert note.startswith("Best of 1 trial.")
    assert note.endswith("\n# ...\n```")


def test_a_search_in_which_no_trial_started_leaves_no_run(room: Room) -> None:
    room.tracker().finish("interrupted")
    assert room.runs() == []


def test_a_description_may_be_long(room: Room) -> None:
    """The description contains the space file, which may have any length."""
    room.update(room.tracker("a line of a space file\n" * 2000), trial(0))
    assert room.parent().data.tags["mlflow.note.content"].startswith("a line of a space file\n")


def test_the_same_update_twice_adds_nothing(room: Room) -> None:
    tracker = room.tracker()
    ended = [trial(0, "completed", (0.2, 0.3, 0.4, 0.5)), trial(1, "failed", (0.1,)), trial(2, "interrupted", (0.1,))]
    for _ in range(2):
        room.update(tracker, *ended)
    room.assert_shows(*ended)


def test_a_resumed_process_continues_the_same_runs(room: Room) -> None:
    first = room.tracker()
    done = trial(0, "completed", (0.2, 0.3, 0.4, 0.5))
    room.update(first, trial(0), done, trial(1), trial(1, "interrupted", (0.1, 0.2)))
    first.finish("interrupted")
    assert room.parent().info.status == "KILLED"
    before = {run.info.run_id for run in room.runs()}

    second = room.tracker()
    assert room.parent().info.status == "RUNNING"
    room.catch_up(second, [done, trial(1, "interrupted", (0.1, 0.2))])
    room.update(second, trial(1, "running", (0.1, 0.2)))
    assert room.children()[1].info.status == "RUNNING"
    room.update(second, trial(1, "running", (0.1, 0.2, 0.3)), trial(1, "completed", (0.1, 0.2, 0.3, 0.6)), trial(2))
    second.finish("completed")
    room.assert_shows(done, trial(1, "completed", (0.1, 0.2, 0.3, 0.6)), trial(2))
    assert before <= {run.info.run_id for run in room.runs()}
    assert len(room.runs()) == 4
    assert room.parent().info.status == "FINISHED"


def test_a_trial_that_is_paused_and_taken_up_again_has_one_run(room: Room) -> None:
    whole = trial(accuracies=(0.1, 0.2, 0.3, 0.4))
    tracker = room.tracker()
    states: list[State] = ["running", "paused", "running", "paused", "running", "completed"]
    for num_epochs, state in zip((1, 2, 2, 3, 3, 4), states, strict=True):
        so_far = replace(whole, state=state, curve=whole.curve[:num_epochs])
        room.update(tracker, so_far)
        assert room.children()[0].info.status == STATES_IN_MLFLOW[so_far.state]
        if state != "running":
            room.assert_shows(so_far)


def test_what_a_killed_process_did_not_write_of_a_trial_that_was_paused_twice_is_completed(room: Room) -> None:
    whole = trial(accuracies=(0.1, 0.2, 0.3, 0.4))
    room.update(room.tracker(), replace(whole, state="paused", curve=whole.curve[:1]))
    again = replace(whole, state="paused", curve=whole.curve[:3])
    room.catch_up(room.tracker(), [again])
    room.assert_shows(again)
    assert room.tracker().adopt([again]) == []


def test_the_runs_that_a_killed_process_left_are_completed(room: Room) -> None:
    """It wrote the record, and died before it wrote to MLflow."""
    room.update(room.tracker(), trial(0, "running", (0.2,)), trial(1, "running", (0.1,)), trial(2))
    ended = [
        trial(0, "completed", (0.2, 0.3, 0.4, 0.5)),
        trial(1, "pruned", (0.1, 0.15)),
        trial(2, "failed", error="KeyError"),
        trial(3, "diverged"),
    ]
    room.catch_up(room.tracker(), ended)
    room.assert_shows(*ended)
    room.catch_up(room.tracker(), ended)
    room.assert_shows(*ended)


def test_a_run_that_a_killed_process_left_running_is_closed(room: Room) -> None:
    room.update(room.tracker(), trial(0, "running", (0.2,)))
    room.catch_up(room.tracker(), [trial(0, "interrupted", (0.2, 0.3))])
    room.assert_shows(trial(0, "interrupted", (0.2, 0.3)))


def test_a_trial_of_many_epochs_is_completed_too(room: Room) -> None:
    """1,400 metrics: more than MLflow's REST interface takes at a time."""
    long = trial(0, "completed", [n / 1000 for n in range(200)])
    room.catch_up(room.tracker(), [long])
    room.assert_shows(long)


def test_a_run_without_parameters_is_completed(room: Room) -> None:
    """The process died between making the run and writing the recipe into it."""
    room.update(room.tracker(), trial(1, "completed", (0.1,)))
    parent = room.parent().info
    tags = {"cifar_tune.search_id": room.search, "cifar_tune.trial": "0", "mlflow.parentRunId": parent.run_id}
    room.client.create_run(parent.experiment_id, tags=tags)
    room.update(room.tracker(), trial(0), trial(0, "completed", (0.2,)))
    room.assert_shows(trial(0, "completed", (0.2,)), trial(1, "completed", (0.1,)))
    assert room.children()[0].data.params == {name: str(value) for name, value in RECIPE.flatten().items()}


def test_an_epoch_that_was_trained_again_with_another_result_is_written_again(room: Room) -> None:
    room.update(room.tracker(), trial(0), trial(0, "interrupted", (0.1, 0.2, 0.3)))
    room.update(room.tracker(), trial(0), trial(0, "completed", (0.1, 0.25, 0.3, 0.4)))
    last = dict(room.history(0))
    assert last == {1: 0.1, 2: 0.25, 3: 0.3, 4: 0.4}
    assert len(room.history(0)) == 5


def test_two_searches_do_not_see_each_other(store: Store, tiny: TrainingData) -> None:
    rooms = [Room(store, name, tiny) for name in ("one", "one.two")]
    for room in rooms:
        room.update(room.tracker(), trial(0))
    assert [len(room.runs()) for room in rooms] == [2, 2]


def test_the_users_own_server_is_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_url(store) == store.mlflow_url
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking_url(store) == "http://127.0.0.1:9"


def test_learning_rates_sort_as_texts_as_they_do_as_numbers(room: Room) -> None:
    rates = [1e-5, 0.0003, 0.001, 0.02, 1.0]
    for number, rate in enumerate(rates):
        recipe = trial(number).recipe.replace({"optimizer/lr": rate})
        room.update(room.tracker(), replace(trial(number), recipe=recipe))
    texts = [room.children()[number].data.params["optimizer/lr"] for number in range(len(rates))]
    assert sorted(texts) == texts
    assert [float(text) for text in texts] == rates


@pytest.mark.slow
def test_deleting_the_runs_of_a_search_leaves_nothing_behind(room: Room, store: Store, tiny: TrainingData) -> None:
    kept = Room(store, "kept", tiny)
    kept.update(kept.tracker(), trial(0))
    room.update(room.tracker(), trial(0, "completed", (0.2,)), trial(1, "completed", (0.2,)))
    run_ids = [run.info.run_id for run in room.runs()]
    assert delete_runs(store, room.search) == 3
    assert room.runs() == []
    ids = [experiment.experiment_id for experiment in room.client.search_experiments(ViewType.ALL)]
    assert not {run.info.run_id for run in room.client.search_runs(ids, run_view_type=ViewType.ALL)} & set(run_ids)
    assert set(rows_that_mention(store.root / "mlflow.db", run_ids)) <= {"inputs"}, "links that `mlflow gc` leaves"
    assert len(kept.runs()) == 2
    assert delete_runs(store, room.search) == 0


def rows_that_mention(database: Path, run_ids: Sequence[str]) -> dict[str, int]:
    """The number of rows in each table that name one of the runs."""
    counts: dict[str, int] = {}
    with sqlite3.connect(database) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
            mentioning = sum(any(run_id in map(str, row) for run_id in run_ids) for row in rows)
            if mentioning:
                counts[table] = mentioning
    connection.close()
    return counts
