"""The judge of a search: keeps the scores at every rung, and decides by the scheduler's rule whether a trial goes on.

After an interruption it is rebuilt from the record. A rung is a set of scores, so the order in which they come does not
matter, and a decision is stored as a fact of its trial, so none is made twice. Nothing here knows Ray.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cifar_tune.search.forecast import Forecast
from cifar_tune.search.rungs import Rung, Standings
from cifar_tune.search.schedulers import BaseScheduler
from cifar_tune.trials.facts import LET_THROUGH, RUNGS, STOPPED_AT
from cifar_tune.trials.trial import Trial


@dataclass(frozen=True)
class Judgement:
    """Whether a trial goes on, and the facts about it to record."""

    goes_on: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)


class Judge:
    """The scores at every rung of a search with this `--seed`; only the scheduler `forecast` needs its Forecast."""

    def __init__(self, scheduler: BaseScheduler, seed: int, forecast: Forecast | None = None) -> None:
        self._scheduler = scheduler
        self._seed = seed
        self._forecast = forecast
        self._standings: dict[Rung, Standings] = defaultdict(Standings)
        self._costs: dict[Rung, dict[int, float]] = defaultdict(dict)  # the cost that the search minimizes

    def note(self, trial: Trial) -> Rung | None:
        """Store the trial's score if it is at a rung after its last epoch; that rung, or None between rungs.

        A trial that was let through earlier (trained on although its rung would have stopped it) is not stored: other
        trials are not compared with it.
        """
        rung = self._scheduler.rung(trial)
        if rung is None or trial.epochs > trial.facts.get(LET_THROUGH, trial.epochs):
            return None
        self._standings[rung].add(trial.number, self._scheduler.score(trial))
        self._costs[rung][trial.number] = _cost(trial)
        return rung

    def judge(self, trial: Trial) -> Judgement:
        """Store the trial's score, and decide whether it goes on; between rungs it always does."""
        rung = self.note(trial)
        if rung is None:
            return Judgement()
        passed = trial.facts.get(RUNGS, {})
        if str(trial.epochs) in passed or STOPPED_AT in trial.facts:
            return Judgement()  # judged before an interruption, by the scores of that time
        facts = {RUNGS: {**passed, str(trial.epochs): rung.fraction}}
        if trial.is_baseline or self._scheduler.passes(trial, self._rivals(trial, rung), self._forecast):
            return Judgement(True, facts)
        if self._scheduler.is_let_through(trial.number, self._seed):
            return Judgement(True, {**facts, LET_THROUGH: trial.epochs})
        return Judgement(False, {STOPPED_AT: rung.fraction})

    def _rivals(self, trial: Trial, rung: Rung) -> Standings:
        """The scores to compare with, by trial; where the search minimizes a cost, of trials that cost no more."""
        standings, costs = self._standings[rung], self._costs[rung]
        if not trial.goal.minimize:
            return standings
        own = costs[trial.number]
        return Standings({number: score for number, score in standings.by_number.items() if costs[number] <= own})


def _cost(trial: Trial) -> float:
    """The trial's cost so far, of the kind that its search minimizes; 0 where it minimizes none."""
    minimize = trial.goal.minimize
    cost = trial.cost(minimize) if minimize else 0.0
    return math.inf if cost is None else cost
