"""Schedulers: the rules by which trials are stopped early. A new pruning rule is a class here, with its own options.

A trial is judged at its rungs, which lie at fractions of its learning-rate schedule (rungs.py). A rule compares its
score with those of the trials that reached the same rung; judge.py keeps these scores. A rule may also pause a trial,
which then leaves its worker with a checkpoint, and choose among the paused ones whenever a worker is free. Baselines
are never stopped nor paused.
"""

import math
import random
from collections.abc import Collection, Sequence
from itertools import accumulate, islice
from statistics import mean, median
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cifar_tune.recipe.options import Count, Options, Share, part_of
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.forecast import LEVELS, Forecast, Precedence
from cifar_tune.search.rungs import ALL_TRIALS, Group, Rung, Standings, Waiting, group_of, rung_epochs
from cifar_tune.trials.trial import Trial

NUM_MEDIAN_TRIALS = 3  # a median of fewer says little; Ray's rule waits for as many
GOLDEN = (math.sqrt(5) - 1) / 2
DOUBLING = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
SHARE_TRAINED = 0.32  # of a trial's epochs after its first rung, on average, where trials are frozen and thawed

Keep = Annotated[float, Field(gt=0, le=1)]
Verdict = Literal["continue", "pause", "stop"]


class BaseScheduler(Options):
    """What a search asks of every scheduler: where a trial is judged, by which score, and whether it passes.

    One that pauses trials also says where it may do so, and which paused trial goes on. Fractions are those of the
    schedule of the last phase or, where the class says so, `of_whole` trainings.
    """

    of_whole: ClassVar[bool] = False

    def levels(self, recipe: Recipe) -> tuple[float, ...]:
        """The fractions at whose scores the forecast learns, in a search with this baseline."""
        return LEVELS

    def expected_epochs(self, recipe: Recipe) -> float:
        """The mean number of epochs that trials of the recipe are trained for, in the long run."""
        return recipe.epochs

    def rung(self, trial: Trial) -> Rung | None:
        """The rung that the trial has reached with its last epoch; None between rungs."""
        return None

    def score(self, trial: Trial) -> float:
        """The score with which other trials are compared."""
        raise NotImplementedError

    def verdict(self, trial: Trial, rivals: Standings, forecast: Forecast | None) -> Verdict:
        """What becomes of a trial at a rung; `rivals` has the scores there, its own among them."""
        return "continue" if self.passes(trial, rivals, forecast) else "stop"

    def passes(self, trial: Trial, rivals: Standings, forecast: Forecast | None) -> bool:
        """Whether a trial goes on; `rivals` as above."""
        raise NotImplementedError

    def pauses(self, recipe: Recipe) -> Collection[int]:
        """The epochs after which a trial of the recipe may be paused; its worker saves a checkpoint there."""
        return ()

    def thaws(self, paused: Sequence[Waiting], forecast: Forecast | None, *, can_begin: bool) -> int | None:
        """The number of the paused trial that goes on; None for a new trial, or for none where no more `can_begin`.

        When nothing runs and no more can begin, None ends the search. The planner may ask from its own thread.
        """
        return None

    def promises(self, paused: Sequence[Waiting], forecast: Forecast | None) -> Sequence[float]:
        """How promising each paused trial is; where too many are paused, the least promising ones are given up.

        By default the share of the trials at its rung that are not ahead of it.
        """
        return [1 - waiting.share_ahead for waiting in paused]

    def is_let_through(self, number: int, seed: int) -> bool:
        """Whether a trial that does not pass is trained on nevertheless; the same for a number and a seed each time."""
        raise NotImplementedError


class NoStopping(BaseScheduler):
    """Every trial is trained to its end."""

    name: Literal["none"] = "none"


