"""A real MLflow server of one's own, which can be stopped, resumed, killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event, Thread

import psutil

from cifar_tune.tracking.address import answers

PATIENCE = 600.0  # seconds until it answers; a good machine needs a hundredth of them


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
            if time.monotonic() > deadline:
                raise TimeoutError("the server does not answer")
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


@contextmanager
def outages(
    server: Server, seconds_up: float, seconds_away: float, kills: bool = True, seed: int = 0
) -> Iterator[list[float]]:
    """Within the block the server is stopped, and with `kills` every second time killed and started again.

    It is there and away for half to one and a half times the seconds given, drawn with `seed`. Yields the seconds of
    each outage.
    """
    is_over, lengths, random = Event(), list[float](), Random(seed)

    def come_and_go() -> None:
        while not is_over.wait(seconds_up * random.uniform(0.5, 1.5)):
            start, is_killed = time.monotonic(), kills and len(lengths) % 2 == 1
            (server.kill if is_killed else server.stop)()
            is_over.wait(seconds_away * random.uniform(0.5, 1.5))
            (server.start if is_killed else server.resume)()
            lengths.append(time.monotonic() - start)

    thread = Thread(target=come_and_go)
    thread.start()
    try:
        yield lengths
    finally:
        is_over.set()
        thread.join()
