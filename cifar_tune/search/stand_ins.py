"""Stand-ins for the Optuna trial that a space is called with: for its baselines, for random draws, under `--set`."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial

from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe, Value, field_of, nearest
from cifar_tune.search.encoding import from_unit, is_ordered, to_unit


class StandIn:
    """Answers a space's `suggest_` calls with the values of `choose`, and stores names, values and distributions."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As Optuna's own."""
        return float(self._answer(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As Optuna's own."""
        return int(self._answer(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:  # noqa: ANN401 - as Optuna's own
        """As Optuna's own."""
        return self._answer(name, CategoricalDistribution(choices))

    def choose(self, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401 - a choice may be of any type
        """The value of a sampled name."""
        raise NotImplementedError

    def _answer(self, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401 - a choice may be of any type
        if name not in self.params:
            self.params[name] = self.choose(name, distribution)
            self.distributions[name] = distribution
        return self.params[name]


class BaselineTrial(StandIn):
    """Answers with a baseline's values."""

    def __init__(self, baseline: Recipe) -> None:
        super().__init__()
        self._values = baseline.sampled_names()

    def choose(self, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401 - a choice may be of any type
        """The baseline's value, even outside the range; a UserError for a name that the baseline does not have."""
        if name not in self._values:
            hint = nearest(name, self._values)
            raise UserError(f"space(trial) samples {name!r}, which the baseline does not have; {hint}.")
        return self._values[name]


class RandomTrial(StandIn):
    """Answers at random, as Optuna's random sampler does."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    def choose(self, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401 - a choice may be of any type
        """A value by a uniform distribution, of the logarithm where the range is logarithmic."""
        if isinstance(distribution, CategoricalDistribution):
            return self._rng.choice(distribution.choices)
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high, step = distribution.low, distribution.high, distribution.step
        if distribution.log:
            half = 0.5 if step else 0.0  # an integer stands for all that is rounded to it
            value = math.exp(self._rng.uniform(math.log(low - half), math.log(high + half)))
            return min(max(round(value) if step else value, low), high)
        if step:
            return low + step * self._rng.randrange(round((high - low) / step) + 1)
        return self._rng.uniform(low, high)


class NeighbourTrial(RandomTrial):
    """Answers near the values in `params`: each changes with probability `share`, a number by about `distance`.

    `distance` is the standard deviation as a fraction of the range. Names that are not in `params` are random.
    """

    def __init__(self, rng: random.Random, params: Mapping[str, Any], share: float, distance: float) -> None:
        super().__init__(rng)
        self._centre = params
        self._share = share
        self._distance = distance

    def choose(self, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401 - a choice may be of any type
        """The value in `params`, or one near it."""
        if name not in self._centre:
            return super().choose(name, distribution)
        value = self._centre[name]
        if self._rng.random() > self._share:
            return value
        if not is_ordered(distribution):
            return super().choose(name, distribution)
        unit = self._rng.gauss(to_unit(distribution, value), self._distance)
        return from_unit(distribution, min(max(unit, 0.0), 1.0))


class WithSettings:
    """Wraps a trial: names of `fixed` fields get the fixed values, and the sampler never sees them."""

    def __init__(self, trial: BaseTrial, fixed: Mapping[str, Value]) -> None:
        self._trial = trial
        self._fixed = fixed

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the trial's own attributes
        attribute = getattr(self._trial, name)
        return partial(self._answer, attribute) if name.startswith("suggest_") else attribute

    def _answer(self, suggest: Callable[..., Any], name: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        field = field_of(name)
        return self._fixed[field] if field in self._fixed else suggest(name, *arguments, **options)
