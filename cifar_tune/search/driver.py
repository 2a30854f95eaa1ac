"""The driver of a search, without Ray: which trial is next, whether one goes on after an epoch, how it ended.

The next trial is an interrupted one, or the paused one that the scheduler chooses, or a new one. The search is over
when nothing runs, none is left to begin, and the scheduler takes up none of the paused ones; these are pruned then.

ray_tune.py lets Ray Tune call it. Every change is written to the record before an observer hears of it.
"""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from cifar_tune.search.crashes import kind_of, reason_of
from cifar_tune.search.draws import NoTrialLeftError
from cifar_tune.search.judge import Judge
from cifar_tune.search.record import Record
from cifar_tune.search.watchdog import Watchdog
from cifar_tune.trials.facts import STATE_BYTES
from cifar_tune.trials.trial import State, Trial

MAX_ALIKE = 3  # failures of one kind in a row that stop a search: then the cause is not in the recipes
MAX_FAILURES = 6  # the same, for failures of any kinds
# Epochs that follow one another faster are written together and told then: a transaction costs as much as all else.
# A kill loses less by it than by the time since a trial's last checkpoint.
SECONDS_TOGETHER = 0.25
MAX_PAUSED, MAX_PAUSED_BYTES = 100, 10 * 2**30  # trials that wait with their checkpoints, and what these may take


class Observer(Protocol):
    """An object that follows a search: MLflow, the live display, the keeper of the best weights."""

    def update(self, trial: Trial) -> None:
        """A trial started, trained another epoch or ended; `trial` is all that is known of it now."""

    def tick(self) -> None:
        """Called several times a second, whether or not anything happened."""


