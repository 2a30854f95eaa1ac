"""Which files of a finished trial are kept: observers of a search that delete the others.

The files are named in store.py. A trial that still runs, or waits to be resumed, keeps all that it has.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from cifar_tune.store import STATE, Store
from cifar_tune.trials.ranking import best_trials
from cifar_tune.trials.trial import Trial


class BestWeights:
    """Keeps the weights of the best trial, or of the Pareto front, and deletes all other files. An Observer."""

    def __init__(self, store: Store, trials: Sequence[Trial]) -> None:
        self._store = store
        self._best: list[Trial] = []
        for trial in trials:  # a process that was killed may have left files of finished trials
            self.update(trial)

    def update(self, trial: Trial) -> None:
        """Delete the folders of trials that are no longer among the best, once the trial is over."""
        if not trial.is_over:
            return
        candidates = [*self._best, trial]
        self._best = best_trials(candidates)
        for candidate in candidates:
            if candidate not in self._best:
                shutil.rmtree(_folder(self._store, candidate), ignore_errors=True)
        if trial in self._best:
            _delete_state(self._store, trial)

    def tick(self) -> None:
        """Do nothing: files change only when a trial ends."""


class EveryResult:
    """Keeps what every trial was trained for, its weights or its hits, and deletes its checkpoint. An Observer."""

    def __init__(self, store: Store, trials: Sequence[Trial]) -> None:
        self._store = store
        for trial in trials:  # as above
            self.update(trial)

    def update(self, trial: Trial) -> None:
        """Delete the checkpoint once the trial is over."""
        if trial.is_over:
            _delete_state(self._store, trial)

    def tick(self) -> None:
        """Do nothing: files change only when a trial ends."""


def _delete_state(store: Store, trial: Trial) -> None:
    (_folder(store, trial) / STATE).unlink(missing_ok=True)


def _folder(store: Store, trial: Trial) -> Path:
    return store.trial(trial.search, trial.number)
