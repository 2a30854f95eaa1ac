"""Measures what the driver of a search costs: the record, the sampler, the scheduler and MLflow, without Ray.

    uv run python analysis/speed/driver.py --trials 10 100 1000 10000
    uv run python analysis/speed/driver.py --against ../other-checkout --json driver.json

A store with so many invented trials is opened, and NUM_NEW more are driven on two workers whose training is a pause.
Prints milliseconds; with `--against`, those of another checkout on copies of the same stores, in turn, and the ratio.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean, median
from typing import Any

import psutil
from rich.console import Console

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "search_spaces" / "mini_resnet.py"
NAME, EPOCHS, NUM_NEW, NUM_WORKERS = "made-up", 8, 40, 2
PAUSE = 0.1  # seconds of training of an epoch
SETTINGS = {"epochs": str(EPOCHS)}
COLUMNS = {  # of the table, in milliseconds where nothing else is said
    "open_s": "opening, s",
    "wait": "wait for a trial, median",
    "longest_wait": "longest",
    "epoch": "an epoch, median",
    "judgement": "a judgement, median",
    "end": "an end, median",
    "loop_per_epoch": "driver's loop per epoch",
    "loop_with_waits": "and waiting for trials",
    "cpu_per_epoch": "all threads per epoch",
    "memory_mb": "memory, MB",
    "grown_kb": "kB per new trial",
    "store_mb": "store, MB",
}


def fill(folder: Path) -> None:
    """Deliver the trials of the store to its MLflow."""
    store, record = _opened(folder)
    _delivery(record, store, are_shown=False)


def _opened(folder: Path) -> Any:  # noqa: ANN401 - imported late, as everything here
    """The store in the folder, and its record."""
    from cifar_tune.search.identity import open_record
    from cifar_tune.search.space import load_space
    from cifar_tune.store import open_store

    store = open_store(folder)
    return store, open_record(store, NAME, load_space(SPACE, SETTINGS), seed=0)


def _delivery(record: Any, store: Any, *, are_shown: bool) -> Any:  # noqa: ANN401 - imported late, as everything here
    """A delivery that has delivered all trials so far, and its outbox."""
    from cifar_tune.tracking.delivery import Delivery
    from cifar_tune.tracking.outbox import Outbox
    from cifar_tune.tracking.subject import Subject

    outbox = Outbox(store, Console(stderr=True, quiet=True))
    subject = Subject(record.name, record.id, "cifar10", "digest", "", "", {})
    delivery = Delivery(outbox, subject, record.trials(), are_shown=are_shown)
    outbox.wait()
    return delivery, outbox


def measure(folder: Path, *, with_mlflow: bool) -> dict[str, float]:
    """Drive NUM_NEW trials on top of those in the store; the columns of the table."""
    from cifar_tune.search.driver import Driver
    from cifar_tune.search.ray_settings import configure_ray

    configure_ray(local=True)
    start = time.perf_counter()
    store, record = _opened(folder)
    observers: list[Any] = []
    if with_mlflow:
        delivery, outbox = _delivery(record, store, are_shown=True)
        observers.append(delivery)
    num_trials = record.num_started + NUM_NEW
    driver = Driver(record, num_trials, observers)
    opening = time.perf_counter() - start
    times: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        ask = _asker(driver, stack)
        live: list[list[int]] = []  # number and next epoch
        memory, cpu, begun = psutil.Process().memory_info().rss, time.process_time(), time.perf_counter()
        while not driver.is_over:
            while len(live) < NUM_WORKERS and driver.num_left:
                start = time.perf_counter()
                trial = ask()
                times["wait"].append(time.perf_counter() - start)
                live.append([trial.number, 1])
            time.sleep(PAUSE)
            for each in list(live):
                number, epoch = each
                start = time.perf_counter()
                driver.tick()
                goes_on = driver.add_epoch(number, _metrics(number, epoch), {"time/checkpoint": 0.1 * epoch})
                kind = "judgement" if epoch == 1 and goes_on else "epoch" if goes_on else "end"
                times[kind].append(time.perf_counter() - start)
                each[1] += 1
                if not goes_on:
                    live.remove(each)
        if with_mlflow:
            outbox.wait()
        cpu = time.process_time() - cpu
    print(f"{time.perf_counter() - begun:.1f} s", file=sys.stderr)
    in_loop = [seconds for kind in ("judgement", "epoch", "end") for seconds in times[kind]]
    return {
        "open_s": opening,
        "wait": 1000 * median(times["wait"][5:]),
        "longest_wait": 1000 * max(times["wait"][5:]),
        **{kind: 1000 * median(times[kind]) for kind in ("epoch", "judgement", "end") if times[kind]},
        "loop_per_epoch": 1000 * fmean(in_loop),
        "loop_with_waits": 1000 * (sum(in_loop) + sum(times["wait"][5:])) / len(in_loop),
        "cpu_per_epoch": 1000 * cpu / len(in_loop),
        "memory_mb": psutil.Process().memory_info().rss / 1e6,
        "grown_kb": (psutil.Process().memory_info().rss - memory) / 1e3 / NUM_NEW,
        "store_mb": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6,
    }


def _asker(driver: Any, stack: ExitStack) -> Any:  # noqa: ANN401 - of two versions
    """What gives the next trial: the planner, in versions that have one."""
    try:
        from cifar_tune.search.planner import Planner
    except ImportError:
        return driver.next_trial
    planner = Planner(driver, NUM_WORKERS)
    stack.enter_context(planner.planning())
    return lambda: planner.next_trial(patience=600.0)


def _metrics(number: int, epoch: int) -> dict[str, float]:
    accuracy = (0.5 + number * 0.618 % 0.4) * epoch / EPOCHS
    names = ("train_loss", "train_accuracy", "val_loss", "lr", "seconds", "images_per_second")
    own = {"epoch": epoch, "progress": epoch / EPOCHS, "val_accuracy": accuracy}
    return {**own, **dict.fromkeys(names, PAUSE)}


def _measure_in(checkout: Path, store: Path, *, with_mlflow: bool) -> dict[str, float]:
    """The measurements of a checkout on a copy of the store, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "store"
        shutil.copytree(store, copy)
        measured: dict[str, float] = json.loads(
            _in_process(checkout, "--measure", copy, *(["--mlflow"] if with_mlflow else []))
        )
    return measured


