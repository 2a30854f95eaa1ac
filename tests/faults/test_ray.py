"""Ray's start and what it leaves, and clusters that are there, are not, or refuse."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from helpers.command_line import GOOD, PATIENCE, Start, trials_of, wait_until

from cifar_tune.errors import UserError
from cifar_tune.search import ray_folder
from cifar_tune.search.ray_cluster import ray_cluster
from cifar_tune.store import Store

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# Joins a cluster, or starts one without an argument, and lets a worker of it answer.
TASK = """
import os, sys

from cifar_tune.search.ray_settings import configure_ray

address = sys.argv[1] if len(sys.argv) > 1 else None
configure_ray(local=address is None)

import ray
from cifar_tune.errors import UserError
from cifar_tune.search.ray_cluster import ray_cluster

try:
    with ray_cluster(address):
        print(ray.get(ray.remote(lambda: "answered").remote()), flush=True)
        if len(sys.argv) > 2:
            sys.stdin.readline()
except UserError as error:
    print(error)
"""


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Of a user with a home of their own, and nothing set for Ray."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**inherited, "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(home), **variables}


def task(variables: dict[str, str], *arguments: str) -> str:
    """What the task prints on stdout; nothing of Ray's may be on stderr."""
    done = subprocess.run([sys.executable, "-c", TASK, *arguments], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_a_long_temporary_folder_is_no_obstacle_and_nothing_is_left(tmp_path: Path) -> None:
    """Nor is a home that cannot be written, or another user's /tmp/ray, which is not used."""
    long = tmp_path / ("long" * 25)
    long.mkdir()
    home = tmp_path / "home"
    home.write_text("no folder")
    assert task(environment(home, TMPDIR=str(long), RAY_TMPDIR=str(tmp_path / "missing"))) == "answered"
    assert list(long.iterdir()) == []


def test_the_folder_of_a_killed_command_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = Path("/tmp") / f"ct-{os.getpid()}"  # short, as Ray's sockets need it
    parent.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(parent))
    monkeypatch.setattr(ray_folder, "SECONDS_TO_LOCK", 0.0)
    try:
        variables = environment(tmp_path, RAY_TMPDIR=str(parent))
        process = subprocess.Popen(
            [sys.executable, "-c", TASK], stdout=subprocess.PIPE, stdin=subprocess.PIPE, env=variables, text=True
        )
        assert process.stdout
        assert process.stdout.readline() == "answered\n"
        process.kill()
        process.communicate()
        (abandoned,) = parent.iterdir()
        with ray_folder.ray_folder() as first, ray_folder.ray_folder() as second:
            assert not abandoned.exists()
            assert first.is_dir()
            assert second.is_dir()
        assert list(parent.iterdir()) == []
    finally:
        subprocess.run(["rm", "-r", parent], check=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """HOST:PORT of a cluster that `ray start` has made, and the environment of its user, whose home has Ray's token."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a" * 64)
    with closing(socket.socket()) as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    folder = Path("/tmp") / f"ct-{os.getpid()}"
    variables = environment(tmp_path)
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}", "--num-cpus=1"]
    command += ["--include-dashboard=false", f"--temp-dir={folder}", "--disable-usage-stats"]
    try:
        subprocess.run(command, env=variables, check=True, capture_output=True)
        yield f"127.0.0.1:{port}", variables
    finally:
        for process in psutil.process_iter(["cmdline"]):  # not `ray stop`, which ends every Ray of this machine
            if any(str(folder) in part for part in process.info["cmdline"] or ()):
                process.send_signal(signal.SIGKILL)
        subprocess.run(["rm", "-rf", folder], check=True)


def test_a_cluster_that_is_there_is_joined_with_its_token_or_refused_in_a_sentence(
    cluster: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, variables = cluster
    assert task(variables, address) == "answered"
    refused = task({**variables, "RAY_AUTH_TOKEN": "another"}, address)
    assert refused == f"The Ray cluster at {address} asks for its token; put it into RAY_AUTH_TOKEN."


LARGE_TASK = """
import time
from cifar_tune.search.ray_settings import configure_ray

configure_ray(local=True)
import ray
from cifar_tune.search.ray_cluster import ray_cluster

large = bytes(20_000_000)
with ray_cluster(None):
    print(ray.get(ray.remote(lambda: len(large)).remote()))
    time.sleep(2)  # Ray prints in a thread
"""


def test_what_ray_says_of_a_large_task_is_not_on_stdout(tmp_path: Path) -> None:
    variables = environment(tmp_path)
    command = [sys.executable, "-c", LARGE_TASK]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=True)
    assert done.stdout == "20000000\n"


def test_files_beside_the_space_shadow_no_package_in_workers(tmp_path: Path) -> None:
    """A folder of experiments may well have an optuna.py."""
    (tmp_path / "good.py").write_text(GOOD)
    for name in ("optuna", "torch", "random", "secrets"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not the package')")
    command = [str(Path(sys.executable).parent / "cifar-tune"), "run", "good.py", "--store", "store"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(60)  # Ray itself would wait for minutes
@pytest.mark.parametrize("is_open", [False, True], ids=["nobody", "another server"])
def test_an_address_without_a_cluster_is_refused_at_once(is_open: bool) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if is_open:
            threading.Thread(target=greet, args=[server], daemon=True).start()
        else:
            server.close()
        with pytest.raises(UserError, match=f"There is no Ray cluster at {address}"), ray_cluster(address):
            pass


def greet(server: socket.socket) -> None:
    """Answer as a server that speaks no HTTP/2."""
    connection, _ = server.accept()
    connection.sendall(b"220 mail\r\n")
    connection.close()


@pytest.mark.parametrize("address", ["10.0.0.5", "host:", "ray://10.0.0.5:10001", "host:port"])
def test_what_is_no_address_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(UserError, match=f"--address {address}: .*HOST:PORT"), ray_cluster(address):
        pass


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that starts no worker of Ray while a file named `ban` is beside it."""
    python, ban = tmp_path / "python", tmp_path / "ban"
    ending = f'[ -e {ban} ] && case "$*" in *default_worker.py*) exit 1;; esac'
    python.write_text(f'#!/bin/sh\n{ending}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


SEARCH = """
from cifar_tune.search.ray_settings import configure_ray

configure_ray(local=True)
import sys
from cifar_tune import cli
from cifar_tune.search import ray_tune

ray_tune.SECONDS_TO_START = 60.0
sys.executable = sys.argv.pop(1)
cli.main()
"""


def test_workers_that_cannot_start_any_more_end_the_search(python: Path, tmp_path: Path) -> None:
    """Ray itself would start one after the other for ever."""
    (tmp_path / "good.py").write_text(GOOD.replace("epochs=1", "epochs=20000"))
    store = Store(tmp_path / "store")
    command = [sys.executable, "-c", SEARCH, str(python), "run", str(tmp_path / "good.py"), "--store", str(store.root)]
    search = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(tmp_path))
    wait_until(lambda: search.poll() is not None or any(trial.epochs for trial in trials_of(store, "good")))
    python.with_name("ban").touch()
    for process in psutil.Process(search.pid).children(recursive=True):
        if process.name().startswith("ray::Impl"):
            process.kill()
    _, stderr = search.communicate(timeout=PATIENCE)
    assert search.returncode == 2, stderr
    assert "cifar-tune: Ray's workers do not start; free memory or processes, then run the same command" in stderr
    assert {trial.state for trial in trials_of(store, "good")} == {"interrupted"}


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_ray_that_is_killed_ends_the_search_in_a_sentence(tmp_path: Path, start: Start, name: str) -> None:
    """As the system does it for want of memory; Ray's core then ends the process that started it, without a word."""
    (tmp_path / "good.py").write_text(GOOD.replace("epochs=1", "epochs=20000"))
    store = Store(tmp_path / "store")
    search = start("run", tmp_path / "good.py", "--store", store.root)
    wait_until(lambda: search.poll() is not None or any(trial.epochs for trial in trials_of(store, "good")))
    (process,) = [each for each in psutil.Process(search.pid).children(recursive=True) if each.name().startswith(name)]
    process.kill()
    _, stderr = search.communicate(timeout=PATIENCE)
    assert search.returncode == 2, stderr
    assert "cifar-tune: Ray or this command was ended from outside" in stderr
    assert all(trial.state in ("running", "interrupted") for trial in trials_of(store, "good"))
