"""Reruns: recipes of a search trained again with other seeds, in a record of their own beside the search's.

A confirmation trains the finalists as the search did, an evaluation trains the winner on the validation images too. The
record is named as no search can be, `resnet9/confirm-1`, so its files lie in the search's folder. It resumes as a
search does. Its trials sample two values, `trial` and `seed`: whose recipe, and with which seed.
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
from cifar_tune.trials.reading import derived_names, read_attributes, read_trials_of
from cifar_tune.trials.trial import RERUN_OF, SEED, Trial

Kind = Literal["confirm", "evaluate"]


@dataclass(frozen=True)
class Design:
    """What is run again: the baseline's and the finalists' recipes by trial number, each with all of the seeds.

    `top` is how many finalists were asked for; there may be fewer. `watched` is what each trial's own validation said
    after each of its epochs, (loss, accuracy), for reruns that have none.
    """

    baseline: int
    top: int
    seeds: tuple[int, ...]
    recipes: Mapping[int, Recipe]
    watched: Mapping[int, Sequence[tuple[float, float]]] = field(default_factory=dict)

    @property
    def finalists(self) -> list[int]:
        """Best first."""
        return [number for number in self.recipes if number != self.baseline]

    def runs(self) -> Iterator[dict[str, int]]:
        """The baseline's first, as in a search."""
        for number, seed in product([self.baseline, *self.finalists], self.seeds):
            yield {RERUN_OF: number, SEED: seed}

    @property
    def num_runs(self) -> int:
        """All of them."""
        return len(self.seeds) * len(self.recipes)

    def is_complete(self, runs: Sequence[Trial]) -> bool:
        """Whether all of them are over."""
        return sum(run.is_over for run in runs) == self.num_runs

    def dumps(self) -> str:
        """As JSON."""
        recipes = {number: recipe.model_dump(mode="json") for number, recipe in self.recipes.items()}
        return json.dumps({**vars(self), "recipes": recipes})

    @classmethod
    def loads(cls, text: str) -> "Design":
        """What `dumps` wrote."""
        found = json.loads(text)
        recipes = {int(number): Recipe.model_validate(recipe) for number, recipe in found["recipes"].items()}
        watched = {int(number): [(a, b) for a, b in epochs] for number, epochs in found.get("watched", {}).items()}
        return cls(found["baseline"], found["top"], tuple(found["seeds"]), recipes, watched)


@dataclass(frozen=True)
class Reruns(Space):
    """The runs of a design, as a space that has nothing else."""

    design: Design

    def first_params(self) -> list[dict[str, Any]]:
        """Every run."""
        return list(self.design.runs())

    def draw(self, num_trials: int = 0) -> list[Draw]:
        """None: there are no others."""
        return []

    def watched(self, params: Mapping[str, Any]) -> Sequence[tuple[float, float]] | None:
        """What the trial that is run again saw."""
        return self.design.watched.get(params[RERUN_OF])

    @property
    def description(self) -> str:
        """Whose trials, with which seeds."""
        seeds = ", ".join(map(str, self.design.seeds))
        finalists = ", ".join(map(str, self.design.finalists))
        trials = "Trial" if len(self.design.finalists) == 1 else "Trials"
        return f"{trials} {finalists} and the baseline, trial {self.design.baseline}, again with the seeds {seeds}."


def open_reruns(store: Store, search: str, kind: Kind, count: int, design: Design) -> Record:
    """The record of the search's `count`-th reruns of a kind, begun with the same data and weights as the search."""
    name = runs_name(search, kind, count)
    # What stands there stays as it is, though this version would write it otherwise.
    known = name in derived_names(store, search) and read_attributes(store, name).get("identity")
    text = known["space"] if known else design.dumps()
    record = open_record(store, name, _as_space(design, text, store.space(search)), seed=0)
    inputs = read_attributes(store, search)
    used = {recipe.model.weights for recipe in design.recipes.values()}
    weights = {name: digest for name, digest in inputs.get("weights", {}).items() if name in used}
    record.check_unchanged("data", inputs["data"])
    record.check_unchanged("weights", weights)
    return record


def unfinished_or_last(store: Store, search: str, kind: Kind, *, again: bool) -> int | None:
    """The count of the reruns to go on with or to show; None where new ones are to begin."""
    count = count_reruns(store, search, kind)
    if count == 0:
        return None
    design, runs = read_design(store, search, kind, count), read_runs(store, search, kind, count)
    return None if again and design.is_complete(runs) else count


def read_design(store: Store, search: str, kind: Kind, count: int) -> Design:
    """Of the search's `count`-th reruns of a kind."""
    return Design.loads(read_attributes(store, runs_name(search, kind, count))["identity"]["space"])


def read_runs(store: Store, search: str, kind: Kind, count: int) -> list[Trial]:
    """The runs of the search's `count`-th reruns of a kind that were started."""
    return read_trials_of(store, runs_name(search, kind, count))


def runs_of(runs: Sequence[Trial], number: int) -> list[Trial]:
    """Those of a trial's recipe, by seed, so that two recipes' runs are paired."""
    return sorted((run for run in runs if run.params[RERUN_OF] == number), key=lambda run: int(run.params[SEED]))


def count_reruns(store: Store, search: str, kind: Kind) -> int:
    """How often reruns of the kind were begun; a record that was cut off before it said of what is made anew."""
    names = [name for name in derived_names(store, search) if name.startswith(f"{search}/{kind}-")]
    return sum("identity" in read_attributes(store, name) for name in names)


def runs_name(search: str, kind: Kind, count: int) -> str:
    """What the record, its folder and its lock are called."""
    return f"{search}/{kind}-{count}"


def _as_space(design: Design, text: str, path: Path) -> Reruns:
    recipes = design.recipes

    def rerun(trial: optuna.Trial) -> Recipe:
        number = trial.suggest_categorical(RERUN_OF, list(recipes))
        return recipes[number].model_copy(update={"seed": trial.suggest_categorical(SEED, design.seeds)})

    baselines = tuple(recipes[design.baseline].model_copy(update={"seed": seed}) for seed in design.seeds)
    search = Search(num_trials=design.num_runs, sampler="random", scheduler=NoStopping())
    return Reruns(path, text, baselines, search, {}, {}, rerun, design)


def fresh_seeds(store: Store, search: str, trials: Sequence[Trial], number: int) -> tuple[int, ...]:
    """So many seeds that nothing of the search was trained with, always the same."""
    used = [trial.recipe.seed for trial in trials]
    for kind in get_args(Kind):
        for count in range(1, count_reruns(store, search, kind) + 1):
            used += read_design(store, search, kind, count).seeds
    first = 1 + max(used)
    return tuple(range(first, first + number))
