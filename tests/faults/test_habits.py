"""Other people's habits: recipes in several modules, fewer cores than the machine has, states of another device."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import GOOD, PATIENCE, Call

from cifar_tune.data.datasets import load_training_data
from cifar_tune.search.identity import open_record
from cifar_tune.search.space import load_space
from cifar_tune.store import Store, open_store
from cifar_tune.training.checkpoint import save_state
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import Training
from cifar_tune.trials.facts import FIRST_EPOCH, RANDOM_NUMBERS, WORKER
from cifar_tune.trials.reading import read_record
from cifar_tune.trials.trial import Trial

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def trials_of(store: Store) -> list[Trial]:
    return read_record(store, ["good"])["good"]


def test_a_search_with_a_helper_goes_on_when_more_trials_are_asked_for_in_its_file(store: Store, call: Call) -> None:
    imports, baseline, space, search = GOOD.split("\n\n")
    path, helper = store.root.parent / "good.py", store.root.parent / "common.py"
    helper.write_text(f"{imports}\n{baseline}", encoding="utf-8")
    header = "from cifar_tune import Search\nfrom common import BASELINE\n\n"
    path.write_text(f"{header}{space}\n\n{search.replace('=2', '=1')}", encoding="utf-8")
    assert call("run", path, "--store", store.root).code == 0
    path.write_text(f"{header}# A comment.\n{space}\n\n{search}", encoding="utf-8")
    answer = call("run", path, "--store", store.root)
    assert (answer.code, len(trials_of(store))) == (0, 2), answer.stderr
    copy = call("run", store.space("good"), "--name", "good", "--store", store.root)
    assert "good is complete" in copy.stderr
    helper.write_text(f"{imports}\n{baseline.replace('0.001', '0.002')}", encoding="utf-8")
    answer = call("run", path, "--store", store.root)
    assert answer.code == 2
    assert "was started with another common.py" in answer.stderr


def test_one_core_of_many_is_one_worker_in_the_plan_in_ray_and_in_the_record(store: Store) -> None:
    path = store.root.parent / "good.py"
    path.write_text(GOOD, encoding="utf-8")
    core = min(os.sched_getaffinity(0))
    command = f"taskset -c {core} {sys.executable} -m cifar_tune run {path} --store {store.root}".split()

    def run(*flags: str) -> str:
        done = subprocess.run([*command, *flags], capture_output=True, text=True, check=True, timeout=PATIENCE)
        return done.stdout

    assert "2 trials, 1 at a time on 1 core each" in run("--plan")
    run()
    assert len({trial.facts[WORKER] for trial in trials_of(store)}) == 1
    tags = "SELECT DISTINCT value FROM tags WHERE key = 'cores'"
    with closing(sqlite3.connect(store.root / "mlflow.db")) as connection:
        assert connection.execute(tags).fetchall() == [("1",)]


def test_a_gpus_checkpoint_goes_on_on_a_cpu_and_a_line_says_what_differs(store: Store) -> None:
    path = store.root.parent / "good.py"
    path.write_text(GOOD.replace("epochs=1", "epochs=2").replace("num_trials=2", "num_trials=1"), encoding="utf-8")
    record = open_record(store, "good", load_space(path), 0)
    trial = record.start_trial()
    data = load_training_data("shapes", train_images=64, data_dir=None, store=store.root)
    training = Training(trial.recipe, DeviceData.place(data, torch.device("cpu")))
    record.add_epoch(trial.number, next(training.fit()).as_row())
    record.check_unchanged("data", data.digest)
    save_state(store.trial("good", trial.number), as_a_gpu_leaves_it(training.state_dict()))
    record.interrupt_all()
    command = [sys.executable, "-m", "cifar_tune", "run", str(path), "--store", str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    (resumed,) = trials_of(store)
    assert (resumed.state, resumed.epochs, resumed.facts[FIRST_EPOCH]) == ("completed", 2, 1)
    line = "random numbers differ from epoch 2 on: its checkpoint is of a GPU, and it goes on on a CPU"
    assert line in done.stderr
    assert resumed.facts[RANDOM_NUMBERS] in line


def as_a_gpu_leaves_it(state: dict[str, Any]) -> dict[str, Any]:
    """The state with the random state of a GPU: a seed and an offset."""
    return {**state, "generator": torch.zeros(16, dtype=torch.uint8), "cuda_rng": torch.zeros(16, dtype=torch.uint8)}
