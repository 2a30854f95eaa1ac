"""The outbox: delivers to MLflow what commands leave, in a thread of its own. No search waits for MLflow or dies of it.

Whoever has something to deliver hands in a parcel. The thread delivers all parcels in order, and after a failure begins
anew, later and later: each parcel first looks up what is there, so nothing is delivered twice. The user is told once
when MLflow is away and once when it is back. Imports no MLflow before the thread does, because that takes seconds.
"""

import math
import time
from contextlib import suppress
from threading import Condition, Thread
from typing import Protocol

from rich.console import Console

from cifar_tune.errors import UserError
from cifar_tune.store import Place, Store, check_can_write
from cifar_tune.tracking.address import PING_SECONDS, Failure, check_form, tracking_url, trouble

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before another try; each pause is twice as long as the one before
SECONDS_BETWEEN_LOOKS = 1.0  # whether something is due
LONGEST_PING = 30.0  # seconds for the first answer; each failure doubles them, because a server may be slow
LONGEST_REST = 20.0  # seconds before MLflow opens the store's database, while the first workers start and train
SOON = 10.0  # seconds after which the user is told that the command waits
LAST_TRY = 3.0  # seconds for MLflow to come back at the end of a command
FIRST_ANSWER, NO_PROGRESS = 60.0, 15.0  # seconds to wait at the end: until MLflow answers, and then for each trial
WAITING = "The command goes on, and delivers what is missing there when it is back."
STILL = "Still writing to MLflow; Ctrl-C leaves the rest to the next command."
BACK = "MLflow answers again; what was missing there is delivered."


class Parcel(Protocol):
    """Something to deliver."""

    @property
    def is_due(self) -> bool:
        """Whether there is something to deliver now."""

    def deliver(self) -> None:
        """Deliver what is due, in the outbox's thread; raises the error of whatever is in the way."""

    @property
    def is_begun(self) -> bool:
        """Whether MLflow has answered to it."""

    def start_anew(self) -> None:
        """Forget what was looked up, because a delivery failed."""


