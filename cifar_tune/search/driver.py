"""The driver of a search, without Ray: which trial is next, whether one goes on after an epoch, how it ended.

ray_tune.py lets Ray Tune call it. Every change goes to the record first and then to the observers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from cifar_tune.search.judge import Judge
from cifar_tune.search.record import Record
from cifar_tune.trials.trial import State, Trial


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
        self.num_left = record.num_left(num_trials)  # trials to start or to resume
        self._observers = observers
        self._judge = Judge(record.space.search.scheduler, record.seed, record.forecast)
        for trial in [*record.prior_trials(), *record.trials()]:
            for num_epochs in range(1, trial.epochs + 1):
                self._judge.note(replace(trial, state="running", curve=trial.curve[:num_epochs]))

    @property
    def is_over(self) -> bool:
        """Whether no trial is left and none runs."""
        return self.num_left == 0 and self.record.num_live == 0

    def next_trial(self) -> Trial:
        """Start the next trial, or resume an interrupted one."""
        self.num_left -= 1
        return self._notify(self.record.start_trial())

    def add_epoch(self, number: int, metrics: Mapping[str, float], facts: Mapping[str, Any]) -> bool:
        """Record an epoch, and return whether the trial goes on; one that does not is closed here."""
        if self.record.has_later_epoch(number, metrics):
            return True  # judged when it was recorded
        self.record.add_facts(number, facts)
        trial = self.record.add_epoch(number, metrics)
        judgement = self._judge.judge(trial)
        if trial.epochs == trial.recipe.epochs:
            self.finish(number, "completed")
        elif trial.recipe.stops(trial.accuracies):
            self.finish(number, "stopped early")
        elif not judgement.goes_on:
            self.finish(number, "pruned", facts=judgement.facts)
        else:
            self._notify(self.record.add_facts(number, judgement.facts))
            return True
        return False

    def finish(
        self, number: int, state: State, *, facts: Mapping[str, Any] | None = None, error: str | None = None
    ) -> None:
        """Close a trial in its final state."""
        if facts:
            self.record.add_facts(number, facts)
        self._notify(self.record.finish_trial(number, state, error))

    def interrupt(self) -> None:
        """Leave running trials to be resumed later."""
        for trial in self.record.interrupt_all():
            self._notify(trial)

    def tick(self) -> None:
        """Let the observers refresh."""
        for observer in self._observers:
            observer.tick()

    def _notify(self, trial: Trial) -> Trial:
        for observer in self._observers:
            observer.update(trial)
        return trial