class _AtRungs(BaseScheduler):
    """Judges trials at `rungs`, or at the rungs of each trial's own schedule where none are given."""

    rungs: tuple[Share, ...] | None = None

    def brackets(self, fractions: Sequence[float]) -> list[tuple[float, Sequence[float]]]:
        """The share of the trials in each bracket, and the bracket's rungs; one bracket with all rungs by default."""
        return [(1.0, fractions)]

    def rung(self, trial: Trial) -> Rung | None:
        """The rung by the trial's recipe and by its number, which decides its bracket."""
        brackets = self.brackets(self._fractions(trial.recipe))
        # Multiples of the golden ratio spread evenly over the brackets, from the first few trials on.
        place = trial.number * GOLDEN % 1
        bracket = sum(place >= edge for edge in accumulate(share for share, _ in brackets[:-1]))
        fraction = self._rung_epochs(trial.recipe, brackets[bracket][1]).get(trial.epochs)
        return None if fraction is None else Rung(self.group(trial.recipe), bracket, fraction)

    def group(self, recipe: Recipe) -> Group:
        """The group of trials that the recipe's are compared with."""
        return group_of(recipe)

    def score(self, trial: Trial) -> float:
        """The score so far, as a report would show it now."""
        assert trial.score is not None
        return trial.score

    def _fractions(self, recipe: Recipe) -> tuple[float, ...]:
        return tuple(sorted(recipe.schedule.rungs if self.rungs is None else self.rungs))

    def _rung_epochs(self, recipe: Recipe, fractions: Sequence[float]) -> dict[int, float]:
        return rung_epochs(recipe, fractions, of_whole=self.of_whole)


class _Stopping(_AtRungs):
    """Stops trials at rungs.

    A share `let_through` of the trials that would be stopped is trained to the end all the same: how these end shows
    what stopping the others may have lost.
    """

    let_through: Share = 0.05

    @property
    def pass_rate(self) -> float:
        """The share of the trials at a rung that passes it, in the long run."""
        raise NotImplementedError

    def expected_epochs(self, recipe: Recipe) -> float:
        """The mean over brackets, which counts the trials that are let through."""
        return sum(
            share
            * _mean_length(list(self._rung_epochs(recipe, rungs)), recipe.epochs, self.pass_rate, self.let_through)
            for share, rungs in self.brackets(self._fractions(recipe))
        )

    def is_let_through(self, number: int, seed: int) -> bool:
        """A random share, whatever the scores are, so that it is a fair sample of the trials that do not pass."""
        return random.Random(f"{seed} {number}").random() < self.let_through


class _Halving(_Stopping):
    """Only the best share `keep` of the trials that have reached a rung so far passes it.

    This is asynchronous successive halving in its stopping form (ASHA, Li et al., arXiv:1810.05934). Unlike in Ray's, a
    rung lies at a fraction of the trial's own schedule, and `keep` does not depend on the spacing of the rungs.
    """

    keep: Keep = 0.5

    @property
    def pass_rate(self) -> float:
        """The share `keep`; more pass where the sampler learns, because later trials are better than earlier ones."""
        return self.keep

    def passes(self, trial: Trial, rivals: Standings, forecast: Forecast | None) -> bool:
        """Whether it is among the best; the best one always passes, and so do its equals."""
        return rivals.num_above(rivals.by_number[trial.number]) < max(1, part_of(self.keep, len(rivals)))


class Asha(_Halving):
    """Successive halving in which every trial is judged at every rung."""

    name: Literal["asha"] = "asha"


class Hyperband(_Halving):
    """Successive halving in brackets, each of which begins one rung later; the last stops no trial (arXiv:1603.06560).

    It suits a search for which it is unknown how early scores can be trusted. A trial's number decides its bracket.
    Trials are compared within their bracket, and each bracket gets about the same number of epochs.
    """

    name: Literal["hyperband"] = "hyperband"

    def brackets(self, fractions: Sequence[float]) -> list[tuple[float, Sequence[float]]]:
        """All rungs, all but the first, and so on to none; shares in inverse proportion to the mean lengths of runs."""
        brackets = [fractions[first:] for first in range(len(fractions) + 1)]
        weights = [1 / _mean_length(rungs, 1.0, self.keep, self.let_through) for rungs in brackets]
        return [(weight / sum(weights), rungs) for weight, rungs in zip(weights, brackets, strict=True)]


class _Pausing(_AtRungs):
    """Stops no trial, but pauses them at rungs."""

    def pauses(self, recipe: Recipe) -> Collection[int]:
        """The epochs of the rungs."""
        return self._rung_epochs(recipe, self._fractions(recipe)).keys()


