"""Rungs: the points of a learning-rate schedule at which trials are compared, and which trials are compared there."""

from collections.abc import Sequence
from typing import NamedTuple

from cifar_tune.recipe.recipe import Recipe


class Group(NamedTuple):
    """What trials that are compared have in common: the rungs of their schedule, and the number of phases."""

    rungs: tuple[float, ...]
    num_phases: int


ALL_TRIALS = Group((), 0)  # of a scheduler that compares trials whatever their schedules are


class Rung(NamedTuple):
    """A fraction of the schedule, and the group and the bracket of trials that are compared there."""

    group: Group
    bracket: int
    fraction: float


def group_of(recipe: Recipe) -> Group:
    """The recipe's group: half annealed, a run is ahead of one at a constant rate, but not at the end."""
    return Group(recipe.schedule.rungs, len(recipe.phases()))


def rung_epochs(recipe: Recipe, fractions: Sequence[float]) -> dict[int, float]:
    """The epochs after which a run is judged, each with its rung; where two rungs share an epoch, the later one.

    Fractions refer to the last phase, which has a schedule of its own. The last epoch is no rung, because a trial that
    reaches it is complete.
    """
    fractions = sorted(fractions)
    epochs = dict(zip(epochs_at(recipe, fractions), fractions, strict=True))
    return {epoch: fraction for epoch, fraction in epochs.items() if epoch < recipe.epochs}


def epochs_at(recipe: Recipe, fractions: Sequence[float]) -> list[int]:
    """The epoch at which a run reaches each fraction, but none before its scores can be compared with others."""
    return [min(max(recipe.epoch_at(fraction), recipe.first_rung), recipe.epochs) for fraction in fractions]
