"""What the tests share: one store whose cache holds the built-in data set, and a tiny cut of that data."""

from pathlib import Path

import pytest

from cifar_tune.datasets import load_training_data
from cifar_tune.images import Images, TrainingData


@pytest.fixture(autouse=True)
def not_under_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are told as they were typed; in the tests, without `uv run`."""
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)


@pytest.fixture(scope="session")
def cached_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store folder; the tests that only read data share its cache."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def shapes(cached_store: Path) -> TrainingData:
    """All of the built-in data set's training part."""
    return load_training_data("shapes", train_images=None, data_dir=None, store=cached_store)


@pytest.fixture(scope="session")
def tiny(shapes: TrainingData) -> TrainingData:
    """96 training and 48 validation images."""
    return TrainingData(
        shapes.dataset,
        shapes.digest,
        Images(shapes.train.images[:96], shapes.train.labels[:96]),
        Images(shapes.val.images[:48], shapes.val.labels[:48]),
    )
