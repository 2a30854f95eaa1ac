"""Fuzzing by hand: mutations of every kind of file, read in processes whose memory and time are limited.

    PYTHONPATH=tests uv run python tests/faults/fuzz.py --seconds 600

It prints how many inputs of each kind were read, and the seeds of those that were answered by anything but a result or
a UserError: another exception, a hang, or the end of the process. test_broken_input.py reads a few inputs of each kind.
"""

import argparse
import faulthandler
import multiprocessing
import resource
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from helpers.broken_files import KINDS, mutated

from cifar_tune.errors import UserError

PATIENCE_SECONDS = 60
MAX_BYTES = 12 * 2**30  # of address space; torch alone takes some
NUM_SHOWN = 5


def read(kind: str, seeds: range, now: Any, outcomes: Any) -> None:  # noqa: ANN401 - a shared value and a queue
    """Read the mutations of a kind with these seeds; `now` is the seed that is being read."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    warnings.simplefilter("ignore")
    faulthandler.disable()
    with tempfile.TemporaryDirectory() as folder:
        path = KINDS[kind].write(Path(folder))
        content = path.read_bytes()
        for seed in seeds:
            now.value = seed
            path.write_bytes(mutated(content, seed))
            try:
                KINDS[kind].read(path)
                outcomes.put((seed, "read", ""))
            except UserError as error:
                message = str(error)
                outcomes.put(
                    (seed, "refused" if "\n" not in message and message.endswith(".") else "no sentence", message)
                )
            except BaseException as error:
                outcomes.put((seed, f"{type(error).__name__}: {str(error)[:100]}", traceback.format_exc()))
        outcomes.close()
        outcomes.join_thread()


def fuzz(kind: str, first: int, seconds: float) -> Counter[str]:
    """Read mutations of a kind for so many seconds from a seed on, and print what is neither read nor refused."""
    counts: Counter[str] = Counter()
    seed, deadline = first, time.monotonic() + seconds
    while time.monotonic() < deadline:
        now = multiprocessing.Value("l", seed)
        outcomes: multiprocessing.Queue[tuple[int, str, str]] = multiprocessing.Queue()
        process = multiprocessing.Process(target=read, args=(kind, range(seed, seed + 10_000), now, outcomes))
        process.start()
        last, heard = seed, time.monotonic()
        while process.is_alive() or not outcomes.empty():
            try:
                last, outcome, details = outcomes.get(timeout=1)
            except Exception:
                if time.monotonic() - heard > PATIENCE_SECONDS and now.value > last:
                    process.kill()
                    report(kind, now.value, f"hang of {PATIENCE_SECONDS} s", "", counts)
                    break
                if time.monotonic() > deadline + PATIENCE_SECONDS:
                    process.kill()
                continue
            heard = time.monotonic()
            report(kind, last, outcome, details, counts)
            if heard > deadline:
                process.kill()
                break
        process.join()
        if process.exitcode not in (0, -9):
            report(kind, now.value, f"the process ended with {process.exitcode}", "", counts)
        seed = now.value + 1
    return counts


def report(kind: str, seed: int, outcome: str, details: str, counts: Counter[str]) -> None:
    """Count an outcome, and print the first ones of a bad kind."""
    counts[outcome] += 1
    if outcome not in ("read", "refused") and counts[outcome] <= NUM_SHOWN:
        print(f"{kind}, seed {seed}: {outcome}\n{details}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of all kinds together")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    options = parser.parse_args()
    for kind in options.kinds:
        print(f"{kind}: {dict(fuzz(kind, options.first, options.seconds / len(options.kinds)))}", flush=True)
