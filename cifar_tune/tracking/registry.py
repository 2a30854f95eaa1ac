"""MLflow's model registry: the winner of a search as `models:/cifar-tune-SEARCH@champion`.

A registered model is a torch.export graph with its preprocessing, so loading it needs only MLflow and torch.
"""

import logging
import tempfile
from importlib import metadata
from pathlib import Path

import mlflow.pytorch
import numpy as np
from mlflow import pyfunc
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.tracking import MlflowClient
from mlflow.types.schema import Schema, TensorSpec

from cifar_tune.evaluation.export import NUM_EXAMPLES, without_warning
from cifar_tune.store import CHAMPION, Store
from cifar_tune.tracking.runs import find_models, find_parent, open_client
from cifar_tune.training.inference import Classifier

logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # it warns of a missing pip


def register_winner(store: Store, name: str, evaluation_id: str, classifier: Classifier, description: str) -> None:
    """Register the network as the model's newest version and champion; doing it again changes nothing.

    The version belongs to the evaluation's run. The model takes uint8 images (n, 3, S, S) and returns float32 logits
    (n, classes); its metadata has the names of the classes.
    """
    client = open_client(store)
    run = find_parent(client, evaluation_id)
    logged = [model for model in find_models(client, run) if model.status == LoggedModelStatus.READY]
    model = logged[0] if logged else _log_model(client, run, classifier)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    versions = list(client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'"))
    versions.sort(key=lambda version: int(version.version))
    for version in versions[1:]:  # made by a server that did what it was told long after its client had given it up
        client.delete_model_version(name, version.version)
    # The location, because MLflow would look up a models:/ address at the tracking address of the whole process.
    source = model.artifact_location
    version = (
        versions[0] if versions else client.create_model_version(name, source, run.info.run_id, model_id=model.model_id)
    )
    client.update_model_version(name, version.version, description=description)
    client.set_registered_model_alias(name, CHAMPION, version.version)


def _log_model(client: MlflowClient, run: Run, classifier: Classifier) -> LoggedModel:
    """Log the network as a model of the run.

    `mlflow.pytorch.log_model` would need a tracking address set for the whole process and its children.
    """
    model = client.create_logged_model(run.info.experiment_id, name="winner", source_run_id=run.info.run_id)
    pixels = (3, classifier.image_size, classifier.image_size)
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), (-1, *pixels))]),
        Schema([TensorSpec(np.dtype(np.float32), (-1, len(classifier.class_names)))]),
    )
    saved = Model(run_id=run.info.run_id, model_id=model.model_id)
    with tempfile.TemporaryDirectory() as temporary, without_warning():
        folder = Path(temporary) / "model"
        mlflow.pytorch.save_model(
            classifier,
            folder,
            mlflow_model=saved,
            signature=signature,
            input_example=np.zeros((NUM_EXAMPLES, *pixels), np.uint8),
            serialization_format="pt2",
            pip_requirements=[f"{package}=={metadata.version(package)}" for package in ("mlflow", "numpy", "torch")],
            metadata={"classes": classifier.class_names},
        )
        # An exported program stays on the device that it was made on, but MLflow would load it for a GPU that is there.
        saved.flavors[pyfunc.FLAVOR_NAME][pyfunc.MODEL_CONFIG] = {"device": "cpu"}
        saved.save(folder / MLMODEL_FILE_NAME)
        client.log_model_artifacts(model.model_id, str(folder))
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