class _TroubleError(Exception):
    """MLflow did not answer, or not as it should."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.sentence)
        self.failure = failure


class Outbox:
    """Delivers parcels in a thread, from the moment it is made; a UserError for an address that is of no use."""

    def __init__(self, store: Store, console: Console) -> None:
        self.store = store
        self.changed = Condition()  # guards all that the threads share
        self._url = tracking_url(store)
        check_form(self._url)
        self._place = Place(store.root)
        self._rests_until = time.monotonic() + LONGEST_REST if self._url == store.mlflow_url else 0.0
        self._console = console
        self._parcels: list[Parcel] = []
        self._is_found = False  # whether a server answers, or a database can be read
        self._is_open = False  # whether there was a first answer of MLflow itself
        self._is_closed = False
        self._may_refuse = True  # until the work of the command begins
        self._refusal: str | None = None
        self._is_away = False
        self._is_slow = False  # whether it failed only to answer in time
        self._has_answered = False  # in the present try
        self._num_failures = 0  # since the last success
        self._num_tries = 0
        self._is_quiet = False
        self._in_a_hurry = False  # cuts the pause after a failure short
        self._last_progress = time.monotonic()
        Thread(target=self._run, name="outbox", daemon=True).start()

    def add(self, parcel: Parcel) -> None:
        """Hand in a parcel, which is delivered whenever it is due."""
        with self.changed:
            self._parcels.append(parcel)
            self.changed.notify_all()

    @property
    def is_away(self) -> bool:
        """Whether MLflow did not answer, or not as it should, at the last try."""
        return self._is_away

    @property
    def is_cut_off(self) -> bool:
        """Whether the store is not at its path any more, and with it all that says what to deliver."""
        return self._place.is_left

    def has_answered(self, seconds: float) -> bool:
        """Whether, after at most these seconds, it is known how MLflow takes what was handed in, or if it could be."""
        with self.changed:
            return self.changed.wait_for(
                lambda: self._is_away or self._is_begun or (self._rests and self._is_found), seconds
            )

    def check(self, *, is_last: bool = False) -> None:
        """Raise a UserError if MLflow refuses for good what the command wants of it, as far as that is known by now.

        A refusal after the last check is told, and waited out like any other failure.
        """
        with self.changed:
            refusal, self._refusal = self._refusal, None
            self._may_refuse = self._may_refuse and not is_last
        if refusal is not None:
            raise UserError(refusal)

    def wait(self, *, total: float = math.inf, no_progress: float = NO_PROGRESS, is_quiet: bool = False) -> bool:
        """Wait at the end of a command until all is delivered; False if it was not, because MLflow is away or slow."""
        self._is_quiet = is_quiet
        self._tell_refusal()
        with self.changed:
            self.wake()
            start = self._last_progress = time.monotonic()
            num_tries, is_told = self._num_tries, False
            self._in_a_hurry = True
            self.changed.notify_all()
            while self._has_work and not self._is_closed:
                now = time.monotonic()
                is_given_up = self._is_away and not (self._has_answered or self._is_slow)
                if is_given_up and self._num_tries > num_tries:
                    return False
                if now > min(start + total, self._last_progress + self._patience(no_progress)):
                    return False
                if now > start + SOON and not (is_told or self._is_away):
                    is_told = True
                    self._tell(STILL)
                self.changed.wait(0.1)
            return not self._has_work

    def _patience(self, no_progress: float) -> float:
        """Seconds to wait at the end for the next sign of progress."""
        if not self._is_away:
            return no_progress if self._is_open else FIRST_ANSWER  # the import and a new database take their time
        if self._has_answered:
            return FIRST_ANSWER  # it is slow, and is asked for much before anything more is delivered
        return NO_PROGRESS if self._is_slow else LAST_TRY

    def close(self) -> None:
        """Deliver nothing more."""
        with self.changed:
            self._is_closed = True
            self.changed.notify_all()

    def note_progress(self) -> None:
        """Note that something was delivered."""
        with self.changed:
            self._last_progress = time.monotonic()

    def wake(self) -> None:
        """Let MLflow open the store's database, which takes seconds of the processor: it waits for the first epoch."""
        with self.changed:
            if self._rests:
                self._rests_until = 0.0
                self.changed.notify_all()

    @property
    def _rests(self) -> bool:
        return time.monotonic() < self._rests_until

    @property
    def _is_begun(self) -> bool:
        return self._is_open and all(parcel.is_begun for parcel in self._parcels)

    @property
    def _has_work(self) -> bool:
        if self._rests:
            return not self._is_found
        return not self._is_open or any(parcel.is_due for parcel in self._parcels)

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._deliver()
            except Exception as error:
                if self._place.is_left:
                    return
                self._note_failure(self._diagnose(error))
            else:
                self._note_success()

    def _wait_for_work(self) -> bool:
        """Wait until something is due and the pause after a failure is over; False once the outbox is closed."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (self._num_failures - 1)) if self._is_away else 0.0
        with self.changed:
            self.changed.wait_for(lambda: self._is_closed or self._in_a_hurry, pause)
            while not (self._is_closed or self._has_work):
                self.changed.wait(SECONDS_BETWEEN_LOOKS)  # a parcel may become due with time
            self._in_a_hurry = False
            self._is_closed = self._is_closed or self._place.is_left  # what the record lacks, MLflow does not get
            return not self._is_closed

    def _deliver(self) -> None:
        if self._num_failures or not self._is_open:
            failure = trouble(self._url, min(LONGEST_PING, PING_SECONDS * 2.0**self._num_failures))
            if failure is not None:
                raise _TroubleError(failure)
            if self._url == self.store.mlflow_url:
                check_can_write(self.store.artifacts)  # before anything is trained, though MLflow is asked later
            with self.changed:
                self._is_found = True
                self.changed.notify_all()
            if self._rests:
                return
            from cifar_tune.tracking.runs import open_client

            open_client(self.store)
            self.note_progress()
        with self.changed:
            self._is_open = self._has_answered = True
            self.changed.notify_all()
            parcels = [parcel for parcel in self._parcels if parcel.is_due]
        for parcel in parcels:
            parcel.deliver()
            self.note_progress()

    def _diagnose(self, error: Exception) -> Failure:
        if isinstance(error, _TroubleError):
            return error.failure
        if isinstance(error, UserError):
            return Failure("refused", str(error))
        try:
            from cifar_tune.tracking.failures import diagnose
        except Exception as cause:
            return Failure("refused", f"MLflow cannot be imported ({cause}); install it again.")
        return diagnose(error, self._url)

    def _note_success(self) -> None:
        with self.changed:
            was_away, self._is_away = self._is_away, False
            self._num_failures, self._refusal = 0, None
            self._num_tries += 1
            self.changed.notify_all()
        if was_away:
            self._tell(BACK)

    def _note_failure(self, failure: Failure) -> None:
        with self.changed:
            was_away = self._is_away
            # What somebody changed in MLflow is looked up anew, at once and without a word.
            self._is_slow, self._has_answered = failure.kind == "slow", False
            self._is_away = was_away or failure.kind != "changed" or self._num_failures > 0
            self._num_failures += 1
            self._num_tries += 1
            for parcel in self._parcels:
                parcel.start_anew()
            is_refusal = failure.kind == "refused" and self._may_refuse
            if is_refusal:
                self._refusal = failure.sentence
            self.changed.notify_all()
        if self._is_away and not was_away and not is_refusal:
            self._tell(f"{failure.sentence} {WAITING}")

    def _tell_refusal(self) -> None:
        with self.changed:
            refusal, self._may_refuse, self._refusal = self._refusal, False, None
        if refusal is not None:
            self._tell(refusal)

    def _tell(self, sentence: str) -> None:
        if self._is_quiet:
            return
        with suppress(Exception):  # a terminal that is gone
            self._console.print(sentence, style="yellow", highlight=False, markup=False, soft_wrap=True)
