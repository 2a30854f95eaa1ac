"""The expected time of trials and searches, for `run --plan` and the live display.

Seconds per epoch come from epochs that were trained: by the plan to time them, or by the search itself. The scheduler
says how many epochs a trial is expected to take; trials that have ended correct that. Importing this loads no torch.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from cifar_tune.recipe.recipe import Recipe

if TYPE_CHECKING:
    from cifar_tune.trials.trial import Trial

NUM_EXPECTED = 2  # the scheduler's expectation counts as much as this many trials that have ended


@dataclass(frozen=True)
class Kind:
    """Trials whose epochs take about the same time: network, trained part, and batch size down to a power of two."""

    network: str
    trained: str
    batch: int

    def wider(self) -> tuple["Kind | tuple[str, ...]", ...]:
        """The kind and the groups of kinds that contain it, the smallest group first."""
        return self, (self.network, self.trained), (self.network.split()[0],), ()


def kind_of(recipe: Recipe) -> Kind:
    """The kind of the recipe's trials."""
    fields = type(recipe.model).model_fields
    options = {name: value for name, value in recipe.model.backbone_options().items() if value != fields[name].default}
    network = [recipe.model.name, *(f"{name}={value}" for name, value in options.items())]
    trained = {(True,): "head", (True, False): "head, then all"}.get(
        tuple(phase.frozen for phase in recipe.phases()), "all"
    )
    kept = " (on kept features)" if recipe.has_fixed_features else ""
    return Kind(" ".join(network), trained + kept, 2 ** (recipe.batch_size.bit_length() - 1))


class Costs:
    """Learns from trained epochs and ended trials what trials cost.

    `expected_epochs` gives the mean number of epochs of a recipe's trials that the scheduler expects.
    """

    def __init__(self, expected_epochs: Callable[[Recipe], float]) -> None:
        self._expected_epochs = expected_epochs
        self._seconds: dict[Kind | tuple[str, ...], list[float]] = defaultdict(list)
        self._shares: list[float] = []  # by trial that ended: its epochs over the expected ones

    @property
    def is_known(self) -> bool:
        """Whether any epoch was added."""
        return bool(self._seconds)

    def add_epochs(self, recipe: Recipe, seconds: Sequence[float]) -> None:
        """Learn how many seconds epochs of the recipe took."""
        for group in kind_of(recipe).wider() if seconds else ():
            self._seconds[group] += seconds

    def add_ending(self, recipe: Recipe, num_epochs: int) -> None:
        """Learn that a trial of the recipe, which the scheduler could stop, was over after `num_epochs`."""
        self._shares.append(num_epochs / self._expected_epochs(recipe))

    def seconds_per_epoch(self, recipe: Recipe) -> float:
        """The mean over epochs of the same kind, else of the smallest group that has any."""
        return mean(next(self._seconds[group] for group in kind_of(recipe).wider() if group in self._seconds))

    def epochs(self, recipe: Recipe) -> float:
        """The number of epochs that the scheduler expects, corrected by the trials that have ended."""
        share = (NUM_EXPECTED + sum(self._shares)) / (NUM_EXPECTED + len(self._shares))
        return min(recipe.epochs, share * self._expected_epochs(recipe))

    def seconds(self, recipe: Recipe) -> float:
        """The expected seconds of a trial."""
        return self.epochs(recipe) * self.seconds_per_epoch(recipe)

    def seconds_to_the_end(self, recipe: Recipe) -> float:
        """The seconds of a trial that is trained to its end."""
        return recipe.epochs * self.seconds_per_epoch(recipe)

    def seconds_left(self, trial: "Trial") -> float:
        """The seconds left of a running trial; baselines, and trials past their expected end, run to the last epoch."""
        expected = trial.recipe.epochs if trial.is_baseline else self.epochs(trial.recipe)
        if trial.epochs >= expected:
            expected = trial.recipe.epochs
        return (expected - trial.epochs) * self.seconds_per_epoch(trial.recipe)


def wall_seconds(trials: Iterable[float], num_workers: int) -> float:
    """The seconds of a search whose workers share trials of these seconds; at least those of the longest trial."""
    seconds = list(trials)
    return max([sum(seconds) / num_workers, *seconds])


def seconds_remaining(
    trials: Sequence["Trial"],
    num_trials: int,
    num_workers: int,
    expected_epochs: Callable[[Recipe], float],
    draws: Sequence[Recipe] = (),
) -> float | None:
    """The seconds until a search has `num_trials`; None before the first epoch.

    Future trials are taken to be like the recipes in `draws`, or like the present trials if there are none.
    """
    costs = Costs(expected_epochs)
    for trial in trials:
        costs.add_epochs(trial.recipe, [epoch["seconds"] for epoch in trial.curve])
        if trial.is_over and not trial.is_baseline:
            costs.add_ending(trial.recipe, trial.epochs)
    if not costs.is_known:
        return None
    each = mean(costs.seconds(recipe) for recipe in draws or [trial.recipe for trial in trials])
    running = [costs.seconds_left(trial) for trial in trials if not trial.is_over]
    return wall_seconds([*running, *[each] * (num_trials - len(trials))], num_workers)
