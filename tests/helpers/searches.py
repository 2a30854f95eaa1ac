"""For tests of samplers and forecasts: spaces, and whole searches of them that score by a formula."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from cifar_tune.search.identity import open_record_in
from cifar_tune.search.record import Record
from cifar_tune.search.space import Space, load_space

NUMBERS = """
from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 1e-3},
    schedule={"name": "constant"}, epochs=16, batch_size=100,
)


def space(trial: Trial) -> Recipe:
    return BASELINE.replace({
        "optimizer/lr": trial.suggest_float("optimizer/lr", 1e-5, 1e-1, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.5),
    })


SEARCH = Search(num_trials=30, sampler="SAMPLER")
"""
CONDITIONAL = NUMBERS.replace(
    '"label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.5),',
    '**({"label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.5)}'
    ' if trial.suggest_categorical("augment/flip", [True, False]) else {"augment/flip": False}),',
)


def written(folder: Path, text: str, sampler: str) -> Space:
    path = folder / "numbers.py"
    path.write_text(text.replace("SAMPLER", sampler), encoding="utf-8")
    return load_space(path)


def opened(space: Space, seed: int = 0) -> Record:
    return open_record_in(optuna.storages.InMemoryStorage(), "numbers", space, seed)


def score(params: Mapping[str, Any]) -> float:
    """The final score: at best 0.9, at a learning rate of 1e-2 without smoothing; at least 0.3 everywhere."""
    return float(0.9 - 0.06 * (np.log10(params["optimizer/lr"]) + 2) ** 2 - 0.1 * params.get("label_smoothing", 0.1))


def search(record: Record, num_trials: int) -> list[float]:
    """Train each trial to its end, with a curve that shows the score early; the scores."""
    scores = []
    for _ in range(num_trials):
        trial = record.start_trial()
        scores.append(score(trial.params))
        for epoch in range(1, 17):
            metrics = {"epoch": epoch, "val_accuracy": scores[-1] * (0.5 + epoch / 32), "seconds": 1.0}
            record.add_epoch(trial.number, metrics)
        record.finish_trial(trial.number, "completed")
    return scores
