"""MLflow stops, dies, is locked, or loses what somebody deletes: nobody waits for it, and it gets everything once."""

import sqlite3
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from helpers.command_line import PATIENCE, wait_until
from helpers.made_trials import trial
from helpers.mlflow_runs import assert_each_trial_once, runs_of
from mlflow.tracking import MlflowClient
from rich.console import Console
from tracking_server import Server

from cifar_tune.errors import UserError
from cifar_tune.store import Store, open_store
from cifar_tune.tracking.delivery import Delivery, Job
from cifar_tune.tracking.outbox import SECONDS_BETWEEN_LOOKS, Outbox
from cifar_tune.tracking.subject import Subject
from cifar_tune.trials.facts import TAKEN_AT
from cifar_tune.trials.trial import State, Trial

pytestmark = [pytest.mark.faults, pytest.mark.slow]

AWAY, BACK = "does not answer", "answers again"
EXPERIMENT = "cifar-tune shapes"
FACTS = {TAKEN_AT: 1_700_000_000.0}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own timeout, so that a stopped server is noticed in a second."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


class Room:
    """One command after another on one search, each with an outbox of its own."""

    def __init__(self, store: Store, search: str) -> None:
        self.store = store
        self.subject = Subject(search, f"id of {search}", "shapes", "digest", "", "A space.", {})
        self.printed = StringIO()

    def open(self, *trials: Trial) -> tuple[Outbox, Delivery]:
        outbox = Outbox(self.store, Console(file=self.printed, width=200))
        return outbox, Delivery(outbox, self.subject, trials, are_shown=False)

    def says(self, words: str) -> bool:
        return words in self.printed.getvalue()


@pytest.fixture
def room(store: Store, request: pytest.FixtureRequest) -> Room:
    return Room(store, request.node.name)


def made(number: int, num_epochs: int, state: State = "running") -> Trial:
    return trial(number, 0.5, state, num_epochs=num_epochs, facts=FACTS)


def delivered(delivery: Delivery) -> Callable[[], bool]:
    return lambda: delivery.num_undelivered == 0 and not delivery.is_due


