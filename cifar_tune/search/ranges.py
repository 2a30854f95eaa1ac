"""Ranges of sampled values, which are Optuna's distributions: their text, what they contain, and their ends."""

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


def format_range(distribution: BaseDistribution) -> str:
    """`[0.001, 0.1] log`, or the choices: `{adam, sgd}`."""
    if isinstance(distribution, CategoricalDistribution):
        return "{" + ", ".join(str(choice) for choice in distribution.choices) + "}"
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    log = " log" if distribution.log else ""
    step = f" step {distribution.step}" if distribution.step not in (None, 1) else ""
    return f"[{distribution.low:g}, {distribution.high:g}]{log}{step}"


def contains(distribution: BaseDistribution, value: Any) -> bool:  # noqa: ANN401 - a choice may be of any type
    """Whether the distribution can give the value; Optuna itself only warns about one that it cannot give."""
    if isinstance(distribution, CategoricalDistribution):
        return any(choice == value for choice in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(value, bool | str) or value is None or not distribution.low <= value <= distribution.high:
        return False
    steps = (value - distribution.low) / distribution.step if distribution.step else 0.0
    return bool(abs(steps - round(steps)) < 1e-8)


def ends_of(distribution: BaseDistribution) -> list[Any]:
    """The lowest and the highest value, or all choices."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return list(dict.fromkeys([distribution.low, distribution.high]))
