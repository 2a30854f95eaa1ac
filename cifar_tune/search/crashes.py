"""What a search learns from trials that fail: after two that fail alike, it leaves out draws with the same values.

A rule is the fewest conditions on sampled values that all trials with one kind of error meet, and that no trial that
trained meets. It is inferred anew after each failure, so the next one corrects a rule that says too much or too little.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import CategoricalDistribution

from cifar_tune.errors import MachineError
from cifar_tune.search.encoding import to_unit
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_setting

MIN_ALIKE = 2  # failures of one kind before a rule is inferred


@dataclass(frozen=True)
class IsOneOf:
    """The value is one of these choices."""

    name: str
    choices: tuple[Any, ...]

    def holds(self, value: Any) -> bool:  # noqa: ANN401 - a choice may be of any type
        """Whether the value is among them; True is not 1."""
        return any(type(value) is type(choice) and value == choice for choice in self.choices)

    def __str__(self) -> str:
        return " or ".join(format_setting(self.name, choice) for choice in self.choices)


@dataclass(frozen=True)
class IsBetween:
    """The number lies between two others, which are included; an infinite one is no bound."""

    name: str
    low: float
    high: float

    def holds(self, value: Any) -> bool:  # noqa: ANN401 - a choice may be of any type
        """Whether the number lies in the interval."""
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{self.name} of {self.low:.4g} or more"
        if math.isinf(self.low):
            return f"{self.name} of {self.high:.4g} or less"
        return f"{self.name} from {self.low:.4g} to {self.high:.4g}"


Condition = IsOneOf | IsBetween


@dataclass(frozen=True)
class Rule:
    """Draws that meet all conditions are left out, because trials that meet them failed alike."""

    conditions: tuple[Condition, ...]

    def covers(self, params: Mapping[str, Any]) -> bool:
        """Whether sampled values meet all conditions."""
        return all(each.name in params and each.holds(params[each.name]) for each in self.conditions)

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions))


class Crashes:
    """The rules by which a search leaves draws out; `read` infers them from its trials."""

    def __init__(self) -> None:
        self.rules: tuple[Rule, ...] = ()

    def read(self, trials: Iterable[Trial]) -> None:
        """Infer the rules from the trials so far."""
        alike: dict[str, list[Trial]] = defaultdict(list)
        trained = []
        for trial in trials:
            if trial.state == "failed":
                alike[kind_of(trial.error)].append(trial)
            elif trial.curve:
                trained.append(trial.params)
        rules = (infer_rule(failed, trained) for failed in alike.values() if len(failed) >= MIN_ALIKE)
        self.rules = tuple(rule for rule in rules if rule)

    def rule_for(self, params: Mapping[str, Any]) -> Rule | None:
        """The rule that leaves out a draw with these values; None for most draws."""
        return next((rule for rule in self.rules if rule.covers(params)), None)


def kind_of(error: str | None) -> str:
    """What errors of one kind have in common: the reason without its numbers and paths."""
    return re.sub(r"\S*/\S*|0x[0-9a-f]+|\d+", "#", reason_of(error))


def reason_of(error: str | None) -> str:
    """The last line of a traceback without modules and full stop, like `RuntimeError: no such layer`."""
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    if not lines:
        return "no reason is known"
    return re.sub(r"^(\w+\.)+(?=\w+:)", "", lines[-1]).removeprefix(f"{MachineError.__name__}: ").rstrip(".")


def infer_rule(failed: Sequence[Trial], trained: Sequence[Mapping[str, Any]]) -> Rule | None:
    """The simplest rule that covers the failed trials and none that trained; None if their values do not decide.

    It begins with the smallest box around the failed trials. Conditions are given up one by one, as long as it covers
    no trial that trained; then a bound of each interval that is left is given up likewise.
    """

    def is_tight(rule: Rule) -> bool:
        return not any(rule.covers(params) for params in trained)

    rule = Rule(tuple(_box(failed)))
    if not trained or not is_tight(rule):
        return None
    for condition in rule.conditions:
        without = replace(rule, conditions=tuple(each for each in rule.conditions if each is not condition))
        rule = without if is_tight(without) else rule
    for condition in rule.conditions:
        if isinstance(condition, IsBetween):
            for wider in (replace(condition, high=math.inf), replace(condition, low=-math.inf)):
                other = replace(
                    rule, conditions=tuple(wider if each is condition else each for each in rule.conditions)
                )
                rule = other if is_tight(other) else rule
    return rule


def _box(failed: Sequence[Trial]) -> list[Condition]:
    """A condition for each name that all failed trials sampled; the widest first, and a single choice after all."""
    conditions: list[tuple[bool, float, Condition]] = []
    for name, distribution in failed[0].ranges.items():
        if not all(name in trial.params for trial in failed):
            continue
        values = [trial.params[name] for trial in failed]
        if isinstance(distribution, CategoricalDistribution):
            choices = tuple(dict.fromkeys(values))
            conditions.append((len(choices) == 1, -len(choices) / len(distribution.choices), IsOneOf(name, choices)))
        else:
            low, high = min(values), max(values)
            width = to_unit(distribution, high) - to_unit(distribution, low)
            conditions.append((False, -width, IsBetween(name, low, high)))
    return [condition for *_, condition in sorted(conditions, key=lambda each: each[:2])]