def test_a_server_that_stops_and_goes_on_gets_everything_once(
    room: Room, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    outbox, delivery = room.open()
    delivery.update(made(0, 1))
    wait_until(delivered(delivery))
    server.stop()
    for number in range(1, 4):  # the first request is made, and lies there until the server goes on
        delivery.update(made(number - 1, 4, "completed"))
        delivery.update(made(number, 1))
    wait_until(lambda: room.says(AWAY))
    assert outbox.is_away
    assert delivery.num_undelivered
    server.resume()
    wait_until(lambda: room.says(BACK))
    delivery.update(made(3, 4, "completed"))
    delivery.finish("completed")
    assert outbox.wait(total=PATIENCE, no_progress=PATIENCE)
    assert delivery.is_delivered
    assert_each_trial_once(server.url, room.subject.search, dict.fromkeys(range(4), 4))
    assert {run.info.status for run in runs_of(server.url, room.subject.search)} == {"FINISHED"}
    assert room.printed.getvalue().count(AWAY) == room.printed.getvalue().count(BACK) == 1


def test_what_a_server_makes_long_after_its_client_gave_up_is_removed(
    room: Room, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    outbox, delivery = room.open(made(0, 4, "completed"))
    wait_until(delivered(delivery))
    client = MlflowClient(server.url)
    for run in runs_of(server.url, room.subject.search):  # the parent run, and the trial's
        client.create_run(run.info.experiment_id, tags=run.data.tags)
    outbox.close()
    outbox, delivery = room.open(made(0, 4, "completed"))
    delivery.finish("completed")
    assert outbox.wait(total=PATIENCE, no_progress=PATIENCE)
    assert_each_trial_once(server.url, room.subject.search, {0: 4})


def test_what_a_killed_server_did_not_get_is_delivered_by_the_next_command(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path / "server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    server.start()
    outbox, delivery = room.open()
    delivery.update(made(0, 2))
    wait_until(delivered(delivery))
    server.kill()
    delivery.update(made(0, 4, "completed"))
    delivery.update(made(1, 4, "pruned"))
    delivery.finish("interrupted")
    wait_until(lambda: room.says(AWAY))
    assert not outbox.wait(), "nobody waits for a server that is away"
    assert delivery.num_undelivered == 2
    outbox.close()
    server.start()
    outbox, delivery = room.open(made(0, 4, "completed"), made(1, 4, "pruned"))
    delivery.finish("completed")
    assert outbox.wait(total=PATIENCE, no_progress=PATIENCE)
    server_has = dict.fromkeys(range(2), 4)
    assert_each_trial_once(server.url, room.subject.search, server_has)
    server.kill()


def test_runs_and_experiments_that_somebody_deletes_are_made_anew(room: Room) -> None:
    url = room.store.mlflow_url
    outbox, delivery = room.open()
    delivery.update(made(0, 1))
    wait_until(delivered(delivery))
    client = MlflowClient(url)

    def parent_id() -> str:
        (run,) = [run for run in runs_of(url, room.subject.search) if "mlflow.parentRunId" not in run.data.tags]
        return str(run.info.run_id)

    (child,) = [run for run in runs_of(url, room.subject.search) if "cifar_tune.trial" in run.data.tags]
    client.delete_run(child.info.run_id)
    delivery.update(made(0, 4, "completed"))
    wait_until(delivered(delivery))
    client.delete_run(parent_id())
    delivery.update(made(1, 1))
    wait_until(delivered(delivery))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    delivery.update(made(1, 4, "completed"))
    delivery.finish("completed")
    assert outbox.wait(total=PATIENCE, no_progress=PATIENCE)
    assert_each_trial_once(url, room.subject.search, {0: 4, 1: 4})
    assert room.printed.getvalue() == "", "none of this is an outage"


def test_a_search_begins_where_its_experiment_was_deleted(room: Room) -> None:
    outbox, delivery = room.open(made(0, 4, "completed"))
    wait_until(delivered(delivery))
    client = MlflowClient(room.store.mlflow_url)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    for run in runs_of(room.store.mlflow_url, room.subject.search):  # restored with the experiment, too
        double = client.create_run(experiment.experiment_id, tags=run.data.tags)
        client.delete_run(double.info.run_id)
    client.delete_experiment(experiment.experiment_id)
    second = Room(room.store, "second")
    outbox, delivery = second.open(made(0, 4, "completed"))
    delivery.finish("completed")
    assert outbox.wait(total=PATIENCE, no_progress=PATIENCE)
    for each in (room, second):
        assert_each_trial_once(room.store.mlflow_url, each.subject.search, {0: 4})


def test_a_locked_database_holds_up_nobody(room: Room) -> None:
    outbox, delivery = room.open(made(0, 4, "completed"))
    wait_until(delivered(delivery))
    lock = sqlite3.connect(room.store.root / "mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    for number in range(1, 4):
        delivery.update(made(number, 4, "completed"))
    delivery.finish("completed")
    wait_until(lambda: room.says("is locked"))
    assert not outbox.wait()
    lock.execute("ROLLBACK")
    wait_until(lambda: delivery.is_delivered)
    assert_each_trial_once(room.store.mlflow_url, room.subject.search, dict.fromkeys(range(4), 4))


def test_a_result_that_fails_is_published_again_until_it_is_done(room: Room) -> None:
    outbox, delivery = room.open(made(0, 4, "completed"))
    delivery.finish("completed")
    assert outbox.wait(total=PATIENCE, no_progress=PATIENCE)
    tries = []

    def publish() -> None:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise PermissionError(13, "Permission denied", "/artifacts/report.html")

    job = Job(outbox, publish)
    assert not outbox.wait()
    wait_until(lambda: room.says("/artifacts/report.html cannot be written"))
    wait_until(lambda: job.is_done)
    assert len(tries) == 3
    wait_until(lambda: delivery.is_delivered)


def test_the_stores_own_database_is_opened_once_an_epoch_is_trained(room: Room) -> None:
    outbox, delivery = room.open()
    database = room.store.root / "mlflow.db"
    assert outbox.has_answered(PATIENCE)
    delivery.update(made(0, 0))
    time.sleep(2.5 * SECONDS_BETWEEN_LOOKS)
    assert not database.exists()
    delivery.update(made(0, 1))
    wait_until(delivered(delivery))
    assert_each_trial_once(room.store.mlflow_url, room.subject.search, {0: 1})


def test_a_database_of_the_store_that_is_none_is_refused_before_the_work_begins(room: Room) -> None:
    (room.store.root / "mlflow.db").write_text("no database")
    outbox, _ = room.open()
    assert outbox.has_answered(PATIENCE)
    with pytest.raises(UserError, match=r"mlflow\.db"):
        outbox.check(is_last=True)


def test_the_runs_of_trials_that_have_ended_are_not_looked_through_at_every_tick(room: Room) -> None:
    outbox = Outbox(room.store, Console(file=room.printed))
    handed: list[int] = []
    trials = [made(0, 1, "completed"), made(1, 1, "interrupted")]
    delivery = Delivery(
        outbox, room.subject, trials, are_shown=False, on_run=lambda number, run_id: handed.append(number)
    )
    outbox.wait()
    delivery.tick()
    assert (handed, delivery._new_runs) == ([], {1})
    delivery.update(made(1, 1))
    delivery.tick()
    delivery.tick()
    assert (handed, delivery._new_runs) == ([1], set())
    assert sorted(delivery.runs) == [0, 1]
