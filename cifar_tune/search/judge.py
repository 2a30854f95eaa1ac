"""The judge of a search: keeps the scores at every rung, and asks the scheduler which trials go on.

After an interruption it is rebuilt from the record. A rung is a set of scores, so the order in which they come does not
matter, and a decision is stored as a fact of its trial, so none is made twice. A trial that is paused at a rung has no
such fact until it goes on or is pruned. Nothing here knows Ray.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from cifar_tune.search.forecast import Forecast
from cifar_tune.search.rungs import Rung, Standings, Waiting
from cifar_tune.search.schedulers import BaseScheduler, Verdict
from cifar_tune.trials.facts import LET_THROUGH, RUNGS, STOPPED_AT
from cifar_tune.trials.trial import Trial


@dataclass(frozen=True)
class Judgement:
    """What becomes of a trial, and the facts about it to record."""

    verdict: Verdict = "continue"
    facts: Mapping[str, Any] = field(default_factory=dict)


class Judge:
    """The scores at every rung of a search with this `--seed`; the Forecast is for schedulers that use one.

    One thread judges, while another may ask which paused trial goes on.
    """

    def __init__(self, scheduler: BaseScheduler, seed: int, forecast: Forecast | None = None) -> None:
        self._scheduler = scheduler
        self._seed = seed
        self._forecast = forecast
        self._lock = Lock()  # guards the scores
        self._standings: dict[Rung, Standings] = defaultdict(Standings)
        self._costs: dict[Rung, dict[int, float]] = defaultdict(dict)  # the cost that the search minimizes
        self._baselines: set[int] = set()  # the numbers of those with a score

    def note(self, trial: Trial) -> Rung | None:
        """Store the trial's score if it is at a rung after its last epoch; that rung, or None between rungs.

        A trial that was let through earlier (trained on although its rung would have stopped it) is not stored: other
        trials are not compared with it.
        """
        rung = self._scheduler.rung(trial)
        if rung is None or trial.epochs > trial.facts.get(LET_THROUGH, trial.epochs):
            return None
        with self._lock:
            self._standings[rung].add(trial.number, self._scheduler.score(trial))
            self._costs[rung][trial.number] = _cost(trial)
            if trial.is_baseline:
                self._baselines.add(trial.number)
        return rung

    def judge(self, trial: Trial) -> Judgement:
        """Store the trial's score, and decide what becomes of it; between rungs it always goes on."""
        rung = self.note(trial)
        if rung is None:
            return Judgement()
        passed = trial.facts.get(RUNGS, {})
        if str(trial.epochs) in passed or STOPPED_AT in trial.facts:
            return Judgement()  # judged before an interruption, by the scores of that time
        facts = _passing(trial, rung)
        if trial.is_baseline:
            return Judgement("continue", facts)
        rivals = _rivals(trial, self._standings[rung], self._costs[rung])
        verdict = self._scheduler.verdict(trial, rivals, self._forecast)
        if verdict == "stop" and self._scheduler.is_let_through(trial.number, self._seed):
            return Judgement("continue", {**facts, LET_THROUGH: trial.epochs})
        return Judgement(verdict, {"continue": facts, "pause": {}, "stop": _stopping(rung)}[verdict])

    def pauses(self, trial: Trial) -> Collection[int]:
        """The epochs after which the trial may be paused; none for a baseline."""
        return () if trial.is_baseline else self._scheduler.pauses(trial.recipe)

    def thaws(self, paused: Sequence[Trial], *, can_begin: bool) -> int | None:
        """The number of the paused trial that goes on; None for a new one, or for none where no more `can_begin`."""
        waiting = self._waiting(paused)
        return self._scheduler.thaws(waiting, self._forecast, can_begin=can_begin) if waiting else None

    def least_promising(self, paused: Sequence[Trial]) -> Trial:
        """The paused trial that is given up first; of equals, the latest one."""
        waiting = self._waiting(paused)
        promises = self._scheduler.promises(waiting, self._forecast)
        by_number = {each.trial.number: promise for each, promise in zip(waiting, promises, strict=True)}
        return min(paused, key=lambda trial: (by_number.get(trial.number, -math.inf), -trial.number))

    def thawing(self, trial: Trial) -> dict[str, Any]:
        """The facts about a paused trial that goes on: it has passed its rung."""
        rung = self._scheduler.rung(trial)
        return _passing(trial, rung) if rung else {}

    def pruning(self, trial: Trial) -> dict[str, Any]:
        """The facts about a paused trial that is given up: its rung has stopped it."""
        rung = self._scheduler.rung(trial)
        return _stopping(rung) if rung else {}

    def _waiting(self, paused: Sequence[Trial]) -> list[Waiting]:
        """The paused trials with their rungs and the scores there, which do not change any more."""
        places = [(trial, self._scheduler.rung(trial)) for trial in paused]
        with self._lock:
            rungs = {rung for _, rung in places if rung is not None}
            standings = {rung: self._standings[rung].copy() for rung in rungs}
            costs = {rung: dict(self._costs[rung]) for rung in rungs}
        return [
            Waiting(trial, rung, _rivals(trial, standings[rung], costs[rung]), self._baselines)
            for trial, rung in places
            if rung is not None and trial.number in costs[rung]
        ]


def _passing(trial: Trial, rung: Rung) -> dict[str, Any]:
    return {RUNGS: {**trial.facts.get(RUNGS, {}), str(trial.epochs): rung.fraction}}


def _stopping(rung: Rung) -> dict[str, Any]:
    return {STOPPED_AT: rung.fraction}


def _rivals(trial: Trial, standings: Standings, costs: Mapping[int, float]) -> Standings:
    """The scores to compare with, by trial; where the search minimizes a cost, of trials that cost no more."""
    if not trial.goal.minimize:
        return standings
    own = costs[trial.number]
    return Standings({number: score for number, score in standings.by_number.items() if costs[number] <= own})


def _cost(trial: Trial) -> float:
    """The trial's cost so far, of the kind that its search minimizes; 0 where it minimizes none."""
    minimize = trial.goal.minimize
    cost = trial.cost(minimize) if minimize else 0.0
    return math.inf if cost is None else cost
