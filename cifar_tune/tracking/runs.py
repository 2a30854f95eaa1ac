"""The runs of searches in MLflow: how they are found, described and deleted; tracker.py writes them."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import LoggedModel, Metric, Run, ViewType
from mlflow.tracking import MlflowClient

from cifar_tune.store import Store

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it would print each step of making the database's tables

SEARCH_TAG, TRIAL_TAG, STATE_TAG = "cifar_tune.search", "cifar_tune.trial", "cifar_tune.state"
SEARCH_ID_TAG = "cifar_tune.search_id"
KIND_TAG = "mlflow.experimentKind"  # for which the UI shows runs and charts first, and not traces
PARENT_TAG, NOTE_TAG = "mlflow.parentRunId", "mlflow.note.content"
ABOUT = "\n\n<!-- about -->\n\n"  # in a description, between what came of a search and what it is
MAX_TAG, CUT = 8000, "\n# ...\n```"  # characters of a tag, MLflow's own limit; what ends code that is longer
MAX_RUNS_PER_COMMAND = 500  # an argument has at most 128 KiB


def tracking_url(store: Store) -> str:
    """The user's own server where MLFLOW_TRACKING_URI names one, else the database in the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or store.mlflow_url


def open_client(store: Store) -> MlflowClient:
    """A client at the tracking address; the store's own database is made if it is not there."""
    url = tracking_url(store)
    if url != store.mlflow_url:
        return MlflowClient(url)
    with store.opening_databases():
        return MlflowClient(url)  # which makes the tables


def find_runs(client: MlflowClient, search_id: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    """The parent run of a search and the runs of its trials, in every experiment."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: list[Run] = []
    token: str | None = None
    while True:
        query = f"tags.`{SEARCH_ID_TAG}` = '{search_id}'"
        page = client.search_runs(experiments, query, view, max_results=1000, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def find_parent(client: MlflowClient, search_id: str) -> Run:
    """The run of a search as a whole, which there is once a trial has started."""
    (parent,) = parents_of(find_runs(client, search_id))
    return parent


def find_models(client: MlflowClient, run: Run) -> list[LoggedModel]:
    """The networks that a run logged."""
    return list(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"))


def model_name(search: str) -> str:
    """What the registry calls the winners of a search; a server may have models of others."""
    return f"cifar-tune-{search}"


def log_files(store: Store, search_id: str, folder: Path, metrics: Mapping[str, float]) -> None:
    """Files and figures of a search as a whole, on its parent run; nowhere if this server was never told of it."""
    client = open_client(store)
    now = int(time.time() * 1000)
    for run in parents_of(find_runs(client, search_id)):
        client.log_artifacts(run.info.run_id, str(folder))
        figures = [Metric(name, value, now, 0) for name, value in metrics.items()]
        client.log_batch(run.info.run_id, metrics=figures)


def tell_outcome(store: Store, search_id: str, said: str) -> None:
    """Put what came of a search above what its run says it is, in Markdown, in place of what was said before."""
    client = open_client(store)
    for run in parents_of(find_runs(client, search_id)):
        note = run.data.tags.get(NOTE_TAG, "")
        about = note.partition(ABOUT)[2] if ABOUT in note else note
        room = MAX_TAG - len(said) - len(ABOUT) - len(CUT)
        about = about if len(about) <= room else about[: max(0, room)] + CUT
        client.set_tag(run.info.run_id, NOTE_TAG, f"{said}{ABOUT}{about}")


def parents_of(runs: Sequence[Run]) -> list[Run]:
    """Those of searches as wholes."""
    return [run for run in runs if PARENT_TAG not in run.data.tags]


def delete_runs(store: Store, search_id: str) -> int:
    """Remove a search's runs for good, with the models that they logged; how many runs there were."""
    url = tracking_url(store)
    client = open_client(store)
    runs = find_runs(client, search_id)
    for run in parents_of(runs):
        _delete_models(client, run)
    for run in runs:
        client.delete_run(run.info.run_id)
    run_ids = [run.info.run_id for run in find_runs(client, search_id, ViewType.ALL)]
    for start in range(0, len(run_ids) if url == store.mlflow_url else 0, MAX_RUNS_PER_COMMAND):
        # What is deleted is only hidden; `mlflow gc` is the public way to free what it holds, the models too.
        chosen = ",".join(run_ids[start : start + MAX_RUNS_PER_COMMAND])
        command = ["gc", "--backend-store-uri", url, "--tracking-uri", url, "--run-ids", chosen]
        subprocess.run([sys.executable, "-m", "mlflow", *command], check=True, capture_output=True)
    return len(run_ids)


def _delete_models(client: MlflowClient, run: Run) -> None:
    """What a run logged, and its versions of the search's model; whatever others made or registered stays."""
    name = model_name(run.data.tags[SEARCH_TAG].partition("/")[0])
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'"):
        if len(client.search_model_versions(f"name = '{version.name}'")) == 1:
            client.delete_registered_model(version.name)
        else:
            client.delete_model_version(version.name, version.version)
    for model in find_models(client, run):
        client.delete_logged_model(model.model_id)