class Driver:
    """Drives one search to `num_trials` trials; its judge is rebuilt from the trials in the record."""

    def __init__(self, record: Record, num_trials: int, observers: Sequence[Observer]) -> None:
        self.record = record
        self.fault: str | None = None  # why the search has to stop: trials fail in a row, or its baseline fails
        self._untold: dict[int, Trial] = {}  # trials that changed since the observers were told, by number
        self._told_at = -math.inf  # in seconds
        self._last_failures: list[str] = []  # the kinds of the failures since a trial last ended otherwise
        self.num_left = record.num_to_start(num_trials)  # trials to start or to resume, without paused ones
        self._num_changes = 0  # of anything by which the scheduler chooses among paused trials
        self._refused_at = -1  # the number of changes at which it took up none of them, when no other trial was left
        self._observers = observers
        self._watchdog = Watchdog(record.space.search.minutes_per_trial)
        self._judge = Judge(record.space.search.scheduler, record.seed, record.forecast)
        for trial in [*record.prior_trials(), *record.trials()]:
            for num_epochs in range(1, trial.epochs + 1):
                self._judge.note(replace(trial, state="running", curve=trial.curve[:num_epochs]))

    @property
    def is_over(self) -> bool:
        """Whether no trial is left and none runs."""
        if self.num_left or self.record.num_live:
            return False
        return self.record.num_paused == 0 or (self._is_refused and self.num_prepared == 0)

    def next_trial(self) -> Trial:
        """Start the next trial, resume an interrupted one, or take up a paused one.

        Raises a NoTrialLeftError if there is none: no recipe of the space is left to try, and then `num_left` is 0, or
        the scheduler takes up none of the paused trials.
        """
        if self.num_prepared == 0:
            self._prepare_now()
        with self.record.unwritten():
            was_paused = self.record.is_next_paused
            trial = self.record.start_trial()
            if was_paused:
                trial = self.record.add_facts(trial.number, self._judge.thawing(trial))
        self.num_left -= not was_paused
        self._watchdog.note(trial)
        return self._notify(trial)

    def _prepare_now(self) -> None:
        try:
            self.prepare()
        except NoTrialLeftError:
            self.leave_rest()
            self.prepare()
        if self.num_prepared == 0:
            raise NoTrialLeftError

    @property
    def num_prepared(self) -> int:
        """The number of trials that `next_trial` starts at once."""
        return self.record.num_prepared

    @property
    def can_prepare(self) -> bool:
        """Whether `prepare` may give another trial: one is left to begin, or a paused one may be taken up."""
        return self._num_unprepared > 0 or (self.record.has_paused and not self._is_refused)

    @property
    def can_start(self) -> bool:
        """Whether `next_trial` may have a trial."""
        return self.num_prepared > 0 or self.can_prepare

    @property
    def _is_refused(self) -> bool:
        """Whether the scheduler takes up none of the paused trials, as things are now, though no other is left."""
        return self._refused_at == self._num_changes

    @property
    def _num_unprepared(self) -> int:
        """The number of trials to start or to resume that are not prepared."""
        return self.num_left - (self.num_prepared - self.record.num_prepared_paused)

    def prepare(self) -> None:
        """Choose one more trial, perhaps in another thread; raises what `next_trial` would.

        None is chosen where the scheduler takes up no paused trial, and no other is left.
        """
        num_changes, can_begin = self._num_changes, self._num_unprepared > 0
        number = None
        if not self.record.has_interrupted:
            number = self._judge.thaws(self.record.paused_trials(), can_begin=can_begin)
        if number is not None:
            self.record.prepare_paused(number)
        elif can_begin:
            self.record.prepare()
        else:
            self._refused_at = num_changes

    def pauses(self, trial: Trial) -> Collection[int]:
        """The epochs after which the trial may be paused, with a checkpoint of that epoch."""
        return self._judge.pauses(trial)

    def warm_up(self) -> None:
        """Import what later choices need, if there will be any that need more than the first ones."""
        self.record.warm_up(self.num_left)

    def leave_rest(self) -> None:
        """Start no more trials, because no recipe is left to try; those that were put back or paused may go on."""
        self.num_left = self.record.num_to_start(0)
        self.record.save()

    def add_epoch(self, number: int, metrics: Mapping[str, float], facts: Mapping[str, Any]) -> bool:
        """Record an epoch, and return whether the trial goes on; one that does not is closed or paused here."""
        if self.record.has_later_epoch(number, metrics):
            return True  # judged when it was recorded
        with self.record.unwritten():
            self.record.add_facts(number, facts)
            trial = self.record.add_epoch(number, metrics)
            self._watchdog.note(trial)
            judgement = self._judge.judge(trial)
            if trial.epochs == trial.recipe.epochs:
                self.finish(number, "completed")
            elif trial.recipe.stops(trial.scores):
                self.finish(number, "stopped early")
            elif judgement.verdict == "stop":
                self.finish(number, "pruned", facts=judgement.facts)
            elif judgement.verdict == "pause":
                self._pause(number)
            else:
                self._num_changes += bool(judgement.facts)
                self._untold[number] = self.record.add_facts(number, judgement.facts)
                return True
            return False

    def _pause(self, number: int) -> None:
        """Leave a trial to be taken up again, and prune the least promising ones where too many wait."""
        with self.record.event():
            self._notify(self.record.pause_trial(number))
            while self._too_many_wait() and (paused := self.record.paused_trials()):
                self._prune_paused(self._judge.least_promising(paused))
        self._count_failure(None)

    def _too_many_wait(self) -> bool:
        """Whether more trials are paused than may be, or their checkpoints take more room."""
        size = sum(trial.facts.get(STATE_BYTES, 0) for trial in self.record.paused_trials())
        return self.record.num_paused > MAX_PAUSED or size > MAX_PAUSED_BYTES

    def _prune_paused(self, trial: Trial) -> None:
        pruned = self.record.prune_paused(trial.number, self._judge.pruning(trial))
        if pruned is not None:
            self._notify(pruned)

    def end_search(self) -> None:
        """Prune the trials that are still paused, because the search is over."""
        for trial in self.record.paused_trials():
            self._prune_paused(trial)

    def finish(
        self, number: int, state: State, *, facts: Mapping[str, Any] | None = None, error: str | None = None
    ) -> None:
        """Close a trial in its final state; a baseline that failed is left to be resumed, and stops the search."""
        with self.record.event():
            if facts:
                self.record.add_facts(number, facts)
            if state == "failed" and self.record.is_baseline(number):
                self.put_back(number, error or "")
                self.fault = f"The baseline failed: {reason_of(error)}."
                return
            self._notify(self.record.finish_trial(number, state, error))
        self._count_failure(error if state == "failed" else None)

    def put_back(self, number: int, error: str) -> None:
        """Leave a trial to be resumed, because what failed is the machine and not its recipe."""
        self._notify(self.record.put_back(number, error))
        self.num_left += 1
        self._count_failure(error)

    def _count_failure(self, error: str | None) -> None:
        """Note how a trial ended; the third failure alike in a row stops the search, and so does the sixth of any."""
        if error is None:
            self._last_failures.clear()
            return
        self._last_failures.append(kind_of(error))
        if self._last_failures[-MAX_ALIKE:] == [kind_of(error)] * MAX_ALIKE:
            self.fault = f"{MAX_ALIKE} trials in a row failed alike: {reason_of(error)}."
        elif len(self._last_failures) >= MAX_FAILURES:
            self.fault = f"{MAX_FAILURES} trials in a row failed, the last one with: {reason_of(error)}."

    def end_overdue(self) -> list[int]:
        """Fail the running trials that took too long; returns their numbers, whose workers are then to be ended."""
        overdue = {trial.number: self._watchdog.overdue(trial) for trial in self.record.live_trials()}
        for number, error in overdue.items():
            if error is not None:
                self.finish(number, "failed", error=error)
        return [number for number, error in overdue.items() if error is not None]

    def interrupt(self) -> None:
        """Leave running trials to be resumed later."""
        for trial in self.record.interrupt_all():
            self._notify(trial)

    def tick(self) -> None:
        """Write and tell the epochs since the last time, and let the observers refresh."""
        if self._untold and time.monotonic() > self._told_at + SECONDS_TOGETHER:
            self.write()
        for observer in self._observers:
            observer.tick()

    def _notify(self, trial: Trial) -> Trial:
        """Write a change with all that led to it, and tell the observers."""
        self._num_changes += 1
        self._untold[trial.number] = trial
        self.write()
        return trial

    def write(self) -> None:
        """Write what has changed, and tell the observers of those trials."""
        self.record.save()
        trials, self._untold = list(self._untold.values()), {}
        for trial in trials:
            for observer in self._observers:
                observer.update(trial)
        self._told_at = time.monotonic()
