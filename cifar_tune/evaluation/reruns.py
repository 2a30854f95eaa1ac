"""Reruns: recipes of a search trained again with fresh seeds, in a record of their own.

A confirmation trains the finalists as the search did; an evaluation trains the winner on the validation images too. The
record has a name that no search can have, `resnet9/confirm-1`, so its files lie in the search's folder. It resumes like
a search. Its trials sample two values: `trial`, the number of the trial whose recipe is repeated, and `seed`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import optuna

from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.identity import open_record
from cifar_tune.search.record import Record
from cifar_tune.search.schedulers import NoStopping
from cifar_tune.search.search import Search
from cifar_tune.search.space import Draw, Space
from cifar_tune.store import Store
from cifar_tune.training.scores import ScoreName
from cifar_tune.trials.reading import derived_names, read_attributes, read_trials_of
from cifar_tune.trials.trial import RERUN_OF, SEED, Trial

Kind = Literal["confirm", "evaluate"]


@dataclass(frozen=True)
class Design:
    """The runs to make: the recipes of the baseline and of the finalists by trial number, each with all seeds.

    `top` is the number of finalists that was asked for; there may be fewer. `score` is the search's. `watched` has each
    trial's own validation by epoch, as the training loop computes it, for reruns that train on the validation images
    and so have no validation.
    """

    baseline: int
    top: int
    seeds: tuple[int, ...]
    recipes: Mapping[int, Recipe]
    watched: Mapping[int, Sequence[Sequence[float]]] = field(default_factory=dict)
    score: ScoreName = "accuracy"

    @property
    def finalists(self) -> list[int]:
        """The numbers of the finalists, best first."""
        return [number for number in self.recipes if number != self.baseline]

    def runs(self) -> Iterator[dict[str, int]]:
        """The sampled values of each run, the baseline's runs first, as in a search."""
        for number, seed in product([self.baseline, *self.finalists], self.seeds):
            yield {RERUN_OF: number, SEED: seed}

    @property
    def num_runs(self) -> int:
        """The number of runs."""
        return len(self.seeds) * len(self.recipes)

    def is_complete(self, runs: Sequence[Trial]) -> bool:
        """Whether all runs are over."""
        return sum(run.is_over for run in runs) == self.num_runs

    def dumps(self) -> str:
        """The design as JSON, which is stored as the reruns' space."""
        recipes = {number: recipe.model_dump(mode="json") for number, recipe in self.recipes.items()}
        return json.dumps({**vars(self), "recipes": recipes})

    @classmethod
    def loads(cls, text: str) -> "Design":
        """The design that `dumps` wrote."""
        document = json.loads(text)
        recipes = {int(number): Recipe.model_validate(recipe) for number, recipe in document["recipes"].items()}
        watched = {int(number): list(map(tuple, each)) for number, each in document.get("watched", {}).items()}
        score = document.get("score", "accuracy")  # older designs have none
        return cls(document["baseline"], document["top"], tuple(document["seeds"]), recipes, watched, score)


@dataclass(frozen=True)
class Reruns(Space):
    """A space whose only trials are the runs of a design."""

    design: Design

    def first_params(self) -> list[dict[str, Any]]:
        """The values of every run."""
        return list(self.design.runs())

    def draw(self, num_trials: int = 0) -> list[Draw]:
        """No draws: all trials are given by the design."""
        return []

    def watched(self, params: Mapping[str, Any]) -> Sequence[Sequence[float]] | None:
        """The validation of the trial that a run repeats."""
        return self.design.watched.get(params[RERUN_OF])

    @property
    def description(self) -> str:
        """Which trials are trained again and with which seeds; MLflow shows it."""
        seeds = ", ".join(map(str, self.design.seeds))
        trials = [
            *(f"trial {number}" for number in self.design.finalists),
            f"the baseline (trial {self.design.baseline})",
        ]
        return f"Trained again with seeds {seeds}: {', '.join(trials)}."


def open_reruns(store: Store, search: str, kind: Kind, count: int, design: Design) -> Record:
    """The record of the search's `count`-th reruns of a kind, which use the same data and weights as the search."""
    name = runs_name(search, kind, count)
    # A stored design keeps its text, even if this version would write it differently: the record checks its identity.
    identity = name in derived_names(store, search) and read_attributes(store, name).get("identity")
    text = identity["space"] if identity else design.dumps()
    record = open_record(store, name, _as_space(design, text, store.space(search)), seed=0)
    attributes = read_attributes(store, search)
    used = {recipe.model.weights for recipe in design.recipes.values()}
    weights = {name: digest for name, digest in attributes.get("weights", {}).items() if name in used}
    record.check_unchanged("data", attributes["data"])
    record.check_unchanged("weights", weights)
    return record


def unfinished_or_last(store: Store, search: str, kind: Kind, *, again: bool) -> int | None:
    """The count of the reruns to continue or to show; None if new ones are to start."""
    count = count_reruns(store, search, kind)
    if count == 0:
        return None
    design, runs = read_design(store, search, kind, count), read_runs(store, search, kind, count)
    return None if again and design.is_complete(runs) else count


def read_design(store: Store, search: str, kind: Kind, count: int) -> Design:
    """The design of the search's `count`-th reruns of a kind."""
    return Design.loads(read_attributes(store, runs_name(search, kind, count))["identity"]["space"])


def read_runs(store: Store, search: str, kind: Kind, count: int) -> list[Trial]:
    """The started runs of the search's `count`-th reruns of a kind."""
    return read_trials_of(store, runs_name(search, kind, count))


def runs_of(runs: Sequence[Trial], number: int) -> list[Trial]:
    """The runs of one trial's recipe by seed, so that the runs of two recipes can be paired."""
    return sorted((run for run in runs if run.params[RERUN_OF] == number), key=lambda run: int(run.params[SEED]))


def count_reruns(store: Store, search: str, kind: Kind) -> int:
    """The number of reruns of a kind that were started; one interrupted before its design was stored is not counted."""
    names = [name for name in derived_names(store, search) if name.startswith(f"{search}/{kind}-")]
    return sum("identity" in read_attributes(store, name) for name in names)


def runs_name(search: str, kind: Kind, count: int) -> str:
    """The name of the reruns' record, folder and lock."""
    return f"{search}/{kind}-{count}"


def _as_space(design: Design, text: str, path: Path) -> Reruns:
    recipes = design.recipes

    def rerun(trial: optuna.Trial) -> Recipe:
        number = trial.suggest_categorical(RERUN_OF, list(recipes))
        return recipes[number].model_copy(update={"seed": trial.suggest_categorical(SEED, design.seeds)})

    baselines = tuple(recipes[design.baseline].model_copy(update={"seed": seed}) for seed in design.seeds)
    search = Search(score=design.score, num_trials=design.num_runs, sampler="random", scheduler=NoStopping())
    return Reruns(path, text, baselines, search, {}, {}, rerun, design)


def fresh_seeds(store: Store, search: str, trials: Sequence[Trial], number: int) -> tuple[int, ...]:
    """The next `number` seeds with which nothing of the search was trained."""
    used = [trial.recipe.seed for trial in trials]
    for kind in get_args(Kind):
        for count in range(1, count_reruns(store, search, kind) + 1):
            used += read_design(store, search, kind, count).seeds
    first = 1 + max(used)
    return tuple(range(first, first + number))
