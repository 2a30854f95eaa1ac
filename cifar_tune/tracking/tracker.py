"""What a search writes to MLflow while it runs: a parent run for the search and a child run for each trial.

The record (search/record.py) is what counts, and MLflow only shows it. Runs are keyed by search and trial number, so
writing the same trial twice changes nothing. Each data set has its own experiment, because scores on different ones
cannot be compared.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

import numpy as np
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient

from cifar_tune.data.images import TrainingData
from cifar_tune.errors import UserError
from cifar_tune.store import Store
from cifar_tune.tracking.runs import (
    KIND_TAG,
    NOTE_TAG,
    PARENT_TAG,
    SEARCH_ID_TAG,
    SEARCH_TAG,
    STATE_TAG,
    TRIAL_TAG,
    find_runs,
    open_client,
    parents_of,
)
from cifar_tune.trials.facts import PREFIX, RUNGS
from cifar_tune.trials.ranking import baseline_accuracy, best_trial, gain_in_points
from cifar_tune.trials.trial import State, Trial
from cifar_tune.wording import format_setting

SECONDS_BETWEEN_WRITES = 5.0  # of a running trial; the end of a trial is written at once
MAX_NAME = 60  # characters of the sampled values in a run's name
MAX_METRICS_PER_BATCH = 1000  # MLflow's limit
NOT_TAGS = (PREFIX, RUNGS)  # prefixes of the facts that are not written, because only their sums are of interest

STATUSES: dict[State, str] = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "stopped early": "FINISHED",
    "pruned": "FINISHED",
    "diverged": "FINISHED",
    "out of memory": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


class RunIds(Protocol):
    """The part of a search's record that the tracker uses.

    `id` distinguishes searches of the same name on a server that several stores share.
    """

    id: str

    def set_mlflow_run(self, number: int, run_id: str) -> None:
        """Store the run that shows the trial."""


@dataclass
class _Shown:
    """The part of a trial that MLflow has."""

    run_id: str
    status: str
    scores: list[float]  # validation accuracy by epoch; an epoch that was trained again may have another one
    has_params: bool = True
    written_at: float = 0.0


class Tracker:
    """Writes one search to MLflow while it runs. An Observer of the search."""

    def __init__(
        self, store: Store, search: str, data: TrainingData, description: str, tags: Mapping[str, str], run_ids: RunIds
    ) -> None:
        self._client = open_client(store)
        self._search = search
        self._run_ids = run_ids
        self._tags = tags
        self._own = {SEARCH_TAG: search, SEARCH_ID_TAG: run_ids.id}
        self._experiment_id = _experiment(self._client, store, data.dataset)
        self._dataset = DatasetInput(
            DatasetEntity(data.dataset, data.digest[:36], "cifar-tune", f"{len(data.train)} + {len(data.val)} images")
        )
        runs = find_runs(self._client, run_ids.id)
        parents = parents_of(runs)
        self._parent_id: str | None = parents[0].info.run_id if parents else None
        self._description = description
        self._trials: dict[int, Trial] = {}
        self._metrics: dict[str, float] = parents[0].data.metrics if parents else {}  # of the parent run
        if self._parent_id is not None:
            self._client.update_run(self._parent_id, status="RUNNING")
        self._shown = {
            int(run.data.tags[TRIAL_TAG]): _Shown(
                run.info.run_id, run.info.status, self._scores(run), bool(run.data.params)
            )
            for run in runs
            if TRIAL_TAG in run.data.tags
        }

    def _start_parent(self) -> str:
        tags = {**self._tags, **self._own, NOTE_TAG: self._description}
        run = self._client.create_run(self._experiment_id, run_name=self._search, tags=tags)
        self._client.log_inputs(run.info.run_id, [self._dataset])
        return str(run.info.run_id)

    def _scores(self, run: Run) -> list[float]:
        if run.info.status == "FINISHED":
            return []  # nothing more is written to it
        history = self._client.get_metric_history(run.info.run_id, "val_accuracy")
        last = {metric.step: metric.value for metric in sorted(history, key=lambda metric: metric.timestamp)}
        return [last[step] for step in sorted(last)]

    def catch_up(self, trials: Sequence[Trial]) -> None:
        """Write what the record has and MLflow lacks, because a process died between writing the two."""
        self._trials = {trial.number: trial for trial in trials}
        for trial in trials:
            shown = self._shown.get(trial.number)
            if trial.state != "running" and (shown is None or shown.status != STATUSES[trial.state]):
                self._show(trial)
        self._write_best()

    def update(self, trial: Trial) -> None:
        """Write a trial's present state; a running trial is written no more often than every few seconds."""
        self._show(trial)
        self._trials[trial.number] = trial
        if trial.is_complete:
            self._write_best()

    def _show(self, trial: Trial) -> None:
        shown = self._shown.get(trial.number) or self._start_run(trial)
        if not shown.has_params:
            self._write_params(trial, shown)
        if trial.state == "running" and not trial.mlflow_run_id:
            self._run_ids.set_mlflow_run(trial.number, shown.run_id)
        if trial.state != "running" or time.monotonic() - shown.written_at > SECONDS_BETWEEN_WRITES:
            self._write(trial, shown)

    def tick(self) -> None:
        """Do nothing between two updates."""

    def finish(self, state: State) -> None:
        """Close the parent run; there is none if no trial has started."""
        if self._parent_id is None:
            return
        self._client.set_tag(self._parent_id, STATE_TAG, state)
        self._client.set_terminated(self._parent_id, STATUSES[state])

    def _write_best(self) -> None:
        """Write the best score and its gain in points to the parent run, if they changed."""
        trials = self._trials.values()
        best = best_trial(trials)
        if self._parent_id is None or best is None or best.is_rerun:
            return
        gain = gain_in_points(best, baseline_accuracy(trials))
        metrics = {
            "best_val_accuracy": best.val_accuracy,
            "gain": None if gain is None else round(gain, 6),  # 16.8, and not 16.799999999999997
        }
        new = {name: value for name, value in metrics.items() if value is not None and self._metrics.get(name) != value}
        if new:
            now, step = int(time.time() * 1000), sum(trial.is_over for trial in trials)
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
        name = f"{self._search} {trial.label.removeprefix('trial ')}{_describe_values(trial)}"
        run = self._client.create_run(self._experiment_id, run_name=name, tags=tags)
        self._shown[trial.number] = _Shown(run.info.run_id, "RUNNING", [], has_params=False)
        return self._shown[trial.number]

    def _write_params(self, trial: Trial, shown: _Shown) -> None:
        self._client.log_inputs(shown.run_id, [self._dataset])
        params = [Param(name, _as_param(value)) for name, value in trial.recipe.flatten().items()]
        self._client.log_batch(shown.run_id, params=params)  # last, so that a run with parameters has its dataset
        shown.has_params = True

    def _write(self, trial: Trial, shown: _Shown) -> None:
        """Write everything that MLflow lacks in few batches, and the status if it changed."""
        now = int(time.time() * 1000)
        scores = [epoch["val_accuracy"] for epoch in trial.curve]
        metrics = [
            Metric(name, float(value), now, int(epoch["epoch"]))
            for epoch, score, written in zip_longest(trial.curve, scores, shown.scores[: len(scores)])
            if score != written
            for name, value in epoch.items()
            if name not in ("epoch", "progress")
        ]
        for start in range(0, len(metrics), MAX_METRICS_PER_BATCH):
            self._client.log_batch(shown.run_id, metrics=metrics[start : start + MAX_METRICS_PER_BATCH])
        score = trial.val_accuracy
        is_new = shown.status != STATUSES[trial.state]
        if trial.is_over and is_new and score is not None and scores[-1:] != [score]:
            # Chance for a run that broke down, or the best epoch's score; written last, so that it is the run's value.
            self._client.log_batch(shown.run_id, metrics=[Metric("val_accuracy", score, now + 1, trial.epochs)])
        facts = {name: str(value) for name, value in trial.facts.items() if not name.startswith(NOT_TAGS)}
        tags = {STATE_TAG: trial.state, **facts}
        if trial.over_limits:
            tags["over_limits"] = ", ".join(trial.over_limits)
        if trial.error:
            tags["error"] = trial.error[-5000:]
        self._client.log_batch(shown.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        shown.scores = scores + shown.scores[len(scores) :]
        shown.written_at = time.monotonic()
        status = STATUSES[trial.state]
        if status == "RUNNING" != shown.status:
            self._client.update_run(shown.run_id, status=status)
        elif status != shown.status:
            self._client.set_terminated(shown.run_id, status)
        shown.status = status


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


def _experiment(client: MlflowClient, store: Store, dataset: str) -> str:
    """The id of the data set's experiment, which is made if there is none."""
    name = f"cifar-tune {dataset}"
    try:
        experiment = client.get_experiment_by_name(name)
    except MlflowException:
        raise UserError(
            "The server that MLFLOW_TRACKING_URI names does not answer; start it, or unset the variable."
        ) from None
    if experiment is not None:
        return str(experiment.experiment_id)
    try:
        return _create_experiment(client, store, name, dataset)
    except MlflowException as error:
        experiment = client.get_experiment_by_name(name)  # another search may have made it meanwhile
        if experiment is None or error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        return str(experiment.experiment_id)


def _create_experiment(client: MlflowClient, store: Store, name: str, dataset: str) -> str:
    is_in_store = client.tracking_uri == store.mlflow_url
    location = (store.artifacts / dataset).as_uri() if is_in_store else None
    note = f"Searches of cifar-tune on {dataset}: each parent run is a search, and its child runs are the trials."
    tags = {KIND_TAG: "custom_model_development", NOTE_TAG: note}
    return str(client.create_experiment(name, artifact_location=location, tags=tags))
