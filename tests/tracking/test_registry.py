"""The model registry: the winner as MLflow's own tools load it, in a process that has no cifar_tune."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import BASE
from mlflow.tracking import MlflowClient

from cifar_tune.store import CHAMPION, Store, open_store
from cifar_tune.tracking.registry import register_winner
from cifar_tune.tracking.runs import SEARCH_ID_TAG, SEARCH_TAG, delete_runs
from cifar_tune.training.inference import Classifier

NAME, CLASSES = "cifar-tune-tiny", [f"class{i}" for i in range(10)]
LOAD = """
import sys

sys.modules["cifar_tune"] = None  # so that importing it fails
import mlflow.pyfunc, mlflow.pytorch, numpy, torch

url, name, images, logits = sys.argv[1:]
mlflow.set_tracking_uri(url)
images = numpy.load(images)
as_function = mlflow.pyfunc.load_model(name)
network = mlflow.pytorch.load_model(name)
with torch.inference_mode():
    numpy.save(logits, [as_function.predict(images), network(torch.from_numpy(images)).numpy()])
print(as_function.metadata.get_input_schema().to_json())
print(as_function.metadata.get_output_schema().to_json())
print(*as_function.metadata.metadata["classes"])
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with an experiment whose artifacts lie in it."""
    opened = open_store(tmp_path_factory.mktemp("registry"))
    MlflowClient(opened.mlflow_url).create_experiment("tiny", artifact_location=opened.artifacts.as_uri())
    return opened


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def classifier(seed: int) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(BASE.model.build(10), [0.5, 0.4, 0.3], [0.2, 0.3, 0.4], CLASSES).eval()


def start_run(client: MlflowClient, search_id: str) -> str:
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    tags = {SEARCH_ID_TAG: search_id, SEARCH_TAG: "tiny/evaluate-1"}
    return str(client.create_run(experiment.experiment_id, tags=tags).info.run_id)


def files(store: Store) -> list[Path]:
    return [path for path in store.artifacts.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_the_champion_loads_without_cifar_tune_and_is_deleted_with_its_search(store: Store, tmp_path: Path) -> None:
    client = MlflowClient(store.mlflow_url)
    run_id = start_run(client, "first")
    winner = classifier(0)
    for _ in range(2):
        register_winner(store, NAME, "first", winner, "The first.")
    (version,) = client.search_model_versions(f"name = '{NAME}'")
    assert (version.run_id, version.description) == (run_id, "The first.")

    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    uri = f"models:/{NAME}@{CHAMPION}"
    arguments: list[str | Path] = [store.mlflow_url, uri, tmp_path / "images.npy", tmp_path / "logits.npy"]
    env = {**os.environ, "MLFLOW_DEFAULT_PREDICTION_DEVICE": "cuda"}  # as if there were a GPU
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments], capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert done.returncode == 0, done.stderr
    takes, gives, classes = done.stdout.splitlines()[-3:]
    assert json.loads(takes)[0]["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 3, 32, 32]}
    assert json.loads(gives)[0]["tensor-spec"] == {"dtype": "float32", "shape": [-1, 10]}
    assert classes.split() == CLASSES
    with torch.inference_mode():
        expected = winner(torch.from_numpy(images)).numpy()
    for logits in np.load(tmp_path / "logits.npy"):
        np.testing.assert_allclose(logits, expected, atol=1e-5)

    assert version.source is not None
    client.create_registered_model("mine")  # by the user, from the same run
    client.create_model_version("mine", version.source, run_id)
    start_run(client, "second")
    before = files(store)
    register_winner(store, NAME, "second", classifier(1), "The second.")
    assert client.get_model_version_by_alias(NAME, CHAMPION).description == "The second."
    assert delete_runs(store, "second") == 1
    assert [version.description for version in client.search_model_versions(f"name = '{NAME}'")] == ["The first."]
    assert files(store) == before
    assert delete_runs(store, "first") == 1
    assert [model.name for model in client.search_registered_models()] == ["mine"]
    assert files(store) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "after", ["finalize_logged_model", "create_registered_model", "create_model_version", "set_registered_model_alias"]
)
def test_a_registration_that_was_interrupted_is_completed_without_a_second_copy(
    store: Store, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    client = MlflowClient(store.mlflow_url)
    start_run(client, after)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, after, die)
        with pytest.raises(KeyboardInterrupt):
            register_winner(store, NAME, after, classifier(0), "It.")
    left = files(store)
    assert left
    register_winner(store, NAME, after, classifier(0), "It.")
    assert files(store) == left or after == "finalize_logged_model"
    assert client.get_model_version_by_alias(NAME, CHAMPION).description == "It."
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 1
    assert delete_runs(store, after) == 1
    assert files(store) == []
