"""Schedulers: which trials of a search are stopped early. Each is a class with its own options and its `name`.

A trial is judged at its rungs, after certain fractions of its schedule, by the trials of its group that got there too;
baselines never stop. After an interruption a judge is rebuilt from the record: what it knows is a set of scores, in
whatever order they came, and a judgement is a fact of its trial and not made twice. Nothing here knows Ray.
"""

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from statistics import mean, median
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from cifar_tune.recipe.options import Count, Options, Share, part_of
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.forecast import LEVELS, Forecast, level_epochs
from cifar_tune.trials.facts import LET_THROUGH, RUNGS, STOPPED_AT

if TYPE_CHECKING:
    from cifar_tune.trials.trial import Trial

NUM_MEDIAN_TRIALS = 3  # a median of fewer says little; Ray's rule waits for as many
GOLDEN = (math.sqrt(5) - 1) / 2

Keep = Annotated[float, Field(gt=0, le=1)]


class Group(NamedTuple):
    """What trials share that are compared: where their schedule may be judged, and how many phases have one."""

    rungs: tuple[float, ...]
    num_phases: int


EVERYBODY = Group((), 0)


class Rung(NamedTuple):
    """Where the scores of trials meet."""

    group: Group
    bracket: int
    fraction: float


@dataclass(frozen=True)
class Judgement:
    """Whether a trial goes on, and what its record has to say of that."""

    goes_on: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)


class BaseScheduler(Options):
    """What a search asks of every scheduler, and a stopping rule's three parts: who meets whom, at what, who passes."""

    def start(self, seed: int, forecast: Forecast | None = None) -> "Judge":
        """The judge of a search with this `--seed`; only one by forecast needs the search's."""
        return Judge(self, seed, forecast)

    @property
    def levels(self) -> tuple[float, ...]:
        """The fractions of a schedule whose scores a forecast goes by."""
        return LEVELS

    def expected_epochs(self, recipe: Recipe) -> float:
        """The epochs that an average trial of the recipe takes in the long run; at most all of them."""
        return recipe.epochs

    def rung(self, trial: "Trial") -> Rung | None:
        """The rung at which the trial is after its last epoch; None between rungs."""
        return None

    def score(self, trial: "Trial") -> float:
        """What other trials are compared with."""
        raise NotImplementedError

    def passes(self, trial: "Trial", seen: Mapping[int, float], forecast: Forecast | None) -> bool:
        """Whether a trial goes on by the scores seen at its rung, its own among them, by trial number."""
        raise NotImplementedError

    def is_let_through(self, number: int, seed: int) -> bool:
        """Whether a trial that does not pass goes on nevertheless; a pure function, so a resumed search agrees."""
        raise NotImplementedError


class NoStopping(BaseScheduler):
    """Every trial is trained to its end."""

    name: Literal["none"] = "none"


class _Stopping(BaseScheduler):
    """Stops trials at rungs: at `rungs`, or where the schedule of each says.

    The share `let_through` of those that would be stopped goes on to the end, to see what stopping the others risks.
    """

    rungs: tuple[Share, ...] | None = None
    let_through: Share = 0.05

    @property
    def pass_rate(self) -> float:
        """The share of the trials at a rung that goes on, in the long run."""
        raise NotImplementedError

    def brackets(self, fractions: Sequence[float]) -> list[tuple[float, Sequence[float]]]:
        """The rungs of each bracket, and the share of the trials that is in it."""
        return [(1.0, fractions)]

    def expected_epochs(self, recipe: Recipe) -> float:
        """Of what is let through, too."""
        return sum(
            share * _mean_length(list(rung_epochs(recipe, rungs)), recipe.epochs, self.pass_rate, self.let_through)
            for share, rungs in self.brackets(self._fractions(recipe))
        )

    def rung(self, trial: "Trial") -> Rung | None:
        """By the trial's number, which decides its bracket, and its recipe."""
        brackets = self.brackets(self._fractions(trial.recipe))
        # Multiples of the golden ratio fall evenly into parts of any size, from the first few on.
        place = trial.number * GOLDEN % 1
        bracket = sum(place >= edge for edge in accumulate(share for share, _ in brackets[:-1]))
        fraction = rung_epochs(trial.recipe, brackets[bracket][1]).get(trial.epochs)
        return None if fraction is None else Rung(self.group(trial.recipe), bracket, fraction)

    def group(self, recipe: Recipe) -> Group:
        """Whose trials it is compared with."""
        return group_of(recipe)

    def score(self, trial: "Trial") -> float:
        """The score so far, which is what a report would say now."""
        assert trial.val_accuracy is not None
        return trial.val_accuracy

    def is_let_through(self, number: int, seed: int) -> bool:
        """Whatever its score is, so that those let through are a fair sample of those that are not."""
        return random.Random(f"{seed} {number}").random() < self.let_through

    def _fractions(self, recipe: Recipe) -> tuple[float, ...]:
        return tuple(sorted(recipe.schedule.rungs if self.rungs is None else self.rungs))


