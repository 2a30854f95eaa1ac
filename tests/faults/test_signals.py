"""Signals at every moment of a command: it ends with 130, no trial fails, no process is left, and it can be resumed."""

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from helpers.command_line import GOOD, PATIENCE, Start, trials_of, wait_until

from cifar_tune.store import Store, open_store

pytestmark = [pytest.mark.faults, pytest.mark.slow]

LONG = GOOD.replace("epochs=1", "epochs=20000")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def descendants(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def are_gone(processes: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


def training(tmp_path: Path, store: Store, start: Start) -> "subprocess.Popen[str]":
    """A search whose trials have trained an epoch and will not end by themselves."""
    (tmp_path / "good.py").write_text(LONG)
    search = start("run", tmp_path / "good.py", "--store", store.root)
    wait_until(lambda: search.poll() is not None or any(trial.epochs for trial in trials_of(store, "good")))
    assert search.poll() is None, search.communicate()
    return search


def assert_interrupted(search: "subprocess.Popen[str]", processes: list[psutil.Process], store: Store) -> None:
    _, stderr = search.communicate(timeout=PATIENCE)
    assert search.returncode == 130, stderr
    assert "Interrupted." in stderr
    assert "Traceback (most recent call last)" not in stderr
    assert "unexpected" not in stderr
    wait_until(lambda: are_gone(processes))
    assert {trial.state for trial in trials_of(store, "good")} == {"interrupted"}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_all_processes_at_one_moment(tmp_path: Path, store: Store, start: Start, name: str) -> None:
    """As a scheduler sends it to a step; Ray's own processes die of it, and it ends the process that started it."""
    search = training(tmp_path, store, start)
    processes = descendants(search)
    for pid in [*(process.pid for process in processes), search.pid]:
        os.kill(pid, getattr(signal, name))
    assert_interrupted(search, processes, store)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_to_the_command_alone(tmp_path: Path, store: Store, start: Start, name: str) -> None:
    search = training(tmp_path, store, start)
    processes = descendants(search)
    search.send_signal(getattr(signal, name))
    assert_interrupted(search, processes, store)


def test_a_closed_terminal_interrupts_a_search_which_then_goes_on(tmp_path: Path, store: Store, start: Start) -> None:
    search = training(tmp_path, store, start)
    processes = descendants(search)
    search.send_signal(signal.SIGHUP)
    assert_interrupted(search, processes, store)
    epochs = [trial.epochs for trial in trials_of(store, "good")]
    again = start("run", tmp_path / "good.py", "--store", store.root, "--time-budget", "20s")
    _, stderr = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, stderr
    assert all(trial.epochs >= before for trial, before in zip(trials_of(store, "good"), epochs, strict=True))


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path, store: Store, start: Start) -> None:
    search = training(tmp_path, store, start)
    processes = descendants(search)
    search.send_signal(signal.SIGINT)
    time.sleep(0.5)  # longer than what counts as one signal
    search.send_signal(signal.SIGINT)
    assert_interrupted(search, processes, store)


def test_ctrl_c_while_a_search_starts_leaves_no_search(tmp_path: Path, store: Store, start: Start) -> None:
    (tmp_path / "good.py").write_text(LONG)
    for seconds in (0.3, 2.0, 4.0):
        search = start("run", tmp_path / "good.py", "--store", store.root)
        time.sleep(seconds)
        processes = descendants(search)
        os.killpg(search.pid, signal.SIGINT)
        _, stderr = search.communicate(timeout=PATIENCE)
        assert search.returncode == 130, stderr
        assert "Traceback (most recent call last)" not in stderr
        wait_until(partial(are_gone, processes))
    assert trials_of(store, "good") == []


def test_nohup_keeps_a_search_alive_when_its_terminal_closes(tmp_path: Path, store: Store, start: Start) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which processes inherit
    try:
        search = start("run", tmp_path / "good.py", "--store", store.root)
    finally:
        signal.signal(signal.SIGHUP, ignored)
    wait_until(lambda: search.poll() is not None or bool(trials_of(store, "good")))
    for process in [*descendants(search), psutil.Process(search.pid)]:
        process.send_signal(signal.SIGHUP)
    _, stderr = search.communicate(timeout=PATIENCE)
    assert search.returncode == 0, stderr
