"""Limits on the size of a network, which a recipe keeps or exceeds before it is trained.

Torch is imported only when a network has to be counted, and none is where a search has no such limit.
"""

import math
import random
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from optuna.trial import BaseTrial

from cifar_tune.errors import InvalidRecipeError, UserError
from cifar_tune.recipe.models import Model
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.stand_ins import RandomTrial
from cifar_tune.trials.goal import CostName, Limits

if TYPE_CHECKING:
    from cifar_tune.search.space import Space

MAX_DRAWS = 1000  # random draws that are not wanted, before the search for one is given up


def excess(recipe: Recipe, limits: Limits) -> dict[CostName, float]:
    """The share by which the recipe's network exceeds each limit on its size; negative below the limit."""
    return {name: _count(recipe, name) / limit - 1 for name, limit in limits.of_network.items()}


def is_within(recipe: Recipe, limits: Limits) -> bool:
    """Whether the recipe's network keeps all limits on its size."""
    return all(share <= 0 for share in excess(recipe, limits).values())


def draw_where(
    space: "Space", rng: random.Random, is_wanted: Callable[[RandomTrial, Recipe], bool]
) -> RandomTrial | None:
    """A random trial that is wanted, by its values and its recipe; None where none is found."""
    for _ in range(MAX_DRAWS):
        trial = RandomTrial(rng)
        with suppress(InvalidRecipeError):
            if is_wanted(trial, space.sample(cast(BaseTrial, trial))):
                return trial
    return None


def draw_within(space: "Space", rng: random.Random) -> RandomTrial:
    """A random trial whose recipe is within the limits; a UserError where none is found."""
    trial = draw_where(space, rng, lambda _, recipe: is_within(recipe, space.search.limits))
    if trial is not None:
        return trial
    raise UserError(
        f"{space.path}: no recipe within the limits ({space.search.limits}) was found in {MAX_DRAWS:,} draws; "
        f"raise the limit, or narrow the space."
    )


def check_limits(space: "Space") -> None:
    """Raise a UserError where the space has no recipe within its limits."""
    if space.search.limits.of_network:
        draw_within(space, random.Random(0))


def _count(recipe: Recipe, name: CostName) -> float:
    """The recipe's cost of that name; the origin of its weights does not matter."""
    model = recipe.model.model_copy(update={"weights": "none"})
    return _count_network(model, recipe.num_outputs, recipe.image_size, name)


@lru_cache(maxsize=10_000)
def _count_network(model: Model, num_classes: int, image_size: int, name: CostName) -> float:
    import torch

    from cifar_tune.training.network_size import count_macs, count_parameters

    try:
        with torch.device("meta"):
            network = model.build(num_classes)
        return count_parameters(network) if name == "num_parameters" else count_macs(network, image_size)
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        return math.inf  # the number of bytes overflows 64 bits
