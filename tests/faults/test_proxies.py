"""MLflow behind something slow, or something that answers in its place; and on a full disk."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from helpers.command_line import PATIENCE, wait_until
from helpers.machines import fill, small_disk
from helpers.made_trials import trial
from helpers.mlflow_runs import assert_each_trial_once
from helpers.proxy import Proxy, proxy_before
from rich.console import Console
from tracking_server import Server

from cifar_tune.store import open_store
from cifar_tune.tracking.delivery import Delivery
from cifar_tune.tracking.outbox import Outbox
from cifar_tune.tracking.subject import Subject
from cifar_tune.trials.facts import TAKEN_AT

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy_before(server.url) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
        yield proxy


def opened(folder: Path, name: str) -> tuple[Outbox, Delivery, StringIO]:
    """An outbox that delivers a complete trial, and what it says."""
    printed = StringIO()
    outbox = Outbox(open_store(folder / "store"), Console(file=printed, width=200))
    subject = Subject(name, f"id of {name}", "shapes", "digest", "", "A space.", {})
    trials = [trial(0, 0.5, "completed", facts={TAKEN_AT: 1_700_000_000.0})]
    return outbox, Delivery(outbox, subject, trials, are_shown=False), printed


@pytest.fixture
def slow(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """One that takes longer than is waited for at first."""
    monkeypatch.setattr("cifar_tune.tracking.outbox.PING_SECONDS", 0.3)
    proxy.seconds = 0.7
    return proxy


def test_a_slow_server_gets_everything(slow: Proxy, server: Server, tmp_path: Path) -> None:
    _, delivery, printed = opened(tmp_path, "slow")
    wait_until(lambda: "does not answer" in printed.getvalue())
    delivery.finish("completed")
    wait_until(lambda: delivery.is_delivered)
    assert_each_trial_once(server.url, "slow", {0: 4})
    wait_until(lambda: printed.getvalue().count("\n") == 2)


def test_the_end_of_a_command_waits_for_a_server_that_is_only_slow(
    slow: Proxy, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifar_tune.tracking.outbox.NO_PROGRESS", PATIENCE)
    outbox, delivery, _ = opened(tmp_path, "shown again")
    delivery.finish("completed")
    assert outbox.wait(total=PATIENCE, no_progress=PATIENCE)
    assert_each_trial_once(server.url, "shown again", {0: 4})


@pytest.mark.parametrize(
    ("status", "spares_questions", "words"),
    [
        (500, True, "an error (HTTP 500)"),
        (502, False, "an error (HTTP 502)"),
        (200, True, "a page that is not MLflow's"),
    ],
)
def test_what_a_proxy_answers_is_told_without_its_page(
    proxy: Proxy, tmp_path: Path, status: int, words: str, *, spares_questions: bool
) -> None:
    proxy.status, proxy.spares_questions = status, spares_questions
    outbox, _, printed = opened(tmp_path, f"answers {status}")
    wait_until(lambda: "The command goes on" in printed.getvalue())
    assert f"MLflow at {proxy.url} answers with {words}" in printed.getvalue()
    assert "<" not in printed.getvalue()
    assert not outbox.wait()
    outbox.close()


def test_a_full_disk_of_the_store_is_called_one(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 20) as disk:
        outbox, delivery, printed = opened(disk, "full")
        wait_until(lambda: delivery.num_undelivered == 0 and not delivery.is_due)
        filler = fill(disk)
        delivery.update(trial(1, 0.5, "completed", facts={TAKEN_AT: 1_700_000_000.0}))
        wait_until(lambda: "The command goes on" in printed.getvalue())
        assert f"The disk of MLflow's database {outbox.store.mlflow_url} is full" in printed.getvalue()
        filler.unlink()
        delivery.finish("completed")
        wait_until(lambda: delivery.is_delivered)
        outbox.close()
