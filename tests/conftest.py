"""What the tests share: one store whose cache holds the built-in data set, and tiny cuts of that data."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.command_line import Answer, Call, Start
from helpers.cuts import cut, placed

from cifar_tune.cli import main
from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.images import TrainingData
from cifar_tune.search.ray_settings import configure_ray
from cifar_tune.store import Store, open_store

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from cifar_tune.training.inputs import DeviceData

# Tests run in parallel. Torch reads this when it is imported, which nothing above does.
os.environ["OMP_NUM_THREADS"] = "1"
configure_ray(local=True)  # so does Ray, and a script that tests import imports it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow tests first, so that one process is not left with several of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store, data or server of the user's; printed commands begin with `uv run` only where the user typed it."""
    for variable in ("CIFAR_TUNE_STORE", "CIFAR_TUNE_DATA_DIR", "MLFLOW_TRACKING_URI", "UV_RUN_RECURSION_DEPTH"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process, through the entry point."""

    def called(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["cifar-tune", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        printed = capfd.readouterr()
        return Answer(left.value.code if isinstance(left.value.code, int) else 0, printed.out, printed.err)

    return called


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command in a process group of its own, which is killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def start_command(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "cifar_tune", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start_command
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """A real Chromium; without one on this machine the tests that ask for it are skipped."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium here; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with Optuna's tables. Creating them for every test would take most of the time."""
    import optuna

    store = open_store(tmp_path_factory.mktemp("empty"))
    optuna.storages.RDBStorage(store.optuna_url).remove_session()
    return (store.root / "optuna.db").read_bytes()


@pytest.fixture
def store(tmp_path: Path, empty_database: bytes) -> Store:
    """An empty store with Optuna's tables, which take a second to create."""
    store = open_store(tmp_path / "store")
    (store.root / "optuna.db").write_bytes(empty_database)
    return store


@pytest.fixture(scope="session")
def cached_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store folder whose cache is shared by the tests that only read data."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def shapes(cached_store: Path) -> TrainingData:
    """The whole training part of the built-in data set."""
    return load_training_data("shapes", train_images=None, data_dir=None, store=cached_store)


@pytest.fixture(scope="session")
def tiny(shapes: TrainingData) -> TrainingData:
    """96 training and 48 validation images."""
    return cut(shapes, 96, 48)


@pytest.fixture(scope="session")
def smallest(shapes: TrainingData) -> "DeviceData":
    """32 training and 16 validation images."""
    return placed(cut(shapes, 32, 16))


@pytest.fixture(scope="session")
def handful(shapes: TrainingData) -> "DeviceData":
    """6 training and 4 validation images, for networks that are slow on a CPU."""
    return placed(cut(shapes, 6, 4))
