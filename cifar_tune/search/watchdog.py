"""Notices trials that take too long: beyond the time limit of the search, or so long that they must have hung."""

import time

from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_clock

HUNG = 20.0  # times the longest epoch of the search so far, without an epoch's end
LONGEST_LOOK = 10.0  # seconds between two looks; what is longer is a suspended process or machine, and does not count
SHORTEST, FIRST = 3600.0, 24 * 3600.0  # seconds: no shorter silence is a hang; one before any epoch has ended


class Watchdog:
    """Follows the running trials; `minutes_per_trial` is the time limit of each, None for no limit."""

    def __init__(self, minutes_per_trial: float | None) -> None:
        self._limit = None if minutes_per_trial is None else 60 * minutes_per_trial
        self._longest_epoch: float | None = None
        self._last_sign: dict[int, float] = {}  # when a trial started or ended an epoch
        self._now = 0.0
        self._looked_at = time.monotonic()

    def note(self, trial: Trial) -> None:
        """A trial started, or ended an epoch."""
        self._last_sign[trial.number] = self._look_at_the_clock()
        if trial.curve:
            self._longest_epoch = max(self._longest_epoch or 0.0, trial.curve[-1]["seconds"])

    def overdue(self, trial: Trial) -> str | None:
        """Why a running trial is to be ended; None for one that is in time."""
        now = self._look_at_the_clock()
        silence = now - self._last_sign.setdefault(trial.number, now)
        if self._limit is not None and trial.seconds + silence > self._limit:
            return f"It took longer than the {format_clock(self._limit)} that the search allows a trial."
        patience = FIRST if self._longest_epoch is None else max(SHORTEST, HUNG * self._longest_epoch)
        return f"It hung: no epoch ended within {format_clock(patience)}." if silence > patience else None

    def _look_at_the_clock(self) -> float:
        """The seconds that this process has run."""
        now = time.monotonic()
        self._now += min(now - self._looked_at, LONGEST_LOOK)
        self._looked_at = now
        return self._now
