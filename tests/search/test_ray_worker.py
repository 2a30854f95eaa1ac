"""How a worker tells a machine's failure from a recipe's, its checkpoints, and the one thread in which it trains."""

import errno
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from threading import Thread, get_ident
from typing import Any

import pytest
import torch
from helpers.command_line import PATIENCE
from helpers.runs import BASE, repeatable, train

from cifar_tune.errors import InvalidRecipeError, MachineError, UserError
from cifar_tune.search.ray_worker import Assignment, _epochs, _state_after, run_in_training_thread
from cifar_tune.store import STATE
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import Training
from cifar_tune.trials.facts import FIRST_EPOCH, STATE_BYTES


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


def test_a_worker_saves_a_checkpoint_before_it_reports_an_epoch_after_which_a_trial_may_be_paused(
    tmp_path: Path, smallest: DeviceData
) -> None:
    """Another worker goes on from it, and trains no epoch that was reported."""
    recipe, facts = BASE.replace({"epochs": 4}), dict[str, Any]()
    reports = _epochs(Training(recipe, smallest), assignment(tmp_path, pauses=[2]), facts)
    saved = [(metrics.epoch, (tmp_path / STATE).exists()) for metrics in islice(reports, 2)]
    assert saved == [(1, False), (2, True)]
    assert facts[STATE_BYTES] == (tmp_path / STATE).stat().st_size > 1000
    torch.manual_seed(5)
    again = Training(recipe, smallest)
    later = list(_epochs(again, assignment(tmp_path, pauses=[2], num_epochs_recorded=2), facts))
    assert [metrics.epoch for metrics in later] == [2, 3, 4], "the last one is reported again, and not trained again"
    assert facts[FIRST_EPOCH] == 2
    assert [repeatable(metrics) for metrics in later] == train(recipe, smallest)[1:]


def assignment(folder: Path, *, pauses: Sequence[int], num_epochs_recorded: int = 0) -> Assignment:
    return {
        "number": 1,
        "recipe": {},
        "folder": str(folder),
        "num_epochs_recorded": num_epochs_recorded,
        "features": "",
        "weights": "none",
        "weights_digest": None,
        "num_threads": 1,
        "gpus": 0.0,
        "keeps": "weights",
        "pauses": pauses,
        "score": "accuracy",
        "watched": None,
        "handed_at": 0.0,
    }
