"""How the trials of a search share cores and GPUs. The caller says what there is; nothing here asks Ray."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cifar_tune.errors import UserError
from cifar_tune.machine import usable_cores

SMALLEST_SHARE = 0.0001  # of a GPU: Ray counts in these


@dataclass(frozen=True)
class Resources:
    """What one trial gets, and how many trials run at a time. On a CPU a trial has as many threads as cores."""

    cpus_per_trial: int
    gpus_per_trial: float
    max_concurrent: int


def this_machine(num_gpus: int) -> dict[str, float]:
    """The resources of this machine, as a Ray that starts here names them."""
    return {"CPU": usable_cores(), "GPU": num_gpus}


def check_gpus_per_trial(gpus: float | None) -> None:
    """Raise a UserError for a share of GPUs that Ray cannot give: it gives a part of one, or whole ones."""
    if gpus is None or gpus == 0 or (SMALLEST_SHARE <= gpus <= 1) or (1 < gpus < math.inf and gpus == int(gpus)):
        return
    raise UserError(f"--gpus-per-trial {gpus:g}: a trial gets a part of one GPU, like 0.5, or whole GPUs, like 2.")


def plan_resources(
    nodes: Sequence[Mapping[str, float]],
    num_trials: int,
    *,
    cpus_per_trial: int | None,
    gpus_per_trial: float | None,
    max_concurrent: int | None,
) -> Resources:
    """One trial per GPU where there are any, else one per core; a single trial gets all cores.

    Each of the `nodes` is like `{"CPU": 16, "GPU": 1}`. A UserError where a trial would need more than a node has.
    """
    cpus = int(max(node.get("CPU", 0) for node in nodes))  # a trial has to fit on one node
    gpus = max(node.get("GPU", 0.0) for node in nodes)
    if gpus_per_trial is None:
        gpus_per_trial = 1.0 if gpus else 0.0
    if gpus_per_trial > gpus:
        raise UserError(f"--gpus-per-trial {gpus_per_trial:g}: there are {gpus:g} GPUs here; use at most that many.")
    if cpus_per_trial is not None and cpus_per_trial > cpus:
        raise UserError(f"--cpus-per-trial {cpus_per_trial}: there are {cpus} cores here; use at most that many.")
    if cpus_per_trial is None:
        cpus_per_trial = cpus if num_trials == 1 else 1
    room = sum(_room(node, cpus_per_trial, gpus_per_trial) for node in nodes)
    return Resources(cpus_per_trial, gpus_per_trial, min(room, max_concurrent or room, num_trials))


def _room(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    """The number of trials that fit on a node; a fraction of a GPU lies on one GPU."""
    by_cpus = int(node.get("CPU", 0)) // cpus
    if not gpus:
        return by_cpus
    num_gpus = int(node.get("GPU", 0))
    return min(by_cpus, num_gpus * int(1 / gpus) if gpus < 1 else int(num_gpus // gpus))
