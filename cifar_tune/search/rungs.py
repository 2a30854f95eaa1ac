"""Rungs: the points of a training at which trials are compared, and which trials are compared there."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from cifar_tune.recipe.options import part_of
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.trials.trial import Trial


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


class Standings:
    """The scores at one rung by trial number, kept in order, so that a comparison costs the same after many trials."""

    def __init__(self, scores: Mapping[int, float] | None = None) -> None:
        self.by_number: dict[int, float] = {}
        self._scores: list[float] = []  # rising
        self._numbers: list[int] = []  # rising
        for number, score in (scores or {}).items():
            self.add(number, score)

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, score: float) -> None:
        """Add a trial's score, or put another one in its place."""
        if number in self.by_number:
            self._scores.remove(self.by_number[number])
        else:
            insort(self._numbers, number)
        self.by_number[number] = score
        insort(self._scores, score)

    def num_above(self, score: float) -> int:
        """The number of trials with a higher score."""
        return len(self._scores) - bisect_right(self._scores, score)

    def num_ahead(self, number: int) -> int:
        """The number of trials ahead of one: with a higher score, or with the same and an earlier number."""
        score = self.by_number[number]
        above, not_below = self.num_above(score), len(self) - bisect_left(self._scores, score)
        if not_below == above + 1:  # no other has the same
            return above
        return above + sum(each == score and other < number for other, each in self.by_number.items())

    def latest(self) -> Iterator[int]:
        """The numbers of the trials, the latest first."""
        return reversed(self._numbers)

    def copy(self) -> "Standings":
        """The scores as they are now, which another thread can read."""
        copied = Standings()
        copied.by_number, copied._scores = dict(self.by_number), list(self._scores)
        copied._numbers = list(self._numbers)
        return copied


class Waiting(NamedTuple):
    """A paused trial, the rung at which it waits, and the scores to compare with there, its own among them.

    `baselines` are the numbers of those that are never paused.
    """

    trial: Trial
    rung: Rung
    rivals: Standings
    baselines: Collection[int] = ()

    @property
    def share_ahead(self) -> float:
        """The share of the trials at the rung that are ahead of it."""
        return self.rivals.num_ahead(self.trial.number) / len(self.rivals)

    @property
    def is_in_better_half(self) -> bool:
        """Whether it is in the better half of the trials at the rung without the baselines; the best one always is."""
        own, scores = self.rivals.by_number[self.trial.number], self.rivals.by_number
        baselines = [scores[number] for number in self.baselines if number in scores]
        num_ahead = self.rivals.num_ahead(self.trial.number) - sum(score >= own for score in baselines)
        return num_ahead < max(1, (len(self.rivals) - len(baselines)) / 2)


def group_of(recipe: Recipe) -> Group:
    """The recipe's group: half annealed, a run is ahead of one at a constant rate, but not at the end."""
    return Group(recipe.schedule.rungs, len(recipe.phases()))


def rung_epochs(recipe: Recipe, fractions: Sequence[float], *, of_whole: bool = False) -> dict[int, float]:
    """The epochs after which a run is judged, each with its rung; where two rungs share an epoch, the later one.

    The last epoch is no rung, because a trial that reaches it is complete.
    """
    fractions = sorted(fractions)
    epochs = dict(zip(epochs_at(recipe, fractions, of_whole=of_whole), fractions, strict=True))
    return {epoch: fraction for epoch, fraction in epochs.items() if epoch < recipe.epochs}


def epochs_at(recipe: Recipe, fractions: Sequence[float], *, of_whole: bool = False) -> list[int]:
    """The epoch at which a run reaches each fraction of its last phase, which has a schedule of its own, or `of_whole`.

    In its last phase a run reaches none before its scores can be compared with others.
    """
    if of_whole:
        return [max(1, part_of(fraction, recipe.epochs)) for fraction in fractions]
    return [min(max(recipe.epoch_at(fraction), recipe.first_rung), recipe.epochs) for fraction in fractions]
