"""What a search writes to MLflow while it runs: a parent run for the search and a child run for each trial.

The record (search/record.py) is what counts, and MLflow only shows it. Runs are keyed by search and trial number, so
writing the same trial twice changes nothing. Each data set has its own experiment, because scores on different ones
cannot be compared.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest

import numpy as np
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, Metric, Param, Run, RunTag

from cifar_tune.store import Store
from cifar_tune.tracking.experiments import open_experiment
from cifar_tune.tracking.runs import (
    NOTE_TAG,
    PARENT_TAG,
    SEARCH_ID_TAG,
    SEARCH_TAG,
    STATE_TAG,
    TRIAL_TAG,
    find_runs,
    open_client,
    parents_of,
    without_doubles,
)
from cifar_tune.tracking.subject import Subject
from cifar_tune.training.scores import metric_name
from cifar_tune.trials.facts import FIRST_EPOCH, PREFIX, RUNGS, TAKEN_AT
from cifar_tune.trials.ranking import Leaders, gain_in_points
from cifar_tune.trials.trial import State, Trial
from cifar_tune.wording import format_setting

SECONDS_BETWEEN_WRITES = 5.0  # of a running trial; the end of a trial is written at once
MAX_NAME = 60  # characters of the sampled values in a run's name
MAX_PER_BATCH = 1000  # MLflow's limit of metrics, parameters and tags together
NOT_TAGS = (PREFIX, RUNGS)  # prefixes of the facts that are not written, because only their sums are of interest

OPEN = ("RUNNING", "SCHEDULED")  # statuses of runs that have not ended
STATUSES: dict[State, str] = {
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


@dataclass
class _Shown:
    """The part of a trial that MLflow has."""

    run_id: str
    status: str
    scores: list[float]  # by epoch; an epoch that was trained again may have another one
    parent_id: str | None
    has_params: bool = True
    written_at: float = -math.inf


class Tracker:
    """Writes one search to MLflow, whose errors it raises: then a new tracker looks up what there is, and goes on.

    `on_run` gets the number of each trial whose run is not the one in the trial, with the run's id.
    """

    def __init__(self, store: Store, subject: Subject, on_run: Callable[[int, str], None]) -> None:
        self._client = open_client(store)
        self._subject = subject
        self._on_run = on_run
        self._own = {SEARCH_TAG: subject.search, SEARCH_ID_TAG: subject.id}
        self._experiment_id = open_experiment(self._client, store, subject.dataset)
        self._dataset = DatasetInput(
            DatasetEntity(subject.dataset, subject.digest[:36], "cifar-tune", subject.size or "unknown")
        )
        self._leaders = Leaders()
        self._ended: set[int] = set()  # numbers of trials
        runs = without_doubles(self._client, find_runs(self._client, subject.id))
        parent = next(iter(parents_of(runs)), None)
        self._parent_id: str | None = parent.info.run_id if parent else None
        self._metrics: dict[str, float] = parent.data.metrics if parent else {}  # of the parent run
        if self._parent_id is not None:
            self._client.update_run(self._parent_id, status="RUNNING")
        self._shown = self._find_shown(runs)

    def _find_shown(self, runs: Sequence[Run]) -> dict[int, _Shown]:
        """What MLflow has of each trial."""
        shown = {}
        for run in runs:
            tags, info = run.data.tags, run.info
            if TRIAL_TAG in tags:
                scores, has_params = self._scores(run), bool(run.data.params)
                shown[int(tags[TRIAL_TAG])] = _Shown(info.run_id, info.status, scores, tags.get(PARENT_TAG), has_params)
        return shown

    def _start_parent(self) -> str:
        tags = {**self._subject.tags, **self._own, NOTE_TAG: self._subject.description}
        run = self._client.create_run(self._experiment_id, run_name=self._subject.search, tags=tags)
        self._client.log_inputs(run.info.run_id, [self._dataset])
        return str(run.info.run_id)

    def _scores(self, run: Run) -> list[float]:
        if run.info.status == "FINISHED":
            return []  # nothing more is written to it
        history = self._client.get_metric_history(run.info.run_id, metric_name(self._subject.score))
        last = {metric.step: metric.value for metric in sorted(history, key=lambda metric: metric.timestamp)}
        return [last[step] for step in sorted(last)]

    def adopt(self, trials: Sequence[Trial]) -> list[Trial]:
        """Take in the trials so far; returns those of which MLflow lacks the run, the start or the end.

        A process may have died between the record and MLflow, MLflow may have been away, or somebody deleted runs.
        """
        if self._shown and self._parent_id is None:
            self._parent_id = self._start_parent()
        for shown in self._shown.values():
            if shown.parent_id != self._parent_id and self._parent_id is not None:
                self._client.set_tag(shown.run_id, PARENT_TAG, self._parent_id)
        for trial in trials:
            if trial.number in self._shown:
                self._hand_over(trial, self._shown[trial.number])
        self._ended = {trial.number for trial in trials if trial.is_over}
        self._leaders = Leaders(trials)
        self._write_best()
        return [trial for trial in trials if self._lacks(trial)]

    def _lacks(self, trial: Trial) -> bool:
        shown = self._shown.get(trial.number)
        if shown is None or trial.state == "running" or shown.status != STATUSES[trial.state]:
            return True
        return trial.state == "paused" and shown.scores != trial.scores  # it may have been taken up meanwhile

    def update(self, trial: Trial) -> None:
        """Write a trial's present state; a running trial is written no more often than every few seconds."""
        shown = self._shown.get(trial.number) or self._start_run(trial)
        is_new = shown.status != STATUSES[trial.state]
        if is_new or trial.state != "running" or time.monotonic() - shown.written_at > SECONDS_BETWEEN_WRITES:
            self._write(trial, shown)
        if trial.is_over:
            self._ended.add(trial.number)
        if trial.is_complete:
            self._leaders.note(trial)
            self._write_best()

    def _hand_over(self, trial: Trial, shown: _Shown) -> None:
        if trial.mlflow_run_id != shown.run_id:
            self._on_run(trial.number, shown.run_id)

    def finish(self, state: State) -> None:
        """Close the parent run; there is none if no trial has started."""
        if self._parent_id is None:
            return
        self._client.set_tag(self._parent_id, STATE_TAG, state)
        self._client.set_terminated(self._parent_id, STATUSES[state])

    def _write_best(self) -> None:
        """Write the best score and its gain in points to the parent run, if they changed."""
        best = self._leaders.best
        if self._parent_id is None or best is None or best.is_rerun:
            return
        gain = gain_in_points(best, self._leaders.baseline)
        metrics = {
            f"best_{metric_name(best.goal.score)}": best.score,
            "gain": None if gain is None else round(gain, 6),  # 16.8, and not 16.799999999999997
        }
        new = {name: value for name, value in metrics.items() if value is not None and self._metrics.get(name) != value}
        if new:
            now, step = int(time.time() * 1000), len(self._ended)
            self._client.log_batch(self._parent_id, [Metric(name, value, now, step) for name, value in new.items()])
            self._metrics |= new

    def _start_run(self, trial: Trial) -> _Shown:
        if self._parent_id is None:
            self._parent_id = self._start_parent()
        tags = {
            **self._own,
            TRIAL_TAG: str(trial.number),
            PARENT_TAG: self._parent_id,
            "cifar_tune.baseline": str(trial.is_baseline).lower(),
        }
        name = f"{self._subject.search} {trial.label.removeprefix('trial ')}{_describe_values(trial)}"
        taken_at = trial.facts.get(TAKEN_AT)  # None if the run begins with the trial, and not later
        start = None if taken_at is None else int(1000 * taken_at)
        run = self._client.create_run(self._experiment_id, start_time=start, run_name=name, tags=tags)
        shown = _Shown(run.info.run_id, "RUNNING", [], self._parent_id, has_params=False)
        self._shown[trial.number] = shown
        self._hand_over(trial, shown)
        return shown

    def _write(self, trial: Trial, shown: _Shown) -> None:
        """Write everything that MLflow lacks in as few requests as it allows, and the status if it changed."""
        params = []
        if not shown.has_params:
            self._client.log_inputs(shown.run_id, [self._dataset])  # first, so that a run with parameters has it
            params = [Param(name, _as_param(value)) for name, value in trial.recipe.flatten().items()]
        tags = [RunTag(name, value) for name, value in _tags(trial).items()]
        metrics = _metrics(trial, shown)
        num_first = MAX_PER_BATCH - len(params) - len(tags)
        self._client.log_batch(shown.run_id, metrics=metrics[:num_first], params=params, tags=tags)
        for start in range(num_first, len(metrics), MAX_PER_BATCH):
            self._client.log_batch(shown.run_id, metrics=metrics[start : start + MAX_PER_BATCH])
        shown.has_params = True
        scores = trial.scores
        shown.scores = scores + shown.scores[len(scores) :]
        shown.written_at = time.monotonic()
        status = STATUSES[trial.state]
        if status != shown.status and status in OPEN:
            self._client.update_run(shown.run_id, status=status)
        elif status != shown.status:
            self._client.set_terminated(shown.run_id, status)
        shown.status = status


