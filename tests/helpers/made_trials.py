"""Trials without any training: made by hand or made up at random; and what MLflow asks of a record."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from make_store import made_up
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.space import Draw, load_space
from cifar_tune.trials.facts import NUM_VAL_IMAGES, QUEUED, STARTUP, TAKEN_AT, WORKER
from cifar_tune.trials.goal import ACCURACY_ALONE, Goal
from cifar_tune.trials.trial import State, Trial, as_trial

SPACES = Path(__file__).parents[2] / "search_spaces"

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


def conditional_trials() -> list[Trial]:
    """A search whose trials sampled different values: one branch of its space has values that the other lacks."""
    step = RECIPE.replace({"schedule/name": "step", "schedule/every": 3})
    adam = RECIPE.replace({"optimizer/name": "adam", "optimizer/lr": 0.001})
    return [
        trial(0, 0.5, params={"optimizer/name": "sgd", "optimizer/sgd/lr": 0.1, "schedule/name": "constant"}),
        trial(
            1,
            0.6,
            recipe=step,
            params={"optimizer/name": "sgd", "optimizer/sgd/lr": 0.2, "schedule/step/every": 3, "augment/flip": True},
            facts={"num_parameters": 77_850},
            run_id="abc",
        ),
        trial(2, 0.4, recipe=adam, params={"optimizer/name": "adam", "optimizer/adam/lr": 0.001}),
    ]


def printed(parts: Sequence[Table | Text], width: int = 200) -> str:
    """What a terminal of that width shows."""
    console = Console(file=StringIO(), width=width)
    for part in parts:
        console.print(part, highlight=False)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def made_up_trials(states: Sequence[State], space: str = "mini_resnet", epochs: int = 10) -> list[Trial]:
    """The baseline, completed, and a random trial in each of the states, in a search that is called `made`."""
    loaded = load_space(SPACES / f"{space}.py", {"epochs": str(epochs)})
    first = loaded.baseline_trial(loaded.baselines[0])
    draws = [Draw(first.params, first.distributions, loaded.baselines[0]), *loaded.draw(len(states))]
    rng, trials = random.Random(0), []
    for number, (drawn, state) in enumerate(zip(draws, ["completed", *states], strict=True)):
        frozen = made_up(drawn, number, epochs, rng, state)
        frozen.number = number
        trials.append(as_trial("made", frozen, number == 0, ACCURACY_ALONE))
    return trials


def spanning_trials(*spans: tuple[str, float, float]) -> list[Trial]:
    """A trial for each (worker, start, seconds), all of it start-up."""
    (first,) = made_up_trials([])
    return [
        replace(first, number=i, curve=[], facts={WORKER: worker, TAKEN_AT: start, QUEUED: 0.0, STARTUP: seconds})
        for i, (worker, start, seconds) in enumerate(spans)
    ]


def by_macro_f1(number: int, accuracy: float, f1: float) -> Trial:
    """A completed trial of a search for the macro F1, whose standard error is 5 points."""
    whole = trial(number, accuracy, search="f1", facts={NUM_VAL_IMAGES: 100})
    curve = [{**each, "val_macro_f1": f1, "val_score_error": 0.05} for each in whole.curve]
    return replace(whole, curve=curve, goal=Goal(score="macro_f1"))


# Searches of every kind, by what is special about them.
SEARCHES: dict[str, list[Trial]] = {
    "no trials": [],
    "one trial": [trial(0)],
    "one that runs": [trial(0, None, "running")],
    "all completed": [trial(0, 0.5), trial(1, 0.6)],
    "all pruned": [trial(n, 0.2 + n / 100, "pruned", num_epochs=1) for n in range(3)],
    "all paused": [trial(n, 0.2 + n / 100, "paused", num_epochs=1) for n in range(3)],
    "all stopped early": [trial(n, 0.2 + n / 100, "stopped early", num_epochs=2) for n in range(3)],
    "all diverged": [trial(n, None, "diverged") for n in range(3)],
    "all failed": [trial(n, None, "failed", error="Traceback\nKeyError: 'x'") for n in range(3)],
    "all failed after an epoch": [trial(n, 0.3, "failed", num_epochs=1) for n in range(3)],
    "all interrupted": [trial(n, None, "interrupted") for n in range(3)],
    "conditional": conditional_trials(),
    "by macro F1": [by_macro_f1(n, 0.8, 0.5 + n / 10) for n in range(3)],
    "long names": [trial(0, 0.5, search="a" * 100, params={"optimizer/" + "x" * 80: 1.0})],
}


class RunIds:
    """Stands for a record where the MLflow run of each trial is remembered."""

    def __init__(self, search_id: str) -> None:
        self.id = search_id
        self.by_trial: dict[int, str] = {}

    def set_mlflow_run(self, number: int, run_id: str) -> None:
        assert self.by_trial.setdefault(number, run_id) == run_id, "a trial has one run"

    def note(self, trial: Trial) -> Trial:
        """The trial with its run, as the record would return it."""
        return replace(trial, mlflow_run_id=self.by_trial.get(trial.number))
