"""The web pages besides the report: MLflow's UI by `cifar-tune ui`, and optuna-dashboard on the record."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command_line import PATIENCE, Start
from helpers.made_trials import trial
from make_store import make_store
from playwright.sync_api import Browser, expect

from cifar_tune.data.images import TrainingData
from cifar_tune.store import Store, open_store
from cifar_tune.tracking.subject import Subject
from cifar_tune.tracking.tracker import Tracker

MILLISECONDS = 1000 * PATIENCE  # as playwright counts


@pytest.fixture
def port() -> int:
    """A free port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(url: str, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer")


@pytest.mark.slow
def test_mlflow_shows_a_search_with_runs_named_by_their_values(
    browser: Browser, start: Start, port: int, tmp_path: Path, tiny: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = open_store(tmp_path / "store")
    subject = Subject("mine", "search-id", tiny.dataset, tiny.digest, "", "A space.", {})
    tracker = Tracker(store, subject, lambda number, run_id: None)
    tracker.update(trial(0, 0.5, search="mine"))
    tracker.update(trial(1, 0.6, search="mine", params={"optimizer/name": "sgd", "optimizer/sgd/lr": 0.12345}))
    tracker.finish("completed")
    process = start("ui", "--store", store.root, "--port", port)
    wait_for(f"http://127.0.0.1:{port}/health", process)
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in range(2)]
    page.goto(lines[1].partition("the runs of cifar-tune shapes: ")[2].strip(), timeout=MILLISECONDS)
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible(timeout=MILLISECONDS)
    page.locator('[role=gridcell][col-id*="Run Name"] button').first.click(timeout=MILLISECONDS)  # the search's trials
    expect(page.get_by_text("mine 1: sgd, lr=0.123").first).to_be_visible(timeout=MILLISECONDS)
    expect(page.get_by_text("mine 0 (baseline)").first).to_be_visible(timeout=MILLISECONDS)
    page.screenshot(path=tmp_path / "mlflow.png")
    assert errors == []
    page.close()


@pytest.fixture
def dashboard(tmp_path: Path, port: int) -> Iterator[str]:
    """The address of an optuna-dashboard on a store with a search of 12 trials."""
    store = Store(tmp_path / "store")
    make_store(store.root, 12, 4, "mine")
    program = Path(sys.executable).parent / "optuna-dashboard"
    arguments = [store.optuna_url, "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        [program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        wait_for(f"http://127.0.0.1:{port}/dashboard/", process)
        yield f"http://127.0.0.1:{port}/dashboard/"
        process.terminate()


@pytest.mark.slow
def test_optuna_dashboard_opens_the_record(browser: Browser, dashboard: str, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(dashboard, timeout=MILLISECONDS)
    page.get_by_text("mine").first.click(timeout=MILLISECONDS)
    expect(page.get_by_text("optimizer/name").first).to_be_visible(timeout=MILLISECONDS)
    page.screenshot(path=tmp_path / "dashboard.png")
    assert errors == []
    page.close()
