"""Sampled values as points of the unit cube, which is what a model of the search sees of a recipe."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cifar_tune.recipe.recipe import field_of

Array = npt.NDArray[np.float64]

ABSENT = 0.5  # where a recipe has no such value: the middle, so that only the choice that took it away counts


class Encoding:
    """One column for a number, in its logarithm where it is sampled so, and one for each choice between names.

    Names that carry a variant share the column of their field: the middle of Adam's range of rates and the middle of
    SGD's are both the usual rate, and what is learnt of one says something of the other.
    """

    def __init__(self, ranges: Mapping[str, BaseDistribution]) -> None:
        self._ranges = ranges
        self._names: dict[str, list[str]] = defaultdict(list)
        for name in ranges:
            self._names[field_of(name)].append(name)
        self.num_columns = len(self._encode({}))

    def encode(self, params: Sequence[Mapping[str, Any]]) -> Array:
        """(n, num_columns), each between 0 and 1; names that have no range are left out."""
        return np.array([self._encode(values) for values in params], dtype=float).reshape(len(params), self.num_columns)

    def _encode(self, values: Mapping[str, Any]) -> list[float]:
        encoded: list[float] = []
        for names in self._names.values():
            name = next((name for name in names if name in values), None)
            distribution = self._ranges[name or names[0]]
            if is_ordered(distribution):
                encoded.append(ABSENT if name is None else to_unit(distribution, values[name]))
            else:
                encoded += _one_hot(distribution, None if name is None else values[name])
        return encoded


def is_ordered(distribution: BaseDistribution) -> bool:
    """Whether its values are numbers, as those of a choice between batch sizes are."""
    if not isinstance(distribution, CategoricalDistribution):
        return True
    return all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in distribution.choices)


def to_unit(distribution: BaseDistribution, value: float) -> float:
    """A value of an ordered distribution as a number from 0 to 1."""
    if isinstance(distribution, CategoricalDistribution):
        choices = sorted(distribution.choices, key=float)  # type: ignore[arg-type]
        return choices.index(value) / max(1, len(choices) - 1)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _bounds(distribution)
    if distribution.log:
        value = math.log(value)
    return (value - low) / (high - low) if high > low else 0.0


def from_unit(distribution: BaseDistribution, unit: float) -> Any:  # noqa: ANN401 - what the distribution has
    """The value of an ordered distribution nearest to a number from 0 to 1."""
    if isinstance(distribution, CategoricalDistribution):
        choices = sorted(distribution.choices, key=float)  # type: ignore[arg-type]
        return choices[round(unit * (len(choices) - 1))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _bounds(distribution)
    value = low + unit * (high - low)
    if distribution.log:
        value = math.exp(value)
    if distribution.step:
        value = distribution.low + distribution.step * round((value - distribution.low) / distribution.step)
    value = min(max(value, distribution.low), distribution.high)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)


def _bounds(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    low, high = float(distribution.low), float(distribution.high)
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _one_hot(distribution: BaseDistribution, value: Any) -> list[float]:  # noqa: ANN401 - a choice may be of any type
    """Zeros where there is no value; of two choices one column says all."""
    assert isinstance(distribution, CategoricalDistribution)
    choices = distribution.choices if len(distribution.choices) > 2 else distribution.choices[:1]
    return [float(value is not None and choice == value) for choice in choices]
