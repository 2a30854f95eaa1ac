"""MLflow's model registry: the winner of a search as `models:/cifar-tune-SEARCH@champion`.

What is registered is a graph of torch.export that has its preprocessing, so loading it needs MLflow and torch alone.
"""

import logging
import tempfile
from importlib import metadata
from pathlib import Path

import mlflow.pytorch
import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import Schema, TensorSpec

from cifar_tune.data.images import IMAGE_SIZE
from cifar_tune.evaluation.export import NUM_EXAMPLES
from cifar_tune.store import CHAMPION, Store
from cifar_tune.tracking.runs import find_models, find_parent, open_client
from cifar_tune.training.classifier import Classifier

logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # it misses pip, which uv does without

PIXELS = (3, IMAGE_SIZE, IMAGE_SIZE)


def register_winner(
    store: Store, name: str, evaluation_id: str, classifier: Classifier, classes: list[str], said: str
) -> None:
    """The model's newest version and champion, made by the evaluation's run; to do it again changes nothing.

    It takes uint8 images (n, 3, 32, 32) and gives float32 logits (n, classes), whose names are its metadata.
    """
    client = open_client(store)
    run = find_parent(client, evaluation_id)
    known = [model for model in find_models(client, run) if model.status == LoggedModelStatus.READY]
    model = known[0] if known else _log_model(client, run, classifier, classes)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    versions = list(client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'"))
    # Its location, since MLflow would look a models:/ address up at the whole process's tracking address.
    source = model.artifact_location
    version = (
        versions[0] if versions else client.create_model_version(name, source, run.info.run_id, model_id=model.model_id)
    )
    client.update_model_version(name, version.version, description=said)
    client.set_registered_model_alias(name, CHAMPION, version.version)


def _log_model(client: MlflowClient, run: Run, classifier: Classifier, classes: list[str]) -> LoggedModel:
    """Not by `mlflow.pytorch.log_model`, whose tracking address is the whole process's and its children's."""
    model = client.create_logged_model(run.info.experiment_id, name="winner", source_run_id=run.info.run_id)
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), (-1, *PIXELS))]),
        Schema([TensorSpec(np.dtype(np.float32), (-1, len(classes)))]),
    )
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pytorch.save_model(
            classifier,
            Path(folder) / "model",
            mlflow_model=Model(run_id=run.info.run_id, model_id=model.model_id),
            signature=signature,
            input_example=np.zeros((NUM_EXAMPLES, *PIXELS), np.uint8),
            serialization_format="pt2",
            pip_requirements=[f"{package}=={metadata.version(package)}" for package in ("mlflow", "numpy", "torch")],
            metadata={"classes": classes},
        )
        client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
