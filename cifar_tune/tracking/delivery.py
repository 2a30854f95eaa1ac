"""A search on its way to MLflow, and a result that is published once: what commands hand to the outbox."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cifar_tune.tracking import DEFAULTS
from cifar_tune.tracking.outbox import Outbox
from cifar_tune.tracking.subject import Subject
from cifar_tune.trials.trial import State, Trial

if TYPE_CHECKING:
    from cifar_tune.tracking.tracker import Tracker

SECONDS_TO_COLLECT = 2.0  # a trial that ends sooner is written at once and whole
TIMEOUT, LONG_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT", "120"  # seconds; a server may take long to store a large file


class Delivery:
    """A search on its way to MLflow, which begins when it is made. An Observer: it only notes which trials changed.

    `on_run` gets the number of a running trial and the id of its run in MLflow, at a tick of the driver. `are_shown`
    says whether MLflow has the `trials` so far.
    """

    def __init__(
        self,
        outbox: Outbox,
        subject: Subject,
        trials: Sequence[Trial],
        *,
        are_shown: bool,
        on_run: Callable[[int, str], None] = lambda number, run_id: None,
    ) -> None:
        self._outbox = outbox
        self._subject = subject
        self._on_run = on_run
        self._newest = {trial.number: trial for trial in trials}
        self._due = set() if are_shown else set(self._newest)  # numbers of trials
        self._changed_at: dict[int, float] = {}  # running trials that are due soon, in seconds
        self._runs: dict[int, str] = {}  # ids of runs that the trials did not have, by trial
        self._new_runs: set[int] = set()  # numbers of trials whose run is not handed over
        self._state: State | None = None  # of the whole, once it has ended
        self._is_in_doubt = False  # whether MLflow may yet do what it was told before a failure
        self._is_finished = False
        self._tracker: Tracker | None = None
        outbox.add(self)

    def update(self, trial: Trial) -> None:
        """Note that the trial has changed."""
        with self._outbox.changed:
            self._newest[trial.number] = trial
            if trial.state == "running":
                self._changed_at.setdefault(trial.number, time.monotonic())
            else:
                self._changed_at.pop(trial.number, None)
                self._due.add(trial.number)
                self._outbox.changed.notify_all()
        if trial.epochs or trial.state != "running":
            self._outbox.wake()

    def tick(self) -> None:
        """Hand over the runs of trials that run, whose record can be written now."""
        with self._outbox.changed:
            states = {number: self._newest[number].state for number in self._new_runs}
            runs = {number: self._runs[number] for number, state in states.items() if state == "running"}
            self._new_runs = {n for n, state in states.items() if state in ("interrupted", "paused")}  # it may go on
        for number, run_id in runs.items():
            self._on_run(number, run_id)

    def finish(self, state: State) -> None:
        """Note that no trial will change any more, and the state of the whole."""
        self._let_out(before=math.inf)
        with self._outbox.changed:
            self._state = state
            self._outbox.changed.notify_all()

    def _let_out(self, before: float) -> None:
        with self._outbox.changed:
            numbers = {number for number, changed_at in self._changed_at.items() if changed_at < before}
            self._due |= numbers
            self._changed_at = {n: at for n, at in self._changed_at.items() if n not in numbers}

    @property
    def runs(self) -> dict[int, str]:
        """The ids of all runs that the trials did not have when they were handed in, by trial."""
        with self._outbox.changed:
            return dict(self._runs)

    @property
    def num_undelivered(self) -> int:
        """The number of trials that MLflow lacks, wholly or in part."""
        return len({*self._due, *self._changed_at})

    @property
    def is_delivered(self) -> bool:
        """Whether MLflow has everything, to the end."""
        return self._is_finished and not self._due

    @property
    def is_due(self) -> bool:
        """Whether there is something to deliver, or to look up first."""
        self._let_out(before=time.monotonic() - SECONDS_TO_COLLECT)
        return self._tracker is None or bool(self._due) or (self._state is not None and not self._is_finished)

    @property
    def is_begun(self) -> bool:
        """Whether it was looked up what MLflow has."""
        return self._tracker is not None

    def start_anew(self) -> None:
        """Forget what was looked up."""
        self._is_in_doubt, self._tracker = True, None

    def deliver(self) -> None:
        """Deliver every trial that changed, and the end."""
        tracker = self._tracker or self._look_up()
        self._outbox.note_progress()
        with self._outbox.changed:
            self._tracker, due = tracker, sorted(self._due)
            self._outbox.changed.notify_all()
        for number in due:
            trial = self._newest[number]
            tracker.update(trial)
            self._outbox.note_progress()
            with self._outbox.changed:
                if self._newest[number] is trial or self._newest[number].state == "running":
                    self._due.discard(number)
        if self._state is not None and not self._due:
            tracker.finish(self._state)
            with self._outbox.changed:
                self._is_finished = not self._is_in_doubt
                if self._is_in_doubt:
                    self._is_in_doubt, self._tracker = False, None

    def _look_up(self) -> "Tracker":
        """Look up what MLflow has of the search; all that it lacks is due."""
        from cifar_tune.tracking.tracker import Tracker

        tracker = Tracker(self._outbox.store, self._subject, self._note_run)
        with self._outbox.changed:
            trials = list(self._newest.values())
        lacking = {trial.number for trial in tracker.adopt(trials)}
        with self._outbox.changed:
            self._due -= {trial.number for trial in trials if self._newest[trial.number] is trial}
            self._due |= lacking
        return tracker

    def _note_run(self, number: int, run_id: str) -> None:
        with self._outbox.changed:
            self._runs[number] = run_id
            self._new_runs.add(number)


class Job:
    """A result to publish, which is done once `work` has run without an error; it may run several times."""

    def __init__(self, outbox: Outbox, work: Callable[[], None]) -> None:
        self._work = work
        self.is_done = False
        outbox.add(self)

    @property
    def is_due(self) -> bool:
        """Whether it is not done."""
        return not self.is_done

    @property
    def is_begun(self) -> bool:
        """Whether it is done, in a single step."""
        return self.is_done

    def start_anew(self) -> None:
        """Do nothing: the work looks up by itself what is there."""

    def deliver(self) -> None:
        """Do the work."""
        with _patience():
            self._work()
        self.is_done = True


@contextmanager
def _patience() -> Iterator[None]:
    """Let requests take longer, unless the user has set how long they may take."""
    is_default = os.environ.get(TIMEOUT) == DEFAULTS[TIMEOUT]
    if is_default:
        os.environ[TIMEOUT] = LONG_TIMEOUT
    try:
        yield
    finally:
        if is_default:
            os.environ[TIMEOUT] = DEFAULTS[TIMEOUT]
