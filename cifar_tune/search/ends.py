"""Recipes of a space before anything runs: at the ends of every range."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.space import Space


@dataclass(frozen=True)
class End:
    """A recipe with one sampled name at an end of its range."""

    name: str
    value: Any
    recipe: Recipe

    def __str__(self) -> str:
        return told(self.name, self.value)


def ends(space: Space) -> Iterator[End]:
    """Every sampled name at its low and its high end, or at each of its choices.

    The other names are as in the first baseline that has the name, or in a drawn trial that has it; what only the new
    value brings with it is drawn. A UserError names the value where the space cannot make a recipe of it.
    """
    bases = [space.baseline_trial(baseline).params for baseline in space.baselines]
    bases += [dict(each.params) for each in space.draw()]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for name, distribution in space.ranges().items():
        base = next(params for params in bases if name in params)
        for value in _ends_of(distribution):
            study.enqueue_trial({**base, name: value})
            try:
                yield End(name, value, space.sample(study.ask()))
            except UserError as error:
                raise UserError(f"{told(name, value)} cannot be tried: {error}") from None


def _ends_of(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return list(dict.fromkeys([distribution.low, distribution.high]))


def told(name: str, value: object) -> str:
    """As `--set` would take it: `optimizer/lr=0.001`."""
    return f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
