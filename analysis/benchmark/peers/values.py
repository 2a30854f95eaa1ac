"""A space in terms that all libraries have: ranges, conditions, and values with texts in place of choices."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from cifar_tune.search.encoding import from_unit, is_ordered
from cifar_tune.search.space import Space


class Values:
    """Translates the values of a space; choices are told to the libraries as texts, which all of them take.

    `baseline` has the names of the baseline's recipe, `full_baseline` all names: those that the recipe lacks have the
    middle of their range or their first choice.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.ranges = space.ranges()
        self.epochs = space.baselines[0].epochs
        self.baseline = self.encode(space.baseline_trial(space.baselines[0]).params)
        self.full_baseline = {**self.encode({name: middle(d) for name, d in self.ranges.items()}), **self.baseline}

    def encode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Sampled values as a library gets them."""
        return {name: str(value) if self.is_choice(name) else value for name, value in params.items()}

    def decode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The sampled values of the recipe that a library's values make: of their own types, without unused names."""
        trial = FixedTrial({name: typed(d, values[name]) for name, d in self.ranges.items() if name in values})
        self.space.sample(trial)
        return dict(trial.params)

    def is_choice(self, name: str) -> bool:
        """Whether the name's values are choices, numbers or not."""
        return isinstance(self.ranges[name], CategoricalDistribution)


def labels(distribution: CategoricalDistribution) -> list[str]:
    """The choices as texts."""
    return [str(choice) for choice in distribution.choices]


def typed(distribution: BaseDistribution, value: Any) -> Any:  # noqa: ANN401 - a choice may be of any type
    """A library's value in its own type, within the range, which libraries leave by a rounding error."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[labels(distribution).index(str(value))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    inside = min(max(float(value), distribution.low), distribution.high)
    return round(inside) if isinstance(distribution, IntDistribution) else inside


def middle(distribution: BaseDistribution) -> Any:  # noqa: ANN401 - a choice may be of any type
    """The middle of a range, or the first of named choices."""
    if is_ordered(distribution):
        return from_unit(distribution, 0.5)
    assert isinstance(distribution, CategoricalDistribution)
    return distribution.choices[0]


def conditions(space: Space) -> dict[str, tuple[str, list[str]]]:
    """For each name that is not in every recipe, the choice that decides and the texts with which the name is there.

    Both are read off random draws; a ValueError where no single choice decides.
    """
    draws, ranges = [draw.params for draw in space.draw()], space.ranges()
    found = {}
    for name in (name for name in ranges if not all(name in draw for draw in draws)):
        there, absent = [d for d in draws if name in d], [d for d in draws if name not in d]
        parents = (
            parent
            for parent, distribution in ranges.items()
            if parent != name
            and isinstance(distribution, CategoricalDistribution)
            and all(parent in draw for draw in there)
            and not {draw[parent] for draw in there} & {draw.get(parent) for draw in absent}
        )
        parent = next(parents, None)
        if parent is None:
            raise ValueError(f"{space.path}: no single choice decides whether a recipe has {name}.")
        found[name] = (parent, sorted({str(draw[parent]) for draw in there}))
    return found
