"""How a worker tells a machine's failure from a recipe's."""

import errno

import pytest
import torch

from cifar_tune.errors import InvalidRecipeError, MachineError, UserError
from cifar_tune.search.ray_worker import _state_after


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "interrupted"),
        (ImportError("no such package"), "interrupted"),
        (MachineError("a checkpoint cannot be read"), "interrupted"),
        (UserError("No weights at resnet.pt."), "interrupted"),
        (InvalidRecipeError("no such combination"), "failed"),
        (RuntimeError("shapes cannot be multiplied"), "failed"),
        (MemoryError(), "out of memory"),
    ],
)
def test_the_machines_failures_leave_a_trial_to_be_resumed(error: Exception, state: str) -> None:
    assert _state_after(error, torch.device("cpu"), 0.0) == state
