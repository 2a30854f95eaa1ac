"""Trials made by hand, as a record would hold them, and what MLflow asks of a record."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cifar_tune.recipe.recipe import Recipe
from cifar_tune.trials.trial import State, Trial

RECIPE = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet"},
    optimizer={"name": "sgd", "lr": 0.1},
    schedule={"name": "constant"},
    epochs=4,
    batch_size=32,
    train_images=64,
)


def epoch(number: int, accuracy: float) -> dict[str, float]:
    return {
        "epoch": number,
        "progress": number / 4,
        "train_loss": 2.0,
        "val_loss": 1.5,
        "val_accuracy": accuracy,
        "seconds": 0.5,
    }


def trial(
    number: int,
    accuracy: float | None = 0.5,
    state: State = "completed",
    *,
    search: str = "tiny",
    num_epochs: int = 4,
    recipe: Recipe = RECIPE,
    params: Mapping[str, Any] | None = None,
    is_baseline: bool | None = None,
    facts: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    error: str | None = None,
) -> Trial:
    """A trial whose epochs took half a second each; the accuracy is its last one's, and None means no epoch."""
    curve = [] if accuracy is None else [epoch(i, accuracy) for i in range(1, num_epochs + 1)]
    baseline = number == 0 if is_baseline is None else is_baseline
    return Trial(search, number, state, recipe, params or {}, baseline, curve, facts or {}, error, run_id)


class RunIds:
    """The record's memory of which run shows which trial."""

    def __init__(self, search_id: str) -> None:
        self.id = search_id
        self.known: dict[int, str] = {}

    def set_mlflow_run(self, number: int, run_id: str) -> None:
        assert number not in self.known, "a trial has one run"
        self.known[number] = run_id

    def note(self, trial: Trial) -> Trial:
        """The trial as the record would hand it out."""
        return replace(trial, mlflow_run_id=self.known.get(trial.number))
