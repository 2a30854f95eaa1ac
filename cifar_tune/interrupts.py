"""Signals that end a command: Ctrl-C, a scheduler's SIGTERM and SIGUSR1, a closed terminal's SIGHUP.

The first raises Interrupted in the main thread, or waits for a block that must not be cut in two. A second one ends the
process at once. Nothing here imports more than the standard library, because it is in force before anything else.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
EXIT_INTERRUPTED = 130
ONE_SIGNAL = 0.3  # seconds in which repeated signals count as one: a scheduler and `uv run` may both pass it on
RETRY = 0.1  # seconds until the exception is raised (again), where it had to wait or was swallowed
PATIENCE = 15.0  # seconds after which a command that does not end, because Ray's processes got the signal too, is ended


class Interrupted(BaseException):
    """The user or the system asked the command to end; not an Exception, so that no library takes it for its own."""


def heeded_signals() -> list[signal.Signals]:
    """The signals to handle; not SIGHUP where it is ignored, because `nohup` asked for that."""
    return [each for each in SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]


class _Receiver:
    """The state of one command: what it received, and whether it has to wait."""

    def __init__(self) -> None:
        self.signals = heeded_signals()
        self.received_at: float | None = None
        self.num_holds = 0

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Begin to raise Interrupted; end the process for a second signal."""
        now = time.monotonic()
        if self.received_at is None:
            self.received_at = now
            signal.setitimer(signal.ITIMER_REAL, RETRY, RETRY)
            last_resort = threading.Timer(PATIENCE, _end_process)
            last_resort.daemon = True
            last_resort.start()
        elif now - self.received_at > ONE_SIGNAL:
            _end_process()
        self.raise_unless_waiting(number, frame)

    def raise_unless_waiting(self, number: int, frame: FrameType | None) -> None:
        """Raise Interrupted, but not in a block that is held, in an import, or while Interrupted is handled.

        In the import machinery an exception can leave a module's lock taken for ever. Repeated, because an exception in
        a callback of the interpreter is swallowed.
        """
        if self.received_at is not None and not (self.num_holds or _is_importing(frame) or _is_unwinding()):
            raise Interrupted

    def install(self) -> dict[int, Any]:
        """Take over the signals; the handlers before."""
        previous: dict[int, Any] = {number: signal.signal(number, self.on_signal) for number in self.signals}
        previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self.raise_unless_waiting)
        return previous


_receiver: _Receiver | None = None


@contextmanager
def handled() -> Iterator[None]:
    """Handle the signals during the block, which is the whole of a command."""
    global _receiver
    _receiver = _Receiver()
    previous = _receiver.install()
    try:
        yield
    finally:
        acknowledge()
        _receiver = None
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Let no signal interrupt the block, except where it calls `raise_if_requested`; Interrupted is raised after it."""
    if _receiver is None:
        yield
        return
    _receiver.num_holds += 1
    try:
        yield
    finally:
        _receiver.num_holds -= 1
    raise_if_requested()


def raise_if_requested() -> None:
    """Raise Interrupted here if a signal has asked for it."""
    if _receiver is not None and _receiver.received_at is not None:
        raise Interrupted


def reinstall() -> None:
    """Handle the signals again, after a library has taken them over."""
    if _receiver is not None:
        _receiver.install()


def acknowledge() -> None:
    """Stop raising Interrupted, where it was caught."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def _end_process() -> None:
    print("Interrupted.", file=sys.stderr, flush=True)
    os._exit(EXIT_INTERRUPTED)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _is_unwinding() -> bool:
    """Whether the code that runs is a handler of Interrupted, or a `finally` on its way."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, Interrupted):
            return True
        error = error.__context__
    return False
