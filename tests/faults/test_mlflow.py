"""Commands whose MLflow is away, refuses them, or is of another version: whole processes and real servers."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from helpers.command_line import GOOD, PATIENCE, Answer, Start, wait_until
from helpers.mlflow_runs import assert_each_trial_once, runs_of
from helpers.proxy import proxy_before
from mlflow.tracking import MlflowClient
from tracking_server import Server

from cifar_tune.data.datasets import load_training_data
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record
from cifar_tune.search.space import load_space
from cifar_tune.store import Store, open_store
from cifar_tune.tracking.runs import SEARCH_ID_TAG, SEARCH_TAG, open_client
from cifar_tune.trials.reading import read_attributes, read_record

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SLOW = GOOD.replace("epochs=1", "epochs=40").replace("num_trials=2", 'num_trials=2, scheduler={"name": "none"}')
VARIABLE = "MLFLOW_TRACKING_URI"
OLD = "451aebb31d03"  # the first version of MLflow's tables


@pytest.fixture
def folder(tmp_path: Path, cached_store: Path, shapes: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user is: a space file, and a store that has the data set."""
    (tmp_path / "good.py").write_text(GOOD, encoding="utf-8")
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    shutil.copytree(cached_store / "cache", tmp_path / "cifar_tune_store" / "cache")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Store:
    return open_store(folder / "cifar_tune_store")


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers, as one that was stopped."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield f"http://me:secret@127.0.0.1:{listener.getsockname()[1]}"


