"""The two stand-ins for an Optuna trial that a space file is asked with: for its baseline, and under `--set`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial

from cifar_tune.errors import UserError
from cifar_tune.recipe import Recipe, Value, field_of, nearest


class BaselineTrial:
    """Answers a space's questions with what a baseline has there, and notes what was asked."""

    def __init__(self, baseline: Recipe) -> None:
        self._values = baseline.sampled_names()
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._answer(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._answer(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:  # noqa: ANN401 - as Optuna's own
        return self._answer(name, CategoricalDistribution(choices))

    def _answer(self, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401 - a choice may be of any type
        if name not in self._values:
            hint = nearest(name, self._values)
            raise UserError(f"space(trial) samples {name!r}, which the baseline does not have; {hint}.")
        self.distributions[name] = distribution
        self.params[name] = self._values[name]
        return self.params[name]


class WithSettings:
    """A trial whose fixed names are answered from the settings and never reach the sampler."""

    def __init__(self, trial: BaseTrial, fixed: Mapping[str, Value]) -> None:
        self._trial = trial
        self._fixed = fixed

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the trial's own attributes
        attribute = getattr(self._trial, name)
        return partial(self._answer, attribute) if name.startswith("suggest_") else attribute

    def _answer(self, suggest: Callable[..., Any], name: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        field = field_of(name)
        return self._fixed[field] if field in self._fixed else suggest(name, *arguments, **options)
