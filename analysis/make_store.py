"""Makes a store of invented results, as large as you like, to measure what a report of it costs.

    uv run python analysis/make_store.py STORE --trials 10000 --epochs 10

The record is real, and so is the search space that its recipes are drawn from. The results are invented: the nearer the
learning rate is to a good one, the better the score; seven in ten trials are stopped early, a few break down.
"""

import argparse
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, create_trial

from cifar_tune.search.identity import open_record
from cifar_tune.search.space import Draw, load_space
from cifar_tune.store import open_store
from cifar_tune.trials.facts import CHECKPOINT, DATA, QUEUED, RUNGS, STARTUP, STOPPED_AT, TAKEN_AT, WORKER
from cifar_tune.trials.trial import OPTUNA_STATES, State

SPACE = Path(__file__).parents[1] / "search_spaces" / "mini_resnet.py"
START = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = {QUEUED: 0.5, STARTUP: 1.0, DATA: 0.1, CHECKPOINT: 0.2}  # seconds of a trial besides its epochs
NUM_WORKERS = 4
SECONDS_PER_EPOCH = 2.0
RUNG = 0.25
STATES: dict[State, float] = {"pruned": 0.7, "completed": 0.25, "diverged": 0.03, "failed": 0.02}


def made_up(drawn: Draw, number: int, epochs: int, rng: random.Random, state: State) -> FrozenTrial:
    """A trial that ended in the state. The workers take turns, and after every round they wait for each other."""
    rung = max(1, int(RUNG * epochs))
    num_epochs = epochs if state == "completed" else rung
    best = 0.9 - 0.1 * abs(math.log10(drawn.recipe.optimizer.lr) + 2.5) - rng.uniform(0, 0.05)
    curve = [_epoch(epoch, epochs, best + rng.gauss(0, 0.01)) for epoch in range(1, num_epochs + 1)]
    curve = [] if state in ("diverged", "failed") else curve
    start = START + timedelta(seconds=(SECONDS_PER_EPOCH * epochs + sum(TIMES.values())) * (number // NUM_WORKERS))
    facts: dict[str, Any] = {
        "num_threads": 1,
        "device": "cpu",
        "num_parameters": rng.randrange(200_000, 300_000),
        "num_macs": 31_000_000,
        **({STOPPED_AT: RUNG} if state == "pruned" else {}),
        **({RUNGS: {str(rung): RUNG}} if state == "completed" else {}),
        **TIMES,
        TAKEN_AT: start.timestamp() + TIMES[QUEUED],
        WORKER: f"host:{number % NUM_WORKERS}",
    }
    attributes = {
        "recipe": drawn.recipe.model_dump(mode="json"),
        "state": state,
        "facts": facts,
        "curve": curve,
        "mlflow_run_id": f"{rng.getrandbits(128):032x}",
        **({"error": "RuntimeError: made up"} if state == "failed" else {}),
    }
    last = curve[-1]["val_accuracy"] if curve else 0.1
    trial = create_trial(
        state=OPTUNA_STATES[state],
        value=last if state in ("completed", "diverged") else None,
        params=dict(drawn.params),
        distributions=dict(drawn.distributions),
        user_attrs=attributes,
        intermediate_values={int(epoch["epoch"]): epoch["val_accuracy"] for epoch in curve},
    )
    trial.datetime_start = start.replace(tzinfo=None)  # Optuna's times have no zone
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=SECONDS_PER_EPOCH * max(1, num_epochs))
    return trial


def _epoch(epoch: int, epochs: int, best: float) -> dict[str, float]:
    accuracy = best * (1 - math.exp(-3 * epoch / epochs))
    return {
        "epoch": epoch,
        "progress": epoch / epochs,
        "train_loss": 2.3 * (1 - accuracy),
        "train_accuracy": accuracy,
        "val_loss": 2.4 * (1 - accuracy),
        "val_accuracy": accuracy,
        "lr": 0.001,
        "seconds": SECONDS_PER_EPOCH,
        "images_per_second": 1000.0,
    }


def make_store(folder: Path, num_trials: int, epochs: int, name: str = "made-up", seed: int = 0) -> None:
    """Add a search of `num_trials` trials, the baseline among them, to the store in the folder."""
    rng, space = random.Random(seed), load_space(SPACE, {"epochs": str(epochs)})
    store = open_store(folder)
    store.save_space(name, space.source, space.helpers)
    record = open_record(store, name, space, seed)
    baseline = record.start_trial()
    for epoch in range(1, epochs + 1):
        record.add_epoch(baseline.number, _epoch(epoch, epochs, 0.8))
    record.finish_trial(baseline.number, "completed")
    states = rng.choices(list(STATES), list(STATES.values()), k=num_trials - 1)
    record.add_finished(
        made_up(drawn, number, epochs, rng, state)
        for number, (drawn, state) in enumerate(zip(space.draw(num_trials - 1), states, strict=True), start=1)
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--name", default="made-up")
    arguments = parser.parse_args()
    make_store(arguments.store, arguments.trials, arguments.epochs, arguments.name)


if __name__ == "__main__":
    main()
