"""Recipes of a space before anything runs: at the ends of every range, and drawn at random."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cifar_tune.errors import UserError
from cifar_tune.recipe import Recipe
from cifar_tune.search.space import NUM_RANGE_DRAWS, Space


@dataclass(frozen=True)
class Draw:
    """What a trial may sample, and its recipe."""

    params: Mapping[str, Any]
    recipe: Recipe


@dataclass(frozen=True)
class End:
    """A recipe with one sampled name at an end of its range."""

    name: str
    value: Any
    recipe: Recipe

    def __str__(self) -> str:
        return told(self.name, self.value)


def draw(space: Space, num_draws: int = NUM_RANGE_DRAWS) -> list[Draw]:
    """Random trials; the same ones each time."""
    study = _study()
    trials = [study.ask() for _ in range(num_draws)]
    recipes = [space.sample(trial) for trial in trials]  # which asks the trials for their params
    return [Draw(trial.params, recipe) for trial, recipe in zip(trials, recipes, strict=True)]


def ends(space: Space) -> Iterator[End]:
    """Every sampled name at its low and its high end, or at each of its choices.

    The other names are as in the first baseline that has the name, or in a drawn trial that has it; what only the new
    value brings with it is drawn. A UserError names the value where the space cannot make a recipe of it.
    """
    bases = [space.baseline_trial(baseline).params for baseline in space.baselines]
    bases += [dict(each.params) for each in draw(space)]
    study = _study()
    for name, distribution in space.ranges().items():
        base = next(params for params in bases if name in params)
        for value in _ends_of(distribution):
            study.enqueue_trial({**base, name: value})
            try:
                yield End(name, value, space.sample(study.ask()))
            except UserError as error:
                raise UserError(f"{told(name, value)} cannot be tried: {error}") from None


def _study() -> optuna.Study:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def _ends_of(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return list(dict.fromkeys([distribution.low, distribution.high]))


def told(name: str, value: object) -> str:
    """As `--set` would take it: `optimizer/lr=0.001`."""
    return f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
