"""For tests of a search's record: a space written to a file, and trials with hand-made epochs."""

import math
from collections.abc import Sequence
from pathlib import Path

from cifar_tune.search.driver import Driver
from cifar_tune.search.record import Record
from cifar_tune.search.space import Space, load_space
from cifar_tune.trials.trial import Trial

RISING = (0.2, 0.3, 0.4, 0.5)


def written(folder: Path, text: str, settings: dict[str, str] | None = None) -> Space:
    path = folder / "tiny.py"
    path.write_text(text, encoding="utf-8")
    return load_space(path, settings)


def metrics(epoch: int, val_accuracy: float) -> dict[str, float]:
    return {
        "epoch": epoch,
        "progress": epoch / 4,
        "train_loss": 2.0 / epoch,
        "train_accuracy": val_accuracy / 2,
        "val_loss": 1.5 / epoch,
        "val_accuracy": val_accuracy,
        "lr": 0.1,
        "seconds": 0.5,
        "images_per_second": 100.0,
    }


def train(driver: Driver, accuracies: Sequence[float]) -> int:
    """Start the next trial and train these epochs, until the driver ends it; its number."""
    trial = driver.next_trial()
    for epoch, accuracy in enumerate(accuracies, start=trial.epochs + 1):
        if not driver.add_epoch(trial.number, metrics(epoch, accuracy), {"num_parameters": 7}):
            break
    return trial.number


def train_by_rate(driver: Driver, best: float) -> float:
    """Train the next trial, whose score is higher the nearer its learning rate is to `best`; that learning rate."""
    trial = driver.next_trial()
    rate = trial.recipe.optimizer.lr
    for epoch in range(1, trial.recipe.epochs + 1):
        if not driver.add_epoch(trial.number, metrics(epoch, 0.9 - abs(math.log10(rate / best)) / 10), {}):
            break
    return rate


def driver_of(record: Record, num_trials: int = 20) -> Driver:
    return Driver(record, num_trials, [])


def accuracies(trial: Trial) -> list[float]:
    return [epoch["val_accuracy"] for epoch in trial.curve]
