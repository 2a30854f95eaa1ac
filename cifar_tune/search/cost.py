"""The expected time of trials and searches, for `run --plan` and the live display.

Seconds per epoch come from epochs that were trained: by the plan to time them, or by the search itself. The scheduler
says how many epochs a trial is expected to take; trials that have ended correct that. Importing this loads no torch.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
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


@lru_cache(maxsize=10_000)
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


class _Mean:
    """A mean that takes in more values without keeping them."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: Sequence[float]) -> None:
        self.total += sum(values)
        self.count += len(values)

    @property
    def value(self) -> float:
        return self.total / self.count


class Costs:
    """Learns from trained epochs and ended trials what trials cost.

    `expected_epochs` gives the mean number of epochs of a recipe's trials that the scheduler expects.
    """

    def __init__(self, expected_epochs: Callable[[Recipe], float]) -> None:
        self._expected_epochs = expected_epochs
        self._seconds: dict[Kind | tuple[str, ...], _Mean] = defaultdict(_Mean)
        self._shares = _Mean()  # over trials that ended: their epochs over the expected ones

    @property
    def is_known(self) -> bool:
        """Whether any epoch was added."""
        return bool(self._seconds)

    def add_epochs(self, recipe: Recipe, seconds: Sequence[float]) -> None:
        """Learn how many seconds epochs of the recipe took."""
        for group in kind_of(recipe).wider() if seconds else ():
            self._seconds[group].add(seconds)

    def add_ending(self, recipe: Recipe, num_epochs: int) -> None:
        """Learn that a trial of the recipe, which the scheduler could stop, was over after `num_epochs`."""
        self._shares.add([num_epochs / self._expected_epochs(recipe)])

    def seconds_per_epoch(self, recipe: Recipe) -> float:
        """The mean over epochs of the same kind, else of the smallest group that has any."""
        return next(self._seconds[group].value for group in kind_of(recipe).wider() if group in self._seconds)

    def epochs(self, recipe: Recipe) -> float:
        """The number of epochs that the scheduler expects, corrected by the trials that have ended."""
        share = (NUM_EXPECTED + self._shares.total) / (NUM_EXPECTED + self._shares.count)
        return min(recipe.epochs, share * self._expected_epochs(recipe))

    def seconds(self, recipe: Recipe) -> float:
        """The expected seconds of a trial."""
        return self.epochs(recipe) * self.seconds_per_epoch(recipe)

    def seconds_to_the_end(self, recipe: Recipe) -> float:
        """The seconds of a trial that is trained to its end."""
        return recipe.epochs * self.seconds_per_epoch(recipe)

    def seconds_left(self, trial: "Trial") -> float:
        """The seconds left of a trial; baselines, and running ones past their expected end, run to the last epoch.

        A paused one is expected to go on like others of its recipe, but not past the expected end.
        """
        expected = trial.recipe.epochs if trial.is_baseline else self.epochs(trial.recipe)
        if trial.epochs >= expected:
            expected = trial.epochs if trial.state == "paused" else trial.recipe.epochs
        return (expected - trial.epochs) * self.seconds_per_epoch(trial.recipe)


def wall_seconds(trials: Iterable[float], num_workers: int) -> float:
    """The seconds of a search whose workers share trials of these seconds; at least those of the longest trial."""
    seconds = list(trials)
    return max([sum(seconds) / num_workers, *seconds])


class Remaining:
    """Expects how long a search takes until it has `num_trials`, from what its trials have taken so far.

    Future trials are taken to be like the recipes in `draws`, or like the present trials if there are none.
    """

    def __init__(
        self,
        num_trials: int,
        num_workers: int,
        expected_epochs: Callable[[Recipe], float],
        draws: Sequence[Recipe] = (),
    ) -> None:
        self._num_trials = num_trials
        self._num_workers = num_workers
        self._costs = Costs(expected_epochs)
        self._draws = draws
        self._recipes: dict[int, Recipe] = {}  # by trial
        self._running: dict[int, Trial] = {}  # and paused ones

    def note(self, trial: "Trial") -> None:
        """Take in what a trial has trained since the last time, and whether it has ended."""
        self._recipes[trial.number] = trial.recipe
        before = self._running.pop(trial.number, None)
        past = before.epochs if before else 0
        self._costs.add_epochs(trial.recipe, [epoch["seconds"] for epoch in trial.curve[past:]])
        if not trial.is_over:
            self._running[trial.number] = trial
        elif not trial.is_baseline:
            self._costs.add_ending(trial.recipe, trial.epochs)

    @property
    def seconds(self) -> float | None:
        """The seconds that are left; None before the first epoch."""
        if not self._costs.is_known:
            return None
        each = mean(self._costs.seconds(recipe) for recipe in self._draws or self._recipes.values())
        running = [self._costs.seconds_left(trial) for trial in self._running.values()]
        return wall_seconds([*running, *[each] * (self._num_trials - len(self._recipes))], self._num_workers)
