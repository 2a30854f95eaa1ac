"""The web pages besides the report: MLflow's UI by `cifar-tune ui`, and optuna-dashboard on the record."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest
from helpers.command_line import PATIENCE, Start
from helpers.made_trials import trial
from make_store import make_store
from playwright.sync_api import Browser, expect

from cifar_tune.data.images import TrainingData
from cifar_tune.errors import UserError
from cifar_tune.store import Store, open_store
from cifar_tune.tracking.subject import Subject
from cifar_tune.tracking.tracker import Tracker
from cifar_tune.tracking.ui import serve_ui

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
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_mlflow_shows_a_search_with_runs_named_by_their_values(
    browser: Browser,
    start: Start,
    host: str,
    port: int,
    tmp_path: Path,
    tiny: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = open_store(tmp_path / "store")
    subject = Subject("mine", "search-id", tiny.dataset, tiny.digest, "", "A space.", {})
    tracker = Tracker(store, subject, lambda number, run_id: None)
    tracker.update(trial(0, 0.5, search="mine"))
    tracker.update(trial(1, 0.6, search="mine", params={"optimizer/name": "sgd", "optimizer/sgd/lr": 0.12345}))
    tracker.finish("completed")
    process = start("ui", "--store", store.root, "--port", port, "--host", host)
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
    for place in own_places() if host == "0.0.0.0" else ("127.0.0.1", "localhost"):
        assert status_of_search(port, f"{place}:{port}", f"http://{place}:{port}") == 200, place
    assert status_of_search(port, f"stranger.example.com:{port}", f"http://127.0.0.1:{port}") == 403
    assert status_of_search(port, f"127.0.0.1:{port}", "http://10.stranger.example.com") == 403


def own_places() -> list[str]:
    """Names and addresses of this machine, under which its page is opened."""
    addresses = [address for each in psutil.net_if_addrs().values() for address in each]
    ips = [address.address for address in addresses if address.family == socket.AF_INET]
    assert ips
    return ["0.0.0.0", "localhost", socket.gethostname(), *ips]


def status_of_search(port: int, host: str, origin: str) -> int:
    """The status of the request by which a page at the origin asks for runs, sent under that name."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Host": host, "Origin": origin, "Content-Type": "application/json"}
    connection.request("POST", "/ajax-api/2.0/mlflow/runs/search", json.dumps({"experiment_ids": ["1"]}), headers)
    return connection.getresponse().status


@pytest.mark.parametrize(
    ("host", "words"),
    [("127.0.0.1", "is taken"), ("192.0.2.1", "no address of this machine"), ("no host", "no address")],
)
def test_the_ui_says_no_address_that_is_not_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, host: str, words: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(UserError, match=words):
        serve_ui(Store(tmp_path), host, other.getsockname()[1])
    assert capsys.readouterr().err == ""


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
