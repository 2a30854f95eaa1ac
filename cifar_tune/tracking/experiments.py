"""The experiments in MLflow: one for each data set, because scores on different ones cannot be compared."""

import contextlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from cifar_tune.store import Store, check_can_write
from cifar_tune.tracking.address import database_path, is_server
from cifar_tune.tracking.runs import KIND, KIND_TAG, NOTE_TAG, search_runs, without_doubles


def open_experiment(client: MlflowClient, store: Store, dataset: str) -> str:
    """The id of the data set's experiment: made if there is none, and restored if somebody deleted it.

    Raises MLflow's error where this user may not write to it, and an OSError or ImportError where artifacts cannot be
    written from here.
    """
    name = f"cifar-tune {dataset}"
    experiment = client.get_experiment_by_name(name)  # deleted ones too
    if experiment is None:
        _create(client, store, name, dataset)
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
    elif experiment.lifecycle_stage == LifecycleStage.DELETED:
        client.restore_experiment(experiment.experiment_id)
        without_doubles(client, search_runs(client, [experiment.experiment_id]))
    client.set_experiment_tag(experiment.experiment_id, KIND_TAG, KIND)  # a write that changes nothing
    _check_artifacts(str(experiment.artifact_location), client.tracking_uri)
    return str(experiment.experiment_id)


def _create(client: MlflowClient, store: Store, name: str, dataset: str) -> None:
    folder = _artifact_folder(client.tracking_uri, store)
    location = None if folder is None else (folder / dataset).as_uri()
    note = f"Searches of cifar-tune on {dataset}: each parent run is a search, and its child runs are the trials."
    try:
        client.create_experiment(name, artifact_location=location, tags={KIND_TAG: KIND, NOTE_TAG: note})
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):  # another search has made it meanwhile
            raise


def _artifact_folder(url: str, store: Store) -> Path | None:
    """Where artifacts of new experiments go; None where a server decides it. MLflow's default is the working folder."""
    if is_server(url) or url.partition(":")[0] == "databricks":
        return None
    if url == store.mlflow_url or not url.startswith("sqlite"):
        return store.artifacts
    return database_path(url).parent / "mlruns"


def _check_artifacts(location: str, tracking_uri: str) -> None:
    """Raise an error where this process cannot write to the location: no right to it, or no package for it."""
    if location.partition(":")[0] == "mlflow-artifacts":
        return  # the server writes them
    if location.startswith(("/", "file:")):
        check_can_write(Path(unquote(urlsplit(location).path)))
        return
    with contextlib.suppress(MlflowException):
        get_artifact_repository(location, tracking_uri).list_artifacts("cifar-tune")