def _in_process(checkout: Path, *arguments: object) -> str:
    command = [sys.executable, __file__, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), str(ROOT / "analysis")])}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _print(rows: list[dict[str, Any]]) -> None:
    print("| trials | MLflow | version | " + " | ".join(COLUMNS.values()) + " |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for row in rows:
        cells = [f"{row[name]:.4g}" if name in row else "" for name in COLUMNS]
        print(f"| {row['trials']:,} | {'yes' if row['mlflow'] else 'no'} | {row['version']} | {' | '.join(cells)} |")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--against", type=Path, help="another checkout of cifar-tune")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mlflow", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        fill(arguments.fill)
        os._exit(0)
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, with_mlflow=arguments.mlflow)), flush=True)
        os._exit(0)  # threads of MLflow may still write
    sys.path.insert(0, str(ROOT / "analysis"))
    from make_store import make_store

    checkouts = {"this": ROOT, **({"other": arguments.against.absolute()} if arguments.against else {})}
    rows = []
    for num_trials in arguments.trials:
        with tempfile.TemporaryDirectory() as folder:
            make_store(Path(folder), num_trials, EPOCHS, NAME)
            for with_mlflow in (False, True):
                if with_mlflow:
                    _in_process(ROOT, "--fill", folder)
                measured = {
                    name: _measure_in(checkout, Path(folder), with_mlflow=with_mlflow)
                    for name, checkout in checkouts.items()
                }
                head = {"trials": num_trials, "mlflow": with_mlflow}
                rows += [{**head, "version": name, **figures} for name, figures in measured.items()]
                if "other" in measured:
                    ratios = {
                        name: measured["this"][name] / value for name, value in measured["other"].items() if value
                    }
                    rows.append({**head, "version": "ratio", **ratios})
    _print(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
