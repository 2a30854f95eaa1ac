"""How trials share cores and GPUs."""

import pytest

from cifar_tune.commands.session import TrainingOptions
from cifar_tune.errors import UserError
from cifar_tune.search.resources import Resources, plan_resources

LAPTOP = {"CPU": 4.0}
SERVER = {"CPU": 16.0, "GPU": 4.0}


def planned(
    *nodes: dict[str, float],
    num_trials: int = 20,
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
) -> Resources:
    return plan_resources(
        nodes,
        num_trials,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        max_concurrent=max_concurrent,
    )


def test_trials_get_a_core_each_or_a_gpu_each() -> None:
    assert planned(LAPTOP) == Resources(1, 0.0, 4)
    assert planned(SERVER) == Resources(1, 1.0, 4)
    assert planned(SERVER, LAPTOP) == Resources(1, 1.0, 4), "a node without GPUs has no room"


def test_a_single_trial_gets_all_cores() -> None:
    assert planned(LAPTOP, num_trials=1) == Resources(4, 0.0, 1)


def test_flags_are_honoured() -> None:
    assert planned(LAPTOP, cpus_per_trial=2) == Resources(2, 0.0, 2)
    assert planned(SERVER, gpus_per_trial=0.5) == Resources(1, 0.5, 8)
    assert planned(SERVER, gpus_per_trial=0) == Resources(1, 0, 16)
    assert planned(SERVER, max_concurrent=3) == Resources(1, 1.0, 3)


def test_no_more_run_at_a_time_than_there_are() -> None:
    assert planned(SERVER, num_trials=2).max_concurrent == 2


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(UserError, match="--gpus-per-trial 1: there are 0 GPUs here"):
        planned(LAPTOP, gpus_per_trial=1)
    with pytest.raises(UserError, match="--cpus-per-trial 5: there are 4 cores here"):
        planned(LAPTOP, cpus_per_trial=5)


@pytest.mark.parametrize("gpus", [1.5, 2.0001, -1.0, 1e-5, float("nan"), float("inf")])
def test_a_share_of_gpus_that_ray_cannot_give_is_refused_before_anything_starts(gpus: float) -> None:
    with pytest.raises(UserError, match=r"--gpus-per-trial \S+: a trial gets a part of one GPU, .* or whole GPUs"):
        TrainingOptions(gpus_per_trial=gpus)


@pytest.mark.parametrize("gpus", [None, 0, 0.0001, 0.3333, 1, 2.0])
def test_a_part_of_a_gpu_and_whole_gpus_are_taken(gpus: float | None) -> None:
    assert TrainingOptions(gpus_per_trial=gpus).gpus_per_trial == gpus