def _metrics(trial: Trial, shown: _Shown) -> list[Metric]:
    """The metrics that MLflow lacks."""
    scores, ends = trial.scores, _ends_of_epochs(trial)
    metrics = [
        Metric(name, float(value), end, int(epoch["epoch"]))
        for epoch, end, score, written in zip_longest(trial.curve, ends, scores, shown.scores[: len(scores)])
        if score != written
        for name, value in epoch.items()
        if name not in ("epoch", "progress")
    ]
    score, is_new = trial.score, shown.status != STATUSES[trial.state]
    if trial.is_over and is_new and score is not None and scores[-1:] != [score]:
        # Chance for a run that broke down, or the best epoch's score; the latest one, so that it is the run's value.
        last = ends[-1] if ends else int(time.time() * 1000)
        results = {"val_accuracy": trial.accuracy or 0.0, metric_name(trial.goal.score): score}
        metrics += [Metric(name, value, last + 1, trial.epochs) for name, value in results.items()]
    return metrics


def _tags(trial: Trial) -> dict[str, str]:
    facts = {name: str(value) for name, value in trial.facts.items() if not name.startswith(NOT_TAGS)}
    tags = {STATE_TAG: trial.state, **facts}
    if trial.over_limits:
        tags["over_limits"] = ", ".join(trial.over_limits)
    if trial.error:
        tags["error"] = trial.error[-5000:]
    return tags


