"""How trials, epochs and workers become hours, for `run --plan` and the live display, and how hours are told. No torch.

Seconds per epoch come from epochs that were trained: by the plan for its measurements, by the search itself for the
display. The scheduler says how many epochs a trial takes, until trials have ended and show it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from cifar_tune.recipe.recipe import Recipe

if TYPE_CHECKING:
    from cifar_tune.trials.trial import Trial

NUM_EXPECTED = 2  # what the scheduler expects weighs as much as so many trials that have ended


@dataclass(frozen=True)
class Kind:
    """What decides the seconds of an epoch, nearly: the network, what of it is trained, the batch to a power of two."""

    network: str
    trained: str
    batch: int

    def wider(self) -> tuple["Kind | tuple[str, ...]", ...]:
        """The kind and the groups around it, the nearest first."""
        return self, (self.network, self.trained), (self.network.split()[0],), ()


def kind_of(recipe: Recipe) -> Kind:
    """The kind of trials that the recipe's is."""
    fields = type(recipe.model).model_fields
    options = {name: value for name, value in recipe.model.backbone_options().items() if value != fields[name].default}
    network = [recipe.model.name, *(f"{name}={value}" for name, value in options.items())]
    trained = {(True,): "head", (True, False): "head, then all"}.get(
        tuple(phase.frozen for phase in recipe.phases()), "all"
    )
    kept = " (on kept features)" if recipe.has_fixed_features else ""
    return Kind(" ".join(network), trained + kept, 2 ** (recipe.batch_size.bit_length() - 1))


class Costs:
    """Learns what trials cost from those that were seen; `expected_epochs` is the scheduler's word on a recipe."""

    def __init__(self, expected_epochs: Callable[[Recipe], float]) -> None:
        self._expected_epochs = expected_epochs
        self._seconds: dict[Kind | tuple[str, ...], list[float]] = defaultdict(list)
        self._shares: list[float] = []  # of the expected epochs, that trials took until they ended

    @property
    def is_known(self) -> bool:
        """Whether any epoch was seen."""
        return bool(self._seconds)

    def add_epochs(self, recipe: Recipe, seconds: Sequence[float]) -> None:
        """Epochs of such a trial took so long."""
        for group in kind_of(recipe).wider() if seconds else ():
            self._seconds[group] += seconds

    def add_ending(self, recipe: Recipe, num_epochs: int) -> None:
        """Such a trial, which the scheduler may stop, was over after `num_epochs`."""
        self._shares.append(num_epochs / self._expected_epochs(recipe))

    def seconds_per_epoch(self, recipe: Recipe) -> float:
        """The mean over the same kind of trials where there were any, else over the nearest kinds, at last over all."""
        return mean(next(self._seconds[group] for group in kind_of(recipe).wider() if group in self._seconds))

    def epochs(self, recipe: Recipe) -> float:
        """As the scheduler expects, corrected by what the trials that ended took."""
        share = (NUM_EXPECTED + sum(self._shares)) / (NUM_EXPECTED + len(self._shares))
        return min(recipe.epochs, share * self._expected_epochs(recipe))

    def seconds(self, recipe: Recipe) -> float:
        """Of a whole trial."""
        return self.epochs(recipe) * self.seconds_per_epoch(recipe)

    def seconds_to_the_end(self, recipe: Recipe) -> float:
        """Of a trial that nothing stops."""
        return recipe.epochs * self.seconds_per_epoch(recipe)

    def seconds_left(self, trial: "Trial") -> float:
        """Of a trial that runs; a baseline and one that got further than most go on to the end."""
        expected = trial.recipe.epochs if trial.is_baseline else self.epochs(trial.recipe)
        if trial.epochs >= expected:
            expected = trial.recipe.epochs
        return (expected - trial.epochs) * self.seconds_per_epoch(trial.recipe)


def wall_seconds(trials: Iterable[float], num_workers: int) -> float:
    """Of a search whose trials take so many seconds: shared by the workers, and no less than the longest trial."""
    seconds = list(trials)
    return max([sum(seconds) / num_workers, *seconds])


def seconds_remaining(
    trials: Sequence["Trial"],
    num_trials: int,
    num_workers: int,
    expected_epochs: Callable[[Recipe], float],
    drawn: Sequence[Recipe] = (),
) -> float | None:
    """Until a search has `num_trials`; None before the first epoch. Those to come are like `drawn`, or those seen."""
    costs = Costs(expected_epochs)
    for trial in trials:
        costs.add_epochs(trial.recipe, [epoch["seconds"] for epoch in trial.curve])
        if trial.is_over and not trial.is_baseline:
            costs.add_ending(trial.recipe, trial.epochs)
    if not costs.is_known:
        return None
    each = mean(costs.seconds(recipe) for recipe in drawn or [trial.recipe for trial in trials])
    running = [costs.seconds_left(trial) for trial in trials if not trial.is_over]
    return wall_seconds([*running, *[each] * (num_trials - len(trials))], num_workers)