class Promotion(_Pausing):
    """Successive halving that stops no trial: each is paused at every rung, and the best ones are promoted from there.

    This is ASHA as it was published (Li et al., arXiv:1810.05934); `Asha` is its stopping form. A worker that is free
    takes up the best paused trial among the best share `keep` of all trials at its rung, from the highest rung that
    has one; otherwise a new trial begins. So a trial that a rung's first few scores would have let pass waits for
    better ones, and one that they would have stopped may still go on. What is paused at the end is pruned.
    """

    name: Literal["asha-promotion"] = "asha-promotion"
    keep: Keep = 0.5

    def expected_epochs(self, recipe: Recipe) -> float:
        """The mean where the share `keep` of the trials at each rung is promoted, as happens in the long run."""
        return _mean_length(sorted(self.pauses(recipe)), recipe.epochs, self.keep, 0.0)

    def verdict(self, trial: Trial, rivals: Standings, forecast: Forecast | None) -> Verdict:
        """A pause, whatever the scores are."""
        return "pause"

    def thaws(self, paused: Sequence[Waiting], forecast: Forecast | None, *, can_begin: bool) -> int | None:
        """The best one that its rung promotes, the highest rung first; of equals, the earlier one."""
        return _furthest([waiting for waiting in paused if self._is_promoted(waiting)])

    def _is_promoted(self, waiting: Waiting) -> bool:
        """Whether it is among the best share `keep`, rounded down: a rung with few trials promotes none."""
        num_best = math.floor(self.keep * len(waiting.rivals) + 1e-9)  # 0.29 of 100 is 29, and its float is below
        return waiting.rivals.num_ahead(waiting.trial.number) < num_best


class FreezeThaw(_Pausing):
    """Pauses trials from their first epochs on, and gives the next epochs to whoever promises most, new or paused.

    Freeze-thaw Bayesian optimisation (Swersky et al., arXiv:1406.3896): one forecast of final scores (forecast.py)
    decides between all paused trials and the best new recipe (priorities.py). It needs the sampler `forecast`. A search
    too short for a forecast promotes the better half of its trials. Rungs are fractions of whole trainings, because the
    forecast learns what the scores of a first phase are worth, and its epochs cost little.
    """

    of_whole: ClassVar[bool] = True
    name: Literal["freeze-thaw"] = "freeze-thaw"
    rungs: tuple[Share, ...] = DOUBLING

    def levels(self, recipe: Recipe) -> tuple[float, ...]:
        """The rungs that lie at different epochs of the recipe."""
        return tuple(sorted(self._rung_epochs(recipe, self.rungs).values()))

    def expected_epochs(self, recipe: Recipe) -> float:
        """A share of the epochs that was seen in simulated searches; no rule decides it."""
        first = min(self.pauses(recipe), default=recipe.epochs)
        return first + SHARE_TRAINED * (recipe.epochs - first)

    def group(self, recipe: Recipe) -> Group:
        """All trials: final scores can be compared whatever the schedule is."""
        return ALL_TRIALS

    def verdict(self, trial: Trial, rivals: Standings, forecast: Forecast | None) -> Verdict:
        """It goes on if it promises more than what would be taken up in its place."""
        priorities = _priorities(forecast)
        return "continue" if priorities is not None and priorities.goes_on(trial.number) else "pause"

    def thaws(self, paused: Sequence[Waiting], forecast: Forecast | None, *, can_begin: bool) -> int | None:
        """The most promising one, if no new recipe promises more; where no more can begin, only if it may be the best.

        Without a forecast, and where no more can begin, the best of the better half at the highest rung.
        """
        assert forecast is not None
        forecast.fit()
        if (priorities := _priorities(forecast)) is not None:
            return priorities.choose([waiting.trial.number for waiting in paused], can_begin=can_begin)
        return None if can_begin else _furthest([waiting for waiting in paused if waiting.is_in_better_half])

    def promises(self, paused: Sequence[Waiting], forecast: Forecast | None) -> Sequence[float]:
        """The expected final scores."""
        expected = forecast.expect([waiting.trial.number for waiting in paused]) if forecast else {}
        return list(expected.values()) or super().promises(paused, forecast)


