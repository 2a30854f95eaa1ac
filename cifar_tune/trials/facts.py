"""Where a trial's time goes, as its worker measures it; training and validation are in the learning curve.

Facts of the trial, in seconds unless it is said. Of one that was resumed they are its last worker's, with those of the
workers before beside them.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

PREFIX = "time/"
TAKEN_AT = PREFIX + "taken_at"  # by its worker, in seconds since 1970
ENDED_AT = PREFIX + "ended_at"  # the last thing that its worker told of it, in seconds since 1970
QUEUED = PREFIX + "queued"  # from the driver's decision until then: the worker's own start, if it is its first trial
STARTUP = PREFIX + "startup"  # imports, the network, weights to start from
DATA = PREFIX + "data"  # onto the device
CHECKPOINT = PREFIX + "checkpoint"
FIRST_EPOCH = PREFIX + "first_epoch"  # how many epochs were trained before this worker took it
WORKER = "worker"  # host:process
EARLIER = PREFIX + "earlier"  # of the workers that had the trial before, in turn: documents of all of the above


def with_facts(known: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a trial after its worker has told more; another worker's times are not lost."""
    found = {**known, **told}
    if known.get(TAKEN_AT, found.get(TAKEN_AT)) != found.get(TAKEN_AT):
        names = {name for name in known if name.startswith(PREFIX) or name == WORKER} - {EARLIER}
        found[EARLIER] = [*known.get(EARLIER, ()), {name: known[name] for name in sorted(names)}]
    return found


@contextmanager
def timed(facts: dict[str, Any], part: str) -> Iterator[None]:
    """Add what the block takes to a part of the trial's time."""
    start = time.perf_counter()
    try:
        yield
    finally:
        facts[part] = facts.get(part, 0.0) + time.perf_counter() - start
