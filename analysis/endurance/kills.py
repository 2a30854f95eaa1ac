"""Kills searches at random moments, resumes each, and counts the trials in the record, in MLflow and in the report.

    uv run python analysis/endurance/kills.py --searches 10 --kills 10

Prints a line for each search: the kills that it survived, and whether all agree at the end.
"""

import argparse
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import optuna
from agreement import command, disagreements

from cifar_tune.store import Store

SPACE = """from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet", "width": 0.5}, optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "constant"}, epochs=6, batch_size=32, train_images=256,
)

def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)})

SEARCH = Search(num_trials=24)
"""
LONGEST = 20.0  # seconds until a kill; the start of a search takes about half of them
NUM_TRIALS = 24


def search_with_kills(folder: Path, num_kills: int, rng: random.Random) -> tuple[int, str]:
    """Run a search that is killed at random moments; the number of kills, and what is wrong at its end."""
    space, store = folder / "killed.py", Store(folder / "store")
    space.write_text(SPACE)
    survived = 0
    for _ in range(num_kills):
        process = subprocess.Popen(
            command(store, "run", str(space)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            process.wait(rng.uniform(0.5, LONGEST))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            survived += 1
        process.wait()
    done = subprocess.run(command(store, "run", str(space)), capture_output=True, text=True, check=False)
    if done.returncode:
        return survived, f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}"
    return survived, "; ".join(disagreements(store, "killed", NUM_TRIALS))


def main() -> None:
    """Kill searches and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--searches", type=int, default=10)
    parser.add_argument("--kills", type=int, default=10, help="kills of each search")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng, total, start = random.Random(arguments.seed), 0, time.monotonic()
    for number in range(arguments.searches):
        with tempfile.TemporaryDirectory() as folder:
            survived, wrong = search_with_kills(Path(folder), arguments.kills, rng)
        total += survived
        print(f"search {number}: {survived} kills, {wrong or 'every trial once, everywhere'}", flush=True)
    print(f"{total} kills in {arguments.searches} searches, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
