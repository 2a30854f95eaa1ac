"""Limits that a recipe keeps or breaks before it is trained: those on its network's size.

Nothing here imports torch before a network has to be counted; where there is no such limit, none is.
"""

import math
import random
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from optuna.trial import BaseTrial

from cifar_tune.data.images import NUM_CLASSES
from cifar_tune.errors import UserError
from cifar_tune.recipe.models import Model
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.stand_ins import RandomTrial
from cifar_tune.trials.goal import CostName, Limits

if TYPE_CHECKING:
    from cifar_tune.search.space import Space

MAX_DRAWS = 1000  # in vain, before a space is given up


def excess(recipe: Recipe, limits: Limits) -> dict[CostName, float]:
    """By what share of the limit the network lies above each; below it where that is negative."""
    return {name: _count(recipe, name) / limit - 1 for name, limit in limits.of_network.items()}


def is_within(recipe: Recipe, limits: Limits) -> bool:
    """Whether the recipe may be trained."""
    return all(share <= 0 for share in excess(recipe, limits).values())


def draw_within(space: "Space", rng: random.Random) -> RandomTrial:
    """A random trial whose recipe may be trained; a UserError where none is found."""
    for _ in range(MAX_DRAWS):
        trial = RandomTrial(rng)
        if is_within(space.sample(cast(BaseTrial, trial)), space.search.limits):
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
    """Where the weights come from does not matter to it."""
    return _count_network(recipe.model.model_copy(update={"weights": "none"}), NUM_CLASSES[recipe.dataset], name)


@lru_cache(maxsize=10_000)
def _count_network(model: Model, num_classes: int, name: CostName) -> float:
    import torch

    from cifar_tune.training.network_size import count_macs, count_parameters

    try:
        with torch.device("meta"):
            network = model.build(num_classes)
        return count_parameters(network) if name == "num_parameters" else count_macs(network)
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        return math.inf  # more bytes than 64 bits count
