"""The function that Ray Tune sends to its workers, in a module that imports next to nothing.

A worker imports the module of a function that it gets. So this one holds nothing of the driver's, whose imports take a
second, and imports no torch, which the driver does without.
"""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cifar_tune.data.images import TrainingData
    from cifar_tune.search.ray_worker import Assignment


def train(config: "Assignment", data: "TrainingData") -> None:
    """Train a trial in a worker. Torch is imported there, because the driver starts seconds sooner without it."""
    taken_at = time.time()
    from cifar_tune.search.ray_worker import train_trial

    train_trial(config, data, taken_at)
