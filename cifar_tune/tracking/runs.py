"""The runs of searches in MLflow: finding, describing and deleting them. tracker.py writes them during a search."""

import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import LoggedModel, Metric, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from cifar_tune.errors import UserError
from cifar_tune.store import Store, model_name
from cifar_tune.tracking.address import VARIABLE, check_form, tracking_url, trouble
from cifar_tune.tracking.failures import diagnose
from cifar_tune.tracking.relocation import relocate_artifacts

for _name in ("mlflow", "alembic", "urllib3"):  # what goes wrong is an exception, and is told in a sentence
    logging.getLogger(_name).setLevel(logging.CRITICAL)

SEARCH_TAG, TRIAL_TAG, STATE_TAG = "cifar_tune.search", "cifar_tune.trial", "cifar_tune.state"
SEARCH_ID_TAG = "cifar_tune.search_id"
KIND_TAG = "mlflow.experimentKind"  # makes the UI show runs and charts first, and not traces
KIND = "custom_model_development"
PARENT_TAG, NOTE_TAG = "mlflow.parentRunId", "mlflow.note.content"
ABOUT = "\n\n<!-- about -->\n\n"  # in a description, between the outcome of a search and the text about it
MAX_TAG, CUT = 8000, "\n# ...\n```"  # MLflow's limit on the characters of a tag; the end of code that is longer
PING_SECONDS = 10.0  # for a command that cannot do without MLflow
MAX_RUNS_PER_COMMAND = 500  # because a command-line argument has at most 128 KiB


def open_client(store: Store) -> MlflowClient:
    """A client of the server or of the store's database, which is made if there is none."""
    url = tracking_url(store)
    if url == store.mlflow_url:
        with store.opening_databases():
            _make_database(store)
            relocate_artifacts(store)
            return MlflowClient(url)  # upgrades the tables
    return MlflowClient(url)


def _make_database(store: Store) -> None:
    """Make the store's database elsewhere, so that a process that is killed meanwhile leaves no half of it.

    Where the store was moved away, MLflow would make its folder anew.
    """
    path, scratch = store.root / "mlflow.db", store.root / f".mlflow-{os.getpid()}.db"
    if path.exists():
        return
    with TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        MlflowClient(f"sqlite:///{made}")
        try:
            shutil.copyfile(made, scratch)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


def check_answers(store: Store) -> None:
    """Raise a UserError if MLflow is away."""
    url = tracking_url(store)
    check_form(url)
    failure = trouble(url, PING_SECONDS)
    if failure is not None:
        raise UserError(f"{failure.sentence.rstrip('.')}; start it, or unset {VARIABLE}, and repeat the command.")


@contextmanager
def in_sentences(store: Store) -> Iterator[None]:
    """Turn errors of MLflow's into UserErrors, for commands that are about MLflow and cannot do without it."""
    check_answers(store)
    url = tracking_url(store)
    try:
        yield
    except (MlflowException, OSError, ImportError) as error:
        failure = diagnose(error, url)
        if failure.kind == "away" and url == store.mlflow_url:
            raise  # guard.py knows what can be wrong with a database of the store
        raise UserError(failure.sentence) from None


