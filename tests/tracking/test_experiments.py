"""The experiments of data sets: where MLflow keeps their artifacts."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from cifar_tune.store import open_store
from cifar_tune.tracking.experiments import open_experiment


def test_artifacts_lie_beside_a_database_and_not_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store, mine = open_store(tmp_path / "store"), tmp_path / "elsewhere" / "mlflow.db"
    for url, folder in ((f"sqlite:///{mine}", mine.parent / "mlruns"), (store.mlflow_url, store.artifacts)):
        client = MlflowClient(url)
        experiment = client.get_experiment(open_experiment(client, store, "shapes"))
        assert experiment.artifact_location == (folder / "shapes").as_uri()
    assert list((tmp_path / "here").iterdir()) == []
