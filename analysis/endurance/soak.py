"""Soaks the product: one long search of short trials, one in twenty with a fault, beside a server that comes and goes.

    uv run python analysis/endurance/soak.py --trials 2000

Real processes: `cifar-tune run`, Ray's workers and an MLflow server, which is stopped, killed and started again. The
faults are an error of the network, a loss that is not a number, memory that is not there, a killed worker and a full
disk. Prints a table of what the processes hold, and exits with 1 unless everything counts every trial once.
"""

import argparse
import json
import os
import random
import re
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import optuna
import psutil
from agreement import deliver_the_rest, disagreements, report_rows
from tracking_server import Server, outages

from cifar_tune.store import Store

SPACE = """from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={{"name": "mini_resnet", "width": 0.25}}, optimizer={{"name": "adam", "lr": 0.001}},
    schedule={{"name": "constant"}}, epochs=1, batch_size=32, train_images=64,
)

def space(trial):
    return BASELINE.replace({{
        "optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
    }})

SEARCH = Search(num_trials={num_trials}, sampler="random", scheduler={{"name": "none"}})
"""
SEARCH = "soak"
NUM_VAL = 64  # validation images, so that a trial is short
WORKERS = 2
# The faults, and the state in which each leaves its trial.
FAULTS = {
    "an error of the network": "failed",
    "a loss that is no number": "diverged",
    "no memory": "out of memory",
    "a killed worker": "completed",
    "a full disk": "completed",
}
SECONDS_UP, SECONDS_AWAY = 40.0, 10.0  # of the server
SECONDS_TO_END = 10.0  # for processes that are ending when the command has ended
SECONDS_BETWEEN_LOOKS = 1.0
NUM_ROWS = 10  # of the table


