"""A real MLflow server, which tests stop, resume, kill and start again; and what it has of searches."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from cifar_tune.tracking.address import answers
from helpers.command_line import PATIENCE


class Server:
    """A server on a folder of its own, at one address from the beginning to the end."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self._options = options
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        artifacts = [] if self._options else ["--artifacts-destination", str(self._folder / "artifacts")]
        database = f"sqlite:///{self._folder / 'server.db'}"
        command = ["server", "--port", str(self._port), "--workers", "1", "--backend-store-uri", database]
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # a dozen processes more
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, *artifacts, *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
        deadline = time.monotonic() + PATIENCE
        while not answers(self.url):
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop all of its processes, which then neither answer nor end."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            for process in [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(True)]:
                process.send_signal(number)


def runs_of(url: str, search: str) -> list[Run]:
    """All active runs of a search, its parent run among them."""
    client = MlflowClient(url)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`cifar_tune.search` = '{search}'", max_results=1000))


def assert_each_trial_once(url: str, search: str, epochs: dict[int, int]) -> None:
    """MLflow has one parent run and, under it, each trial once, with each of its epochs once."""
    client, runs = MlflowClient(url), runs_of(url, search)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "cifar_tune.trial" in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} <= {parent.info.run_id}
    assert Counter(int(run.data.tags["cifar_tune.trial"]) for run in children) == dict.fromkeys(epochs, 1)
    for run in children:
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        number = int(run.data.tags["cifar_tune.trial"])
        assert sorted(metric.step for metric in history) == list(range(1, 1 + epochs[number])), number
        assert run.data.params["model/name"]