def _furthest(paused: Sequence[Waiting]) -> int | None:
    """The number of the best paused trial at the highest rung; of equals, the earlier one. None of no trials."""
    ranked = sorted(paused, key=lambda each: (-each.rung.fraction, each.share_ahead, each.trial.number))
    return ranked[0].trial.number if ranked else None


def _priorities(forecast: Forecast | None) -> Precedence | None:
    """Who goes first by the forecast; None before the first fit."""
    assert forecast is not None
    return forecast.priorities if forecast.model is not None else None


class Median(_Stopping):
    """A trial passes if its best score so far is no lower than the median of the other trials' mean scores so far.

    This is Google Vizier's median stopping rule (Golovin et al., KDD 2017, section 3.2.2), applied at rungs. As in Ray,
    and unlike in Vizier and Optuna's MedianPruner, trials count that still run or were stopped later: with completed
    trials alone the median would rise with every stopped trial. No trial is stopped before the share `grace` of its
    schedule.
    """

    name: Literal["median"] = "median"
    grace: Share = 0.25

    @property
    def pass_rate(self) -> float:
        """Half of the trials; in truth somewhat more, because a trial's best score lies above its mean."""
        return 0.5

    def score(self, trial: Trial) -> float:
        """The mean over its epochs."""
        return mean(trial.scores)  # exact: a rounded mean of equal scores could lie above them

    def passes(self, trial: Trial, rivals: Standings, forecast: Forecast | None) -> bool:
        """Whether it reaches the median of the others; always while there are too few of them."""
        others = [score for number, score in rivals.by_number.items() if number != trial.number]
        return len(others) < NUM_MEDIAN_TRIALS or max(trial.scores) >= median(others)

    def _fractions(self, recipe: Recipe) -> tuple[float, ...]:
        return tuple(fraction for fraction in super()._fractions(recipe) if fraction >= self.grace)


class ByForecast(_Halving):
    """Only the best share `keep` of the latest `window` trials at a rung passes, by their forecast final scores.

    The forecast follows from the recipe and from the scores of all trials (forecast.py). So trials with different
    schedules are compared, and a rung may lie where a high learning rate still hides the final score. Only the latest
    trials are compared because the sampler learns: nearly all its later recipes are better than most of the first ones.
    """

    name: Literal["forecast"] = "forecast"
    rungs: tuple[Share, ...] = LEVELS
    keep: Keep = 1 / 6
    window: Count = 12
    let_through: Share = 0.02  # five trials in six do not pass, and each that is let through costs most of a training

    def levels(self, recipe: Recipe) -> tuple[float, ...]:
        """The rungs."""
        return tuple(sorted(self.rungs))

    @property
    def pass_rate(self) -> float:
        """The share of a full window that passes; at least one trial does."""
        return max(1, part_of(self.keep, self.window)) / self.window

    def group(self, recipe: Recipe) -> Group:
        """All trials: final scores can be compared whatever the schedule is."""
        return ALL_TRIALS

    def passes(self, trial: Trial, rivals: Standings, forecast: Forecast | None) -> bool:
        """Whether its forecast is among the best; its score, while the forecast has too little to learn from."""
        assert forecast is not None
        others = (number for number in rivals.latest() if number != trial.number and forecast.has_score(number))
        compared = [trial.number, *islice(others, self.window - 1)]
        expected = forecast.expect(compared) or rivals.by_number
        return super().passes(trial, Standings({number: expected[number] for number in compared}), forecast)


Scheduler = Annotated[
    Asha | Promotion | NoStopping | Hyperband | Median | ByForecast | FreezeThaw, Field(discriminator="name")
]


def _mean_length(stops: Sequence[float], end: float, keep: float, let_through: float) -> float:
    """The mean length of runs to `end`: the share `keep` passes each stop, of the others `let_through` run on to it."""
    length, left = 0.0, 1.0
    for stop in stops:
        length += left * (1 - keep) * (let_through * end + (1 - let_through) * stop)
        left *= keep
    return length + left * end
