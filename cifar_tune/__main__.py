"""The program `cifar-tune`: a small process that watches over the command, which runs in a child of it.

Ray ends the process that started it as soon as its own processes die, and a scheduler may send its signal to all of
them at one moment. The watching process imports nothing, so it always says in time how the command ended.
"""

import ctypes
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from cifar_tune import interrupts

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent dies
ENDED = (
    "cifar-tune: Ray or this command was ended from outside, perhaps for want of memory; the same command goes on from "
    "what is finished."
)
LIMIT = 18.0  # seconds from the first signal until a command that does not end is ended


def main() -> None:
    """Run the command line; an interrupted command exits with 130."""
    _open_streams()
    if not sys.platform.startswith("linux"):
        _run()
        return
    end, own_end = os.pipe()
    if child := os.fork():
        _watch(child, end)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        _run()
    finally:
        os.write(own_end, b".")


def _open_streams() -> None:
    """Open the standard streams that are closed, and let them write any character, as `?` where they do not know it.

    Otherwise the next file that is opened would be in a closed stream's place, and a library's lines would go there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - pathlib is not imported, and it stays open
        elif mode == "w":
            stream.reconfigure(errors="replace")


def _run() -> None:
    try:
        with interrupts.handled():
            from cifar_tune.cli import main as run

            run()
    except interrupts.Interrupted:
        print("Interrupted.", file=sys.stderr)
        sys.exit(interrupts.EXIT_INTERRUPTED)


def _watch(child: int, end: int) -> NoReturn:
    """Pass signals on to the child, and exit as it does, or with 130 if a signal ended it in whatever way.

    A child that ends by itself writes to the pipe `end`; one that Ray or the system ends had no time for a sentence.
    """
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not received:
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
        received.append(number)
        os.kill(child, number)

    for number in interrupts.heeded_signals():
        signal.signal(number, on_signal)
    signal.signal(signal.SIGALRM, lambda number, frame: os.kill(child, signal.SIGKILL))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if received and code not in (0, interrupts.EXIT_INTERRUPTED):
        print("Interrupted. The same command resumes.", file=sys.stderr)
        code = interrupts.EXIT_INTERRUPTED
    elif code != interrupts.EXIT_INTERRUPTED and not _has_byte(end):
        print(ENDED, file=sys.stderr)
        code = 2 if code > 0 else code
    if code < 0:  # as a shell says it of a process that a signal ended
        code = 128 - code
    os._exit(code)


def _has_byte(pipe: int) -> bool:
    os.set_blocking(pipe, False)  # a process that the child has forked may have it open
    try:
        return os.read(pipe, 1) != b""
    except BlockingIOError:
        return False


if __name__ == "__main__":
    main()