def find_runs(client: MlflowClient, search_id: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    """The parent run of a search and the runs of its trials, in all experiments."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return search_runs(client, experiments, f"tags.`{SEARCH_ID_TAG}` = '{search_id}'", view)


def search_runs(
    client: MlflowClient, experiments: list[str], query: str = "", view: int = ViewType.ACTIVE_ONLY
) -> list[Run]:
    """All runs of the experiments that meet the query, however many pages they fill."""
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(experiments, query, view, max_results=1000, page_token=token)
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def find_parent(client: MlflowClient, search_id: str) -> Run:
    """The parent run of a search, which exists once a trial has started."""
    return parents_of(find_runs(client, search_id))[0]


def find_models(client: MlflowClient, run: Run) -> list[LoggedModel]:
    """The models that a run logged."""
    return list(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"))


def log_files(store: Store, search_id: str, folder: Path, metrics: Mapping[str, float]) -> None:
    """Log a folder's files and metrics to a search's parent run; nothing happens if the server has no such run."""
    client = open_client(store)
    now = int(time.time() * 1000)
    for run in parents_of(find_runs(client, search_id)):
        for file in filter(Path.is_file, folder.rglob("*")):  # `log_artifacts` cannot replace another user's file
            place = file.parent.relative_to(folder).as_posix()
            client.log_artifact(run.info.run_id, str(file), None if place == "." else place)
        new = {name: value for name, value in metrics.items() if not _is_same(run.data.metrics.get(name), value)}
        if new:
            client.log_batch(run.info.run_id, metrics=[Metric(name, value, now, 0) for name, value in new.items()])


def _is_same(before: float | None, now: float) -> bool:
    return before is not None and (before == now or (math.isnan(before) and math.isnan(now)))


def write_outcome(store: Store, search_id: str, outcome: str) -> None:
    """Put the outcome of a search, in Markdown, above the description of its run; it replaces an older outcome."""
    client = open_client(store)
    for run in parents_of(find_runs(client, search_id)):
        note = run.data.tags.get(NOTE_TAG, "")
        about = note.partition(ABOUT)[2] if ABOUT in note else note
        room = MAX_TAG - len(outcome) - len(ABOUT) - len(CUT)
        about = about if len(about) <= room else about[: max(0, room)] + CUT
        client.set_tag(run.info.run_id, NOTE_TAG, f"{outcome}{ABOUT}{about}")


def parents_of(runs: Sequence[Run]) -> list[Run]:
    """The parent runs among the runs, those with most trials first, and older ones before newer ones.

    There is one, unless a server did what it was told long after the client had given it up.
    """
    num_trials = Counter(run.data.tags.get(PARENT_TAG) for run in runs)
    parents = [run for run in runs if PARENT_TAG not in run.data.tags]
    return sorted(parents, key=lambda run: (-num_trials[run.info.run_id], run.info.start_time))


def without_doubles(client: MlflowClient, runs: Sequence[Run]) -> list[Run]:
    """One run for each search and each of its trials, the most complete; the others are deleted.

    A server that had stopped may make a run that its client has given up, after the client asked for another. And an
    experiment that is restored comes back with the runs that were deleted before it.
    """
    by_subject: dict[tuple[str, str | None], list[Run]] = defaultdict(list)
    for run in [*parents_of(runs), *sorted((run for run in runs if PARENT_TAG in run.data.tags), key=_completeness)]:
        tags = run.data.tags
        if SEARCH_ID_TAG in tags:
            by_subject[tags[SEARCH_ID_TAG], tags.get(TRIAL_TAG)].append(run)
    for run in [run for same in by_subject.values() for run in same[1:]]:
        client.delete_run(run.info.run_id)
    return [same[0] for same in by_subject.values()]


def _completeness(run: Run) -> tuple[bool, bool, int]:
    """For sorting runs of one trial: those that ended come first, then those with parameters, then the older ones."""
    return run.info.status == "RUNNING", not run.data.params, run.info.start_time


def delete_runs(store: Store, search_id: str) -> int:
    """Delete a search's runs for good, with the models that they logged; the number of runs."""
    with in_sentences(store):
        return _delete_runs(store, search_id)


def _delete_runs(store: Store, search_id: str) -> int:
    url = tracking_url(store)
    client = open_client(store)
    runs = find_runs(client, search_id)
    for run in parents_of(runs):
        _delete_models(client, run)
    for run in runs:
        client.delete_run(run.info.run_id)
    run_ids = [run.info.run_id for run in find_runs(client, search_id, ViewType.ALL)]
    for start in range(0, len(run_ids) if url == store.mlflow_url else 0, MAX_RUNS_PER_COMMAND):
        # Deleted runs are only hidden; `mlflow gc` is the public way to free their files, models included.
        listed = ",".join(run_ids[start : start + MAX_RUNS_PER_COMMAND])
        command = ["gc", "--backend-store-uri", url, "--tracking-uri", url, "--run-ids", listed]
        subprocess.run([sys.executable, "-m", "mlflow", *command], check=True, capture_output=True)
    return len(run_ids)


def _delete_models(client: MlflowClient, run: Run) -> None:
    """Delete the models that a run logged, and their versions of the search's model, but nothing of other programs."""
    name = model_name(run.data.tags[SEARCH_TAG].partition("/")[0])
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'"):
        if len(client.search_model_versions(f"name = '{version.name}'")) == 1:
            client.delete_registered_model(version.name)
        else:
            client.delete_model_version(version.name, version.version)
    for model in find_models(client, run):
        client.delete_logged_model(model.model_id)