def process(*arguments: object, url: str | None = None) -> Answer:
    """A command as a process of its own."""
    environment = {**os.environ, **({VARIABLE: url} if url else {})}
    command = [sys.executable, "-m", "cifar_tune", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    return Answer(done.returncode, done.stdout, done.stderr)


def test_a_search_goes_on_without_its_server_and_the_next_command_delivers_it(folder: Path) -> None:
    server = Server(folder / "server")
    url = server.url.replace("http://", "http://me:secret@")
    first = process("run", "good.py", url=url)
    assert first.code == 0, first.stderr
    assert first.stdout.count("Best of 2 trials") == 1
    assert first.stderr.count("does not answer") == 1
    assert "MLflow lacks 2 trials and the results of good" in first.stderr
    assert "secret" not in first.stdout + first.stderr
    server.start()
    second = process("run", "good.py", url=url)
    assert second.code == 0, second.stderr
    assert "is complete" in second.stderr
    assert "lacks" not in second.stderr
    assert_each_trial_once(server.url, "good", {0: 1, 1: 1})
    (parent,) = [run for run in runs_of(server.url, "good") if "mlflow.parentRunId" not in run.data.tags]
    assert "Best of 2 trials" in parent.data.tags["mlflow.note.content"]
    assert [file.path for file in MlflowClient(server.url).list_artifacts(parent.info.run_id)] == ["report.html"]
    server.kill()
    third = process("run", "good.py", url=url)
    assert (third.code, third.stdout) == (0, second.stdout)
    assert "answer" not in third.stderr, "nothing is left to deliver"
    rows = json.loads(process("report", "good", "--format", "json").stdout)
    assert all(row["mlflow_run_id"] for row in rows)


def test_ctrl_c_ends_a_search_whose_server_has_stopped(
    folder: Path, store: Store, silent: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, silent)
    search = start("run", "slow.py")
    wait_until(lambda: (store.root / "optuna.db").exists() and "slow" in studies(store) and num_epochs(store) > 1)
    children = psutil.Process(search.pid).children(recursive=True)
    search.send_signal(signal.SIGINT)
    stdout, stderr = search.communicate(timeout=PATIENCE)
    assert search.returncode == 130, stderr
    assert stdout == ""
    assert "To resume" in stderr
    assert "does not answer" in stderr
    assert "Traceback" not in stderr
    assert "secret" not in stderr
    assert {trial.state for trial in read_record(store)["slow"]} == {"interrupted"}
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert alive == []


def studies(store: Store) -> list[str]:
    with closing(sqlite3.connect(store.root / "optuna.db")) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'studies'").fetchall()
        return [row[0] for row in connection.execute("SELECT study_name FROM studies")] if tables else []


def num_epochs(store: Store) -> int:
    return sum(trial.epochs for trial in read_record(store, ["slow"])["slow"])


@pytest.fixture
def searched(folder: Path, store: Store) -> Store:
    """The store with a complete search of hand-made scores, which MLflow has."""
    record = open_record(store, "good", load_space(folder / "good.py"), 0)
    data = load_training_data("shapes", train_images=64, data_dir=None, store=store.root)
    record.check_unchanged("data", data.digest)
    driver = Driver(record, 2, [])
    for accuracy in (0.5, 0.625):
        metrics = {"epoch": 1, "progress": 1.0, "val_accuracy": accuracy, "val_loss": 1.0, "seconds": 0.5}
        driver.add_epoch(driver.next_trial().number, metrics, {})
    record.set_shown()
    store.save_space("good", GOOD, {})
    return store


def test_an_evaluation_prints_its_accuracies_and_another_command_publishes_them(searched: Store, silent: str) -> None:
    first = process("evaluate", "good", "--seeds", 2, url=silent)
    assert first.code == 0, first.stderr
    assert "evaluation 1: 2 runs each" in first.stdout
    assert "opened once" in " ".join(first.stdout.split())
    assert first.stderr.count("does not answer") == 1
    second = process("run", "good.py")
    assert second.code == 0, second.stderr
    assert "lacks" not in second.stderr
    client = MlflowClient(searched.mlflow_url)
    (version,) = client.search_model_versions("name = 'cifar-tune-good'")
    assert "of the test images" in str(version.description)
    assert_each_trial_once(searched.mlflow_url, "good/evaluate-1", dict.fromkeys(range(4), 1))
    third = process("evaluate", "good", "--seeds", 2)
    assert (third.code, third.stdout) == (0, first.stdout)


def test_a_search_is_not_deleted_while_mlflow_does_not_answer(searched: Store) -> None:
    answer = process("delete", "good", "--yes", url="http://me:secret@127.0.0.1:9")
    assert_is_refused(answer, "MLflow at http://127.0.0.1:9 does not answer")
    assert studies(searched) == ["good"]
    assert searched.space("good").exists()


def test_a_deletion_that_mlflow_does_not_finish_says_what_is_deleted_and_is_repeated(searched: Store) -> None:
    server = Server(searched.root.parent / "server")
    server.start()
    client = MlflowClient(server.url)
    tags = {SEARCH_TAG: "good", SEARCH_ID_TAG: read_attributes(searched, "good")["id"]}
    client.create_run(client.create_experiment("cifar-tune shapes"), tags=tags)
    with proxy_before(server.url) as proxy:
        proxy.status, proxy.spares_questions = 500, True
        first = process("delete", "good", "--yes", url=proxy.url)
        assert_is_refused(
            first, "an error (HTTP 500)", "The files of good are deleted; the same command deletes the rest"
        )
        assert not searched.search("good").exists()
        proxy.status = None
        second = process("delete", "good", "--yes", url=proxy.url)
    assert second.code == 0, second.stderr
    assert "1 MLflow run" in second.stderr
    assert runs_of(server.url, "good") == []
    assert studies(searched) == []
    server.kill()


def assert_is_refused(answer: Answer, *words: str) -> None:
    """One sentence and exit code 2, whether or not the workers were about to be started."""
    assert answer.code == 2, answer
    assert answer.stdout == ""
    lines = [line for line in answer.stderr.splitlines() if line and not line.startswith("Starting the workers")]
    (line,) = lines
    assert line.startswith("cifar-tune: ")
    for part in words:
        assert part in line


OTHERS = [("run good.py", "ffffffffffff", "is of a newer MLflow"), ("ui", OLD, "is of an older MLflow")]


@pytest.mark.parametrize(("command", "version", "words"), OTHERS)
def test_a_database_of_another_mlflow_is_refused_before_anything_is_trained(
    store: Store, command: str, version: str, words: str
) -> None:
    open_client(store)
    with closing(sqlite3.connect(store.root / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    assert_is_refused(process(*command.split()), words, "mlflow.db")
    assert studies(store) == []


def test_artifacts_that_cannot_be_written_in_the_store_are_refused_too(store: Store) -> None:
    """MLflow opens the store's own database later than others."""
    store.artifacts.parent.mkdir(parents=True, exist_ok=True)
    store.artifacts.write_text("and no folder", encoding="utf-8")
    assert_is_refused(process("run", "good.py"), "artifacts", "cannot be written")
    assert studies(store) == []


def test_artifacts_that_this_user_may_not_write_are_refused_before_anything_is_trained(
    folder: Path, store: Store
) -> None:
    (folder / "a file").write_text("and no folder", encoding="utf-8")
    url, place = f"sqlite:///{folder / 'mine.db'}", folder / "a file" / "in"
    MlflowClient(url).create_experiment("cifar-tune shapes", artifact_location=place.as_uri())
    assert_is_refused(process("run", "good.py", url=url), "a file/in", "cannot be written")
    assert studies(store) == []
