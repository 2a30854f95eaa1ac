"""Encodes sampled values as points of the unit cube: the input of the surrogate model (gaussian_process.py)."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cifar_tune.recipe.recipe import field_of

Array = npt.NDArray[np.float64]

ABSENT = 0.5  # for a name that a recipe lacks: the middle, so that only the choice that excludes the name counts


class Encoding:
    """One column for a number, its logarithm where the range is logarithmic, and one-hot columns for named choices.

    Names with a variant (`optimizer/adam/lr`, `optimizer/sgd/lr`) share the column of their field: the middle of each
    range is the usual learning rate of its optimizer, so scores with one optimizer say something about the other.
    """

    def __init__(self, ranges: Mapping[str, BaseDistribution]) -> None:
        self._ranges = ranges
        self._names: dict[str, list[str]] = defaultdict(list)
        for name in ranges:
            self._names[field_of(name)].append(name)
        self.fields = [field for field, names in self._names.items() for _ in _columns(ranges[names[0]], None)]
        self.num_columns = len(self.fields)

    def encode(self, params: Sequence[Mapping[str, Any]]) -> Array:
        """An array (n, num_columns) of values in [0, 1]; names without a range are ignored."""
        return np.array([self._encode(values) for values in params], dtype=float).reshape(len(params), self.num_columns)

    def _encode(self, values: Mapping[str, Any]) -> list[float]:
        encoded: list[float] = []
        for names in self._names.values():
            name = next((name for name in names if name in values), None)
            encoded += _columns(self._ranges[name or names[0]], None if name is None else values[name])
        return encoded


def _columns(distribution: BaseDistribution, value: Any) -> list[float]:  # noqa: ANN401 - a choice may be of any type
    """The columns of one value; of None for a name that a recipe lacks."""
    if is_ordered(distribution):
        return [ABSENT if value is None else to_unit(distribution, value)]
    return _one_hot(distribution, value)


def is_ordered(distribution: BaseDistribution) -> bool:
    """Whether the values are numbers; a choice between batch sizes is ordered too."""
    if not isinstance(distribution, CategoricalDistribution):
        return True
    return all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in distribution.choices)


def to_unit(distribution: BaseDistribution, value: float) -> float:
    """The position in [0, 1] of a value of an ordered distribution."""
    if isinstance(distribution, CategoricalDistribution):
        choices = sorted(distribution.choices, key=float)  # type: ignore[arg-type]
        return choices.index(value) / max(1, len(choices) - 1)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _bounds(distribution)
    if distribution.log:
        value = math.log(value)
    return (value - low) / (high - low) if high > low else 0.0


def from_unit(distribution: BaseDistribution, unit: float) -> Any:  # noqa: ANN401 - what the distribution has
    """The value of an ordered distribution at a position in [0, 1], rounded to its steps or choices."""
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
    """One column per choice, or a single one for two choices; all zeros for None."""
    assert isinstance(distribution, CategoricalDistribution)
    choices = distribution.choices if len(distribution.choices) > 2 else distribution.choices[:1]
    return [float(value is not None and choice == value) for choice in choices]