def fault_of(number: int, num_trials: int, one_in: int) -> str | None:
    """The fault of a trial: the same in every process, and none of the baseline."""
    numbers = random.Random(0).sample(range(1, num_trials), num_trials // one_in)
    return dict(zip(numbers, list(FAULTS) * len(numbers), strict=False)).get(number)


def drive(space: Path, folder: Path, num_trials: int, one_in: int) -> None:
    """Run the search with workers that have the faults, in this process, and note what Ray says of its trials."""
    from cifar_tune import cli
    from cifar_tune.commands import session
    from cifar_tune.commands.session import TrainingOptions
    from cifar_tune.data.images import Images, TrainingData
    from cifar_tune.recipe.recipe import Recipe
    from cifar_tune.search.ray_settings import configure_ray

    configure_ray(local=True)
    from cifar_tune.search import ray_function, ray_tune

    load_data = session.load_data

    def load_little(recipe: Recipe, store: Store, options: TrainingOptions) -> TrainingData:
        data = load_data(recipe, store, options)
        val = Images(data.val.images[:NUM_VAL], data.val.labels[:NUM_VAL])
        return replace(data, val=val)

    def train_with_fault(config: Any, data: TrainingData) -> None:  # noqa: ANN401 - Ray's
        from cifar_tune.search import ray_worker

        fault, mark = fault_of(config["number"], num_trials, one_in), Path(config["folder"], "fault")
        if fault == "a loss that is no number":
            config["recipe"]["optimizer"]["lr"] = 1e30
        elif mark.exists():
            fault = None  # it happens once
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()

        def prepare(device: object) -> str:
            break_down(fault)
            return "cpu"

        ray_worker.prepare = prepare
        ray_worker.train_trial(config, data, time.time())

    class CountingPulse(ray_tune._Pulse):
        """Keeps the states in which Ray sees its trials."""

        def on_step_end(self, iteration: int, trials: list[Any], **info: object) -> None:
            (folder / "ray.json").write_text(json.dumps(Counter(trial.status for trial in trials)))
            super().on_step_end(iteration, trials, **info)

    session.load_data, ray_function.train = load_little, train_with_fault
    ray_tune._Pulse = CountingPulse  # type: ignore[misc]
    options = ("--cpus-per-trial", "1", "--max-concurrent", str(WORKERS))
    sys.argv = ["cifar-tune", "run", str(space), "--store", str(folder), *options]
    cli.main()


def break_down(fault: str | None) -> None:
    """Let a fault happen to this process, which is a worker."""
    import torch

    if fault == "an error of the network":
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    elif fault == "no memory":
        torch.empty(2**56)
    elif fault == "a killed worker":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "a full disk":
        Path("/dev/full").write_text("no room")


@dataclass(frozen=True)
class Sample:
    """What the processes of a search hold at one moment; memory in MB, and of the workers the most of one."""

    seconds: float
    trials: int
    driver: float
    worker: float
    handles: int
    threads: int
    processes: int


def take_sample(process: psutil.Process, start: float, num_trials: int) -> Sample:
    workers = [rss for each in process.children(recursive=True) if (rss := _memory_of_worker(each))]
    return Sample(
        seconds=time.monotonic() - start,
        trials=num_trials,
        driver=process.memory_info().rss / 1e6,
        worker=max(workers, default=0.0),
        handles=process.num_fds(),
        threads=process.num_threads(),
        processes=len(process.children(recursive=True)),
    )


def _memory_of_worker(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        if process.name().startswith("ray::"):
            return float(process.memory_info().rss / 1e6)
    return 0.0


def soak(folder: Path, num_trials: int, one_in: int) -> list[str]:
    """Run the search and print what is found; returns what is wrong, in words."""
    space, store, temporary = folder / f"{SEARCH}.py", Store(folder / "store"), folder / "tmp"
    space.write_text(SPACE.format(num_trials=num_trials))
    store.root.mkdir()
    temporary.mkdir()
    server = Server(folder / "server")
    server.start()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server.url, "RAY_TMPDIR": str(temporary)}
    arguments = [sys.executable, __file__, "--drive", str(space), str(store.root)]
    arguments += ["--trials", str(num_trials), "--one-in", str(one_in)]
    start = time.monotonic()
    with outages(server, SECONDS_UP, SECONDS_AWAY) as lengths, (folder / "log").open("w") as log:
        command = psutil.Popen(arguments, env=environment, stdout=log, stderr=log)
        family = watch(command, store, num_trials)
    _, left = psutil.wait_procs(family, timeout=SECONDS_TO_END)
    wrong = [f"{process} is left" for process in left] + [f"{path} is left" for path in temporary.iterdir()]
    if command.returncode:
        wrong.append(f"exit code {command.returncode}: {(folder / 'log').read_text()[-2000:]}")
    print(f"{time.monotonic() - start:.0f} s; the server was away for {sum(lengths):.0f} s in {len(lengths)} outages")
    for sentence in re.findall(r"MLflow lacks .*?;", (folder / "log").read_text()):
        print(f"at the end {sentence}")
        print("\n".join(deliver_the_rest(store, space, environment)) or "the next command has delivered it")
    wrong += disagreements(store, SEARCH, num_trials, server.url)
    wrong += _miscounts(store, num_trials, one_in)
    server.kill()
    return wrong


def watch(command: psutil.Popen, store: Store, num_trials: int) -> list[psutil.Process]:
    """Print samples until the command ends; returns all processes that were its children at any time."""
    start, num_rows, family = time.monotonic(), 0, set[psutil.Process]()
    print(_row(field.name for field in fields(Sample)))
    while command.poll() is None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        done = _num_done(store)
        with suppress(psutil.Error):
            family |= set(command.children(recursive=True))
            if done * NUM_ROWS // num_trials > num_rows:
                print(_row(astuple(take_sample(command, start, done))), flush=True)
                num_rows = done * NUM_ROWS // num_trials
    return list(family)


def _num_done(store: Store) -> int:
    """The number of trials that are over, read from the database while the search writes it."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{store.root}/optuna.db?mode=ro", uri=True)) as file:
        return int(file.execute("SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'FAIL')").fetchone()[0])
    return 0


def _row(values: Iterable[object]) -> str:
    return "".join(f"{value:>11.0f}" if isinstance(value, float) else f"{value:>11}" for value in values)


def _miscounts(store: Store, num_trials: int, one_in: int) -> list[str]:
    """Print the states of the trials, and return how they differ from those that the faults should leave."""
    states = Counter(row["state"] for row in report_rows(store, SEARCH))
    by_ray = json.loads((store.root / "ray.json").read_text())
    faults = Counter(fault_of(number, num_trials, one_in) for number in range(num_trials))
    expected = Counter(
        FAULTS.get(fault_of(number, num_trials, one_in) or "", "completed") for number in range(num_trials)
    )
    print("faults: " + ", ".join(f"{faults[fault]} {fault}" for fault in FAULTS))
    print("trials: " + ", ".join(f"{count} {state}" for state, count in states.items()) + f"; Ray: {by_ray}")
    wrong = [] if states == expected else [f"the states should be {dict(expected)}"]
    if by_ray != {"TERMINATED": num_trials + faults["a full disk"]}:  # a trial that is put back starts again
        wrong.append(f"Ray has {by_ray}")
    return wrong


def main() -> None:
    """Soak, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--one-in", type=int, default=20, help="one trial in so many has a fault")
    parser.add_argument("--drive", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        space, store = arguments.drive
        drive(space, store, arguments.trials, arguments.one_in)
        return
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        wrong = soak(Path(folder), arguments.trials, arguments.one_in)
    print(
        "\n".join(wrong) or "Optuna, MLflow, Ray and the report agree on every trial and epoch; nothing is left behind"
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
