"""What Optuna, MLflow and the report say of the trials of a search, and where they do not agree."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from cifar_tune.store import Store
from cifar_tune.trials.trial import OPTUNA_STATES, curve_of

MAX_RUNS = 50_000  # of one page of MLflow, its most
MAX_DELIVERIES = 5  # commands after a search
MAX_SHOWN = 5  # numbers of trials that are wrong alike


def command(store: Store, *arguments: str) -> list[str]:
    """A cifar-tune command on a store."""
    return [sys.executable, "-m", "cifar_tune", *arguments, "--store", str(store.root)]


def report_rows(store: Store, search: str) -> list[dict[str, Any]]:
    """The trials as `report` prints them."""
    arguments = command(store, "report", search, "--format", "json")
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def deliver_the_rest(store: Store, space: Path, environment: Mapping[str, str]) -> list[str]:
    """Run the command of a complete search again, until MLflow lacks nothing; returns what it lacked each time."""
    lacking: list[str] = []
    while not lacking or (lacking[-1] and len(lacking) <= MAX_DELIVERIES):
        arguments = command(store, "run", str(space))
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=True)
        lacking.append(" ".join(re.findall(r"MLflow lacks .*?;", done.stderr)))
    return [sentence for sentence in lacking if sentence]


def disagreements(store: Store, search: str, num_trials: int, url: str | None = None) -> list[str]:
    """What is not as it should be, in words; empty if everything has each trial and each of its epochs once.

    `url` is the tracking server's, if runs do not go to the store.
    """
    rows = {row["trial"]: row for row in report_rows(store, search)}
    client = MlflowClient(url or store.mlflow_url)
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = list(client.search_runs(experiments, f"tags.`cifar_tune.search` = '{search}'", max_results=MAX_RUNS))
    counts = Counter(run.data.tags.get("cifar_tune.trial") for run in runs)
    by_trial = {int(number): run for run in runs if (number := run.data.tags.get("cifar_tune.trial"))}
    trials = {trial.number: trial for trial in optuna.load_study(study_name=search, storage=store.optuna_url).trials}
    numbers = range(num_trials)
    states = {number: row["state"] for number, row in rows.items()}
    wrong = {
        "not in the report": [number for number in numbers if number not in rows],
        "in the report, but not of the search": [number for number in rows if number not in numbers],
        "not once in MLflow": [number for number in numbers if counts[str(number)] != 1],
        "with another state in Optuna": [n for n in rows if trials[n].state != OPTUNA_STATES.get(states[n])],
        "with another state in MLflow": [n for n in rows if n in by_trial and _state(by_trial[n]) != states[n]],
        "with epochs that are not there once in Optuna": [n for n in rows if _epochs(trials[n]) != rows[n]["epochs"]],
        "with epochs that are not there once in MLflow": [
            n for n in rows if n in by_trial and not _has_epochs(client, by_trial[n], rows[n]["epochs"])
        ],
    }
    sentences = [f"{_listed(numbers)} {what}" for what, numbers in wrong.items() if numbers]
    return sentences + ([] if counts[None] == 1 else [f"{counts[None]} parent runs in MLflow"])


def _listed(numbers: list[int]) -> str:
    rest = len(numbers) - MAX_SHOWN
    return f"trials {', '.join(map(str, numbers[:MAX_SHOWN]))}{f' and {rest} more' if rest > 0 else ''}"


def _state(run: Run) -> str | None:
    state = run.data.tags.get("cifar_tune.state")
    return None if state is None else str(state)


def _epochs(trial: optuna.trial.FrozenTrial) -> int | None:
    """The number of epochs, if they are 1, 2, 3 and so on."""
    epochs = [int(epoch["epoch"]) for epoch in curve_of(trial.user_attrs)]
    return len(epochs) if epochs == list(range(1, len(epochs) + 1)) else None


def _has_epochs(client: MlflowClient, run: Run, num_epochs: int) -> bool:
    history = client.get_metric_history(run.info.run_id, "train_loss")
    return sorted(metric.step for metric in history) == list(range(1, num_epochs + 1))
