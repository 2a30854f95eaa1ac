"""The planner: chooses the values of the next trials in a thread of its own, so that a free worker does not wait.

A trial is prepared as soon as the one before it is started, from all that is known then. Where workers had to wait
nevertheless, more are prepared ahead. But a choice knows more the later it is made: where it takes next to nothing of a
worker's time, it is made when a worker asks.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Condition, Thread

from cifar_tune.search.draws import NoTrialLeftError
from cifar_tune.search.driver import Driver
from cifar_tune.trials.trial import Trial

SECONDS_TO_END = 5.0  # to wait at the end for a choice that is under way
MOST_WAITING = 0.005  # share of a worker's time that it may wait for a choice that knows all
NUM_STARTS = 10  # of trials, over which the time between two of them is measured


class Planner:
    """Prepares the driver's next trials, at most `most_ahead` of them; `planning` runs it."""

    def __init__(self, driver: Driver, most_ahead: int) -> None:
        self._driver = driver
        self._most_ahead = most_ahead
        self._num_ahead = 1
        self._is_asked = False  # whether a worker is free
        self._choosing = 0.0  # seconds of the last choice
        self._num_started = 0
        self._starts: deque[float] = deque(maxlen=NUM_STARTS)
        self._changed = Condition()
        self._error: Exception | None = None
        self._is_closed = False
        self._thread = Thread(target=self._run, name="planner", daemon=True)

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Prepare trials within the block."""
        self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._is_closed = True
                self._changed.notify_all()
            self._thread.join(SECONDS_TO_END)

    def next_trial(self, patience: float) -> Trial | None:
        """Start the next trial; None if none is prepared after `patience` seconds, or if there is none now.

        Raises the error in which the choice of values ended.
        """
        with self._changed:
            is_first_ask, self._is_asked = not self._is_asked, True  # a worker that waits asks again and again
            self._changed.notify_all()
            if not self._is_ready:
                # At the start all workers ask at once, whatever is prepared.
                if is_first_ask and not self._is_quick and self._num_started >= self._most_ahead:
                    self._num_ahead = min(self._num_ahead + 1, self._most_ahead)
                # Meanwhile the scheduler may refuse all paused trials, and then there is nothing to wait for.
                self._changed.wait_for(lambda: self._is_ready or not self._driver.can_prepare, patience)
            if self._driver.num_prepared == 0:
                self._settle()
                return None
            trial = self._driver.next_trial()
            self._num_started += 1
            self._starts.append(time.monotonic())
            self._is_asked = False
            self._changed.notify_all()
            return trial

    @property
    def _is_ready(self) -> bool:
        return self._driver.num_prepared > 0 or self._error is not None

    @property
    def _is_idle(self) -> bool:
        """Whether enough is prepared."""
        if self._is_quick and not self._is_asked:
            return True
        return self._driver.num_prepared >= self._num_ahead or not self._driver.can_prepare

    @property
    def _is_quick(self) -> bool:
        """Whether a choice takes next to nothing of the time that a worker needs for a trial."""
        if len(self._starts) < NUM_STARTS:
            return False
        seconds = (self._starts[-1] - self._starts[0]) / (NUM_STARTS - 1) * self._most_ahead
        return self._choosing < MOST_WAITING * seconds

    def _settle(self) -> None:
        """Raise the error in which the choice of values ended; where no recipe is left, trials put back go on."""
        if isinstance(self._error, NoTrialLeftError):
            self._error = None
            self._driver.leave_rest()
            self._changed.notify_all()
        elif self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or (self._error is None and not self._is_idle))
                if self._is_closed:
                    return
            start, failure = time.monotonic(), None
            try:
                self._driver.prepare()
            except Exception as error:
                failure = error
            with self._changed:
                self._error = failure
                self._choosing = time.monotonic() - start
                self._changed.notify_all()
            if self._num_started > self._most_ahead:  # each worker has had a trial, whose start it would slow down
                with suppress(Exception):  # a choice that needs what cannot be imported tells the search
                    self._driver.warm_up()