class _Halving(_Stopping):
    """Only the best `keep` of the trials seen so far at a rung goes on.

    Successive halving in its asynchronous, stopping form (ASHA, Li et al., arXiv:1810.05934). Unlike Ray's, a rung lies
    at a fraction of the trial's own schedule, and the share that goes on does not depend on the spacing of the rungs.
    """

    keep: Keep = 0.5

    @property
    def pass_rate(self) -> float:
        """More where a sampler learns: its later trials are better than what was seen."""
        return self.keep

    def passes(self, trial: "Trial", seen: Mapping[int, float], forecast: Forecast | None) -> bool:
        """The best of a rung always does, so the first one there does; equals pass together."""
        better = sum(other > seen[trial.number] for other in seen.values())
        return better < max(1, part_of(self.keep, len(seen)))


class Asha(_Halving):
    """Successive halving in which every trial is judged at every rung."""

    name: Literal["asha"] = "asha"


class Hyperband(_Halving):
    """Successive halving in brackets that begin one rung later each, the last of which stops nobody (arXiv:1603.06560).

    For when it is not known how early a score can be trusted. A trial's number decides its bracket; trials of one
    bracket are compared, and each bracket gets about the same number of epochs.
    """

    name: Literal["hyperband"] = "hyperband"

    def brackets(self, fractions: Sequence[float]) -> list[tuple[float, Sequence[float]]]:
        """All rungs, all but the first, and so on to none; shares in inverse proportion to their lengths."""
        found = [fractions[first:] for first in range(len(fractions) + 1)]
        weights = [1 / _mean_length(rungs, 1.0, self.keep, self.let_through) for rungs in found]
        return [(weight / sum(weights), rungs) for weight, rungs in zip(weights, found, strict=True)]


class Median(_Stopping):
    """A trial goes on whose best score so far is no lower than the median of the other trials' mean scores so far.

    Google Vizier's rule (Golovin et al., KDD 2017, section 3.2.2), at rungs. As in Ray and unlike there and in Optuna's
    MedianPruner, trials count that were stopped later or still run: with completed ones alone the bar would rise with
    every trial that is stopped. Nobody is stopped before the share `grace` of the schedule.
    """

    name: Literal["median"] = "median"
    grace: Share = 0.25

    @property
    def pass_rate(self) -> float:
        """Half pass, or somewhat more: the best so far lies above a trial's own mean."""
        return 0.5

    def score(self, trial: "Trial") -> float:
        """The mean over its epochs."""
        return mean(trial.accuracies)  # exact, or the mean of equals might lie above them

    def passes(self, trial: "Trial", seen: Mapping[int, float], forecast: Forecast | None) -> bool:
        """So does everyone as long as few were seen."""
        others = [score for number, score in seen.items() if number != trial.number]
        return len(others) < NUM_MEDIAN_TRIALS or max(trial.accuracies) >= median(others)

    def _fractions(self, recipe: Recipe) -> tuple[float, ...]:
        return tuple(fraction for fraction in super()._fractions(recipe) if fraction >= self.grace)