def _ends_of_epochs(trial: Trial) -> list[int]:
    """When each epoch ended, in milliseconds since 1970, by the worker's own account; now where there is none.

    Whenever an epoch is written, its metrics are the same, so MLflow keeps them once.
    """
    taken_at = trial.facts.get(TAKEN_AT)
    if taken_at is None:
        return [int(time.time() * 1000)] * trial.epochs
    seconds = list(accumulate(epoch["seconds"] for epoch in trial.curve))
    first = int(trial.facts.get(FIRST_EPOCH, 0))
    before = seconds[first - 1] if 0 < first <= len(seconds) else 0.0
    return [int(1000 * (taken_at + end - before)) for end in seconds]


def _as_param(value: object) -> str:
    """The value as text; floats like 0.00001 and not 1e-05, because the UI sorts them as texts."""
    return np.format_float_positional(value, trim="0") if isinstance(value, float) else str(value)


def _describe_values(trial: Trial) -> str:
    """`: sgd, lr=0.123`, as many values as a column of the UI shows; nothing for baselines and reruns."""
    if trial.is_baseline or trial.is_rerun:
        return ""
    settings = [format_setting(name.rpartition("/")[2], value) for name, value in trial.params.items()]
    settings = [setting.removeprefix("name=") for setting in settings]
    shown = [setting for i, setting in enumerate(settings) if len(", ".join(settings[: i + 1])) <= MAX_NAME]
    return f": {', '.join(shown)}" if shown else ""
