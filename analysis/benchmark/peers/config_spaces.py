"""A space as ConfigSpace has it, with its conditions: for SMAC3 and DEHB."""

from typing import Any

from ConfigSpace import (
    Categorical,
    Configuration,
    ConfigurationSpace,
    Float,
    InCondition,
    Integer,
)
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from peers.values import Values, conditions, labels


def config_space(values: Values, seed: int) -> ConfigurationSpace:
    """The ranges and conditions; the default is ConfigSpace's own, the middle."""
    space = ConfigurationSpace(seed=seed)
    space.add([parameter(name, distribution) for name, distribution in values.ranges.items()])
    space.add(
        [InCondition(space[name], space[parent], there) for name, (parent, there) in conditions(values.space).items()]
    )
    return space


def parameter(name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401 - ConfigSpace's hyperparameters
    """The range as ConfigSpace has it."""
    if isinstance(distribution, CategoricalDistribution):
        return Categorical(name, labels(distribution))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kind = Integer if isinstance(distribution, IntDistribution) else Float
    return kind(name, (distribution.low, distribution.high), log=distribution.log)


def baseline_configuration(values: Values, space: ConfigurationSpace) -> Configuration:
    """The baseline in this space."""
    return Configuration(space, values=values.baseline)
