"""Measures what a tracking server that is away now and then costs a search.

    uv run python analysis/endurance/outages.py --pairs 5

Runs the same search with a real MLflow server that is there, and with one that is stopped at random for more than a
quarter of the time, in turn. Prints the seconds of each and the ratio in one pair, with its interval; exits with 1 if a
server lacks a trial or an epoch. The server is not killed, because its start would take the search's cores. Use a
machine that does nothing else.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import optuna
from agreement import command, deliver_the_rest, disagreements
from scipy import stats
from tracking_server import Server, outages

from cifar_tune.store import Store

SEARCH, NUM_TRIALS = "outages", 120
SPACE = f"""from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={{"name": "mini_resnet", "width": 0.5}}, optimizer={{"name": "adam", "lr": 0.001}},
    schedule={{"name": "constant"}}, epochs=4, batch_size=32, train_images=512,
)

def space(trial):
    return BASELINE.replace({{"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)}})

SEARCH = Search(num_trials={NUM_TRIALS}, sampler="random", scheduler={{"name": "none"}})
"""
SECONDS_UP, SECONDS_AWAY = 14.0, 6.0


def run_search(folder: Path, is_away: bool, seed: int) -> tuple[float, float, list[str]]:
    """Run the search; returns its seconds, the share of them that the server was away, and what it lacks."""
    space, store, server = folder / f"{SEARCH}.py", Store(folder / "store"), Server(folder / "server")
    space.write_text(SPACE)
    server.start()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server.url}
    start = time.monotonic()
    with ExitStack() as stack:
        times = outages(server, SECONDS_UP, SECONDS_AWAY, kills=False, seed=seed)
        lengths = stack.enter_context(times) if is_away else []
        arguments = command(store, "run", str(space), "--cpus-per-trial", "1", "--max-concurrent", "2")
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
    away = sum(lengths) / seconds
    wrong = [done.stderr[-1000:]] if done.returncode else []
    if "MLflow lacks" in done.stderr:  # it was away at the end; the next command delivers
        wrong += deliver_the_rest(store, space, environment)
    wrong += disagreements(store, SEARCH, NUM_TRIALS, server.url)
    server.kill()
    return seconds, away, wrong


def main() -> None:
    """Run the pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logs, lacking = [], []
    for pair in range(arguments.pairs):
        seconds = {}
        for is_away in (pair % 2 == 0, pair % 2 == 1):
            with tempfile.TemporaryDirectory() as folder:
                seconds[is_away], away, wrong = run_search(Path(folder), is_away, seed=pair)
            lacking += wrong
            print(
                f"pair {pair}: {seconds[is_away]:6.1f} s with a server that is away for {away:.0%}", *wrong, flush=True
            )
        logs.append(math.log(seconds[True] / seconds[False]))
    mean = sum(logs) / len(logs)
    half = stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs) if len(logs) > 1 else math.inf
    low, high = math.exp(mean - half), math.exp(mean + half)
    print(f"ratio {math.exp(mean):.3f} ({low:.3f} to {high:.3f}, 95 % interval of {len(logs)} pairs)")
    sys.exit(1 if lacking else 0)


if __name__ == "__main__":
    main()