class ByForecast(_Halving):
    """Only the best `keep` of the latest `window` at a rung goes on, by what is expected of each in the end.

    What is expected follows from the recipe and all that others have shown, so trials of all schedules are compared,
    and a rung may lie where the rate still hides what a run will come to. Only the latest, because a sampler that has
    learnt gives few recipes that are not better than most of the first ones.
    """

    name: Literal["forecast"] = "forecast"
    rungs: tuple[Share, ...] = LEVELS
    keep: Keep = 1 / 6
    window: Count = 12
    let_through: Share = 0.02  # of five in six, and most of a training each

    @property
    def levels(self) -> tuple[float, ...]:
        """Its rungs."""
        return tuple(sorted(self.rungs))

    @property
    def pass_rate(self) -> float:
        """Of a whole window, in which one goes on at least."""
        return max(1, part_of(self.keep, self.window)) / self.window

    def group(self, recipe: Recipe) -> Group:
        """Everybody's: what is expected in the end may be compared whatever the schedule is."""
        return EVERYBODY

    def passes(self, trial: "Trial", seen: Mapping[int, float], forecast: Forecast | None) -> bool:
        """By the score alone until enough is known for a forecast."""
        assert forecast is not None
        forecast.read()
        promises = forecast.predict_trials() if forecast.is_informed else seen
        others = (seen.keys() & promises.keys()) - {trial.number}  # of one that crashed nothing is expected
        latest = [trial.number, *sorted(others, reverse=True)][: self.window]
        return super().passes(trial, {number: promises[number] for number in latest}, forecast)


Scheduler = Annotated[Asha | NoStopping | Hyperband | Median | ByForecast, Field(discriminator="name")]


class Judge:
    """The scores seen at every rung of a search, and the judgement of each new one."""

    def __init__(self, scheduler: BaseScheduler, seed: int, forecast: Forecast | None) -> None:
        self._scheduler = scheduler
        self._seed = seed
        self._forecast = forecast
        self._seen: dict[Rung, dict[int, float]] = defaultdict(dict)
        self._costs: dict[Rung, dict[int, float]] = defaultdict(dict)  # of what a search minimizes

    def note(self, trial: "Trial") -> Rung | None:
        """Take note of a trial's last epoch, and at which rung it is; None between rungs.

        One that was let through is no longer one that the others are compared with.
        """
        rung = self._scheduler.rung(trial)
        if rung is None or trial.epochs > trial.facts.get(LET_THROUGH, trial.epochs):
            return None
        self._seen[rung][trial.number] = self._scheduler.score(trial)
        self._costs[rung][trial.number] = _cost(trial)
        return rung

    def judge(self, trial: "Trial") -> Judgement:
        """Take note of a running trial's last epoch; whether it goes on. Always so between rungs."""
        rung = self.note(trial)
        if rung is None:
            return Judgement()
        before = trial.facts.get(RUNGS, {})
        if str(trial.epochs) in before or STOPPED_AT in trial.facts:
            return Judgement()  # judged before an interruption, by the scores that there were then
        going_on = {RUNGS: {**before, str(trial.epochs): rung.fraction}}
        if trial.is_baseline or self._scheduler.passes(trial, self._rivals(trial, rung), self._forecast):
            return Judgement(True, going_on)
        if self._scheduler.is_let_through(trial.number, self._seed):
            return Judgement(True, {**going_on, LET_THROUGH: trial.epochs})
        return Judgement(False, {STOPPED_AT: rung.fraction})

    def _rivals(self, trial: "Trial", rung: Rung) -> dict[int, float]:
        """The scores that it is compared with: where a cost is to be small too, of those that cost no more."""
        costs = self._costs[rung]
        return {number: score for number, score in self._seen[rung].items() if costs[number] <= costs[trial.number]}


def _cost(trial: "Trial") -> float:
    """So far, of what its search minimizes; the same for all where that is nothing."""
    minimize = trial.goal.minimize
    cost = trial.cost(minimize) if minimize else 0.0
    return math.inf if cost is None else cost


def rung_epochs(recipe: Recipe, fractions: Sequence[float]) -> dict[int, float]:
    """The epochs after which a run is judged, with the rung of each; where two fall together, the later.

    Fractions are of the last phase, which has a schedule of its own. The last epoch is no rung: a trial that gets there
    is complete.
    """
    fractions = sorted(fractions)
    epochs = dict(zip(level_epochs(recipe, fractions), fractions, strict=True))
    return {epoch: fraction for epoch, fraction in epochs.items() if epoch < recipe.epochs}


def group_of(recipe: Recipe) -> Group:
    """Whose trials it is compared with: half annealed, a run beats one at a constant rate, but not at the end."""
    return Group(recipe.schedule.rungs, len(recipe.phases()))


def _mean_length(stops: Sequence[float], end: float, keep: float, let_through: float) -> float:
    """Of runs to `end` of which the share `keep` goes on at each stop, and of the rest `let_through`."""
    length, left = 0.0, 1.0
    for stop in stops:
        length += left * (1 - keep) * (let_through * end + (1 - let_through) * stop)
        left *= keep
    return length + left * end
