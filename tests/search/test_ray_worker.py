"""How a worker tells a machine's failure from a recipe's, and the one thread in which it trains."""

import errno
import time
import weakref
from contextlib import suppress
from threading import Thread, get_ident

import pytest
import torch
from helpers.command_line import PATIENCE

from cifar_tune.errors import InvalidRecipeError, MachineError, UserError
from cifar_tune.search.ray_worker import _state_after, run_in_training_thread


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


def test_all_trials_are_trained_in_one_thread_whatever_thread_ray_starts_them_in() -> None:
    trained_in: list[int] = []
    for _ in range(3):
        thread = Thread(target=run_in_training_thread, args=(lambda: trained_in.append(get_ident()),))
        thread.start()
        thread.join(PATIENCE)
    assert len(trained_in) == 3
    assert len(set(trained_in)) == 1
    assert trained_in[0] != get_ident()


@pytest.mark.parametrize("error", [SystemExit(0), ValueError("no such field")], ids=str)
def test_what_ends_a_trial_is_raised_in_the_thread_that_ray_started(error: BaseException) -> None:
    """Ray ends a stopped trial by a SystemExit in `report`, and the next trial finds a thread that works."""

    def end() -> None:
        raise error

    for _ in range(2):
        with pytest.raises(type(error)) as raised:
            run_in_training_thread(end)
        assert raised.value is error
    run_in_training_thread(lambda: None)


def test_nothing_of_an_ended_trial_is_kept() -> None:
    """Its network and its data would take memory until another trial ends."""

    class Held:
        pass

    alive: list[weakref.ref[Held]] = []

    def end() -> None:
        training = Held()
        alive.append(weakref.ref(training))
        raise SystemExit(0)

    with suppress(SystemExit):
        run_in_training_thread(end)
    deadline = time.monotonic() + PATIENCE
    while alive[0]() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive[0]() is None
