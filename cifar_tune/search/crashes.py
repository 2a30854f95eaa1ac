"""What a search learns from trials that fail: after two that fail alike, it leaves out draws that are like them.

A rule is the fewest conditions on sampled values that all trials with one kind of error meet, and that no trial that
trained meets. Regions of other shapes, and the border of any, are left to a model: the surrogate model of the scores,
fitted to which trials failed. Both are inferred anew after each failure, so the next one corrects what was wrong.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution

from cifar_tune.errors import MachineError
from cifar_tune.search.encoding import Encoding, to_unit
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_setting

MIN_ALIKE = 2  # failures of one kind before a rule is inferred
MAX_CHANCE = 1 / 5  # of failing, at which a draw is still tried
MAX_TRIALS = 200  # to which the model of failures is fitted, the latest ones; its cost grows with their cube
RAISED = re.compile(  # the innermost frame of a traceback, and the exception below it
    r'^ +File ".*?(?P<file>[^/\\"]+)", line (?P<line>\d+).*\n(?:(?! +File ")[ \t]+.*\n)*(?P<type>[\w.]+)', re.MULTILINE
)
VARYING = re.compile(r"(?<!\w)(['\"`]).*?\1(?!\w)|\S*/\S*|\b(?:0x)?[0-9a-f-]*\d[0-9a-f-]*\b|\d+", re.IGNORECASE)


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

    def covers_each(self, params_of_each: Sequence[Mapping[str, Any]]) -> list[bool]:
        """The same for several draws."""
        return [self.covers(params) for params in params_of_each]

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions))


class Likeness:
    """Draws that a model of the failures expects to fail are left out, whatever the shape of the region."""

    def __init__(self, failed: Sequence[Trial], trained: Sequence[Trial]) -> None:
        from cifar_tune.search.gaussian_process import GaussianProcess  # imports torch, which a report need not load

        trials = sorted([*failed, *trained], key=lambda trial: trial.number)[-MAX_TRIALS:]
        self._num_failed = len(failed)
        self._encoding = Encoding({name: each for trial in trials for name, each in trial.ranges.items()})
        has_failed = np.array([[float(trial.state == "failed")] for trial in trials])
        points = self._encoding.encode([trial.params for trial in trials])
        self._posterior = GaussianProcess(self._encoding.num_columns).fit(points, has_failed)
        self._max_chance = max(MAX_CHANCE, float(has_failed.mean()))  # or all would be left out where many fail

    def covers(self, params: Mapping[str, Any]) -> bool:
        """Whether a draw with these values is too likely to fail."""
        return self.covers_each([params])[0]

    def covers_each(self, params_of_each: Sequence[Mapping[str, Any]]) -> list[bool]:
        """The same for several draws, which takes hardly longer."""
        chances = self._posterior.predict(self._encoding.encode(params_of_each)).mean
        return [bool(chance > self._max_chance) for chance in chances]

    def __str__(self) -> str:
        return f"values near those of {self._num_failed} failed trials"


class Crashes:
    """The rules by which a search leaves draws out; `read` infers them from its trials."""

    def __init__(self) -> None:
        self.rules: tuple[Rule | Likeness, ...] = ()

    def read(self, trials: Iterable[Trial]) -> None:
        """Infer the rules from the trials so far."""
        alike: dict[str, list[Trial]] = defaultdict(list)
        trained = []
        for trial in trials:
            if trial.state == "failed":
                alike[kind_of(trial.error)].append(trial)
            elif trial.curve:
                trained.append(trial)
        self.rules = tuple(
            rule
            for failed in alike.values()
            if len(failed) >= MIN_ALIKE and trained
            for rule in (infer_rule(failed, [trial.params for trial in trained]), Likeness(failed, trained))
            if rule
        )

    def rule_for(self, params: Mapping[str, Any]) -> Rule | Likeness | None:
        """The rule that leaves out a draw with these values; None for most draws."""
        return next((rule for rule in self.rules if rule.covers(params)), None)

    def are_left_out(self, params_of_each: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether a rule leaves each of these draws out."""
        if not params_of_each:
            return []
        of_each_rule = [rule.covers_each(params_of_each) for rule in self.rules]
        return [any(covered) for covered in zip(*of_each_rule, strict=True)] or [False] * len(params_of_each)


def kind_of(error: str | None) -> str:
    """What errors of one kind have in common: the type of the exception and the line that raised it.

    Without a traceback, the reason without its numbers, paths, quoted words and hexadecimal ids.
    """
    *_, last = [None, *RAISED.finditer(error or "")]
    if last:
        return f"{last['type']} at {last['file']}:{last['line']}"
    return VARYING.sub("#", reason_of(error))


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
