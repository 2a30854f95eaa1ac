"""The names of a trial's facts: what its worker and its scheduler note about it besides the learning curve.

The record and MLflow store facts under these names, so the names never change. training/loop.py adds its own:
`weights`, `head`, `features` and RANDOM_NUMBERS. Times are in seconds; those of training and validation are in the
learning curve.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# Times, by the worker that trained the trial last.
PREFIX = "time/"
TAKEN_AT = PREFIX + "taken_at"  # when the worker received the trial, in seconds since 1970
ENDED_AT = PREFIX + "ended_at"  # when the worker reported that the trial broke down, in seconds since 1970
QUEUED = PREFIX + "queued"  # from the driver's decision to TAKEN_AT; includes the start of a new worker's process
STARTUP = PREFIX + "startup"  # imports, building the network, reading the weights to start from
DATA = PREFIX + "data"  # copying the images to the device
CHECKPOINT = PREFIX + "checkpoint"
FIRST_EPOCH = PREFIX + "first_epoch"  # number of epochs that were trained before this worker received the trial
EARLIER = PREFIX + "earlier"  # the times and WORKER of each worker that had the trial before, oldest first

# The run.
WORKER = "worker"  # host:process
DEVICE = "device"
NUM_THREADS = "num_threads"
NUM_TRAIN_IMAGES = "num_train_images"
NUM_VAL_IMAGES = "num_val_images"
SMALLEST_CLASS = "num_val_images_of_smallest_class"  # where classes count alike
NUM_PARAMETERS = "num_parameters"
NUM_MACS = "num_macs"  # multiply-adds of one image
DIVERGED_AT = "diverged_at_step"
PEAK_MEMORY = "peak_memory_bytes"
STATE_BYTES = "checkpoint_bytes"  # of the last one
RANDOM_NUMBERS = "random_numbers"  # in words, for a run that went on on another kind of device
REPLAYS = "replays"  # in words, for a run that replays the validation scores of another one because it has no own

# The scheduler's decisions.
RUNGS = "rungs"  # the rungs that the trial passed, as epoch: fraction of the schedule, `{"2": 0.25}`
LET_THROUGH = "let_through_at_epoch"  # trained on from here, although the scheduler would have stopped the trial
LEFT_OUT = "left_out"  # in words, the values of the draws that are left out since this trial failed like others
STOPPED_AT = "stopped_at_rung"  # as a fraction of the schedule


def with_facts(facts: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a trial with the new ones added; the times of an earlier worker move to EARLIER."""
    merged = {**facts, **new}
    if facts.get(TAKEN_AT, merged.get(TAKEN_AT)) != merged.get(TAKEN_AT):
        names = {name for name in facts if name.startswith(PREFIX) or name == WORKER} - {EARLIER}
        merged[EARLIER] = [*facts.get(EARLIER, ()), {name: facts[name] for name in sorted(names)}]
    return merged


@contextmanager
def timed(facts: dict[str, Any], name: str) -> Iterator[None]:
    """Add the seconds that the block takes to the fact `name`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        facts[name] = facts.get(name, 0.0) + time.perf_counter() - start
