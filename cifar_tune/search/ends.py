"""Recipes at the ends of every range of a space: a plan tries them before anything runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import optuna

from cifar_tune.errors import InvalidRecipeError, UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.ranges import ends_of
from cifar_tune.search.space import Space
from cifar_tune.wording import format_setting


@dataclass(frozen=True)
class End:
    """A recipe with one sampled name at an end of its range."""

    name: str
    value: Any
    recipe: Recipe

    def __str__(self) -> str:
        return format_setting(self.name, self.value)


def ends(space: Space) -> Iterator[End]:
    """A recipe for both ends of every sampled name's range, or for each of its choices.

    Other names have the values of the first baseline that samples the name, or else of a drawn trial that does. Names
    that only the new value brings with it are drawn. An end that makes no recipe with the other values is left out. A
    UserError names a value that is wrong by itself.
    """
    bases = [space.baseline_trial(baseline).params for baseline in space.baselines]
    bases += [dict(draw.params) for draw in space.draw()]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for name, distribution in space.ranges().items():
        base = next(params for params in bases if name in params)
        for value in ends_of(distribution):
            study.enqueue_trial({**base, name: value})
            try:
                yield End(name, value, space.sample(study.ask()))
            except InvalidRecipeError:
                continue
            except UserError as error:
                raise UserError(f"{format_setting(name, value)} cannot be tried: {error}") from None
