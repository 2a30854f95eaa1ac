"""Search methods of other libraries, in the simulation of simulation.py: one module for each library.

    uv venv build/peers --python 3.11
    uv pip install --python build/peers --editable .
    uv pip install --python build/peers --no-deps --requirements analysis/benchmark/peers.txt
    build/peers/bin/python analysis/benchmark/compare.py --methods ours "Syne Tune ASHA" DEHB

The libraries' own bounds contradict each other and this project's versions, so peers.txt says which releases work
together. Only Optuna's two peers run without it.

Each method has the defaults of its documentation, from 1 epoch to the schedule's last, and is told the same baseline.
Workers ask and tell one by one. Where a method evaluates a configuration again with more epochs, the trial continues
after its last epoch, as from a checkpoint, and an evaluation whose epochs are trained already costs nothing. Both
favour the peers: DEHB and SMAC3 would train from the first epoch, unless the user's function keeps checkpoints.
"""

from typing import Any, Literal, get_args

from cifar_tune.search.space import Space
from peers.values import conditions

PeerName = Literal[
    "Syne Tune ASHA",
    "Syne Tune BOHB",
    "Syne Tune CQR + ASHA",
    "SMAC3",
    "DEHB",
    "NePS PriorBand",
    "Optuna GP + Hyperband",
    "Optuna CMA-ES + Hyperband",
]
PEERS: tuple[PeerName, ...] = get_args(PeerName)


def make_peer(name: PeerName, space: Space, seed: int) -> Any:  # noqa: ANN401 - a simulation.Method
    """A new search with the method of this name; a ValueError where it does not suit the space."""
    if reason := why_unsuitable(name, space):
        raise ValueError(f"{name}: {reason}")
    match name:
        case "Syne Tune ASHA" | "Syne Tune BOHB" | "Syne Tune CQR + ASHA":
            from peers.syne import SCHEDULERS, SyneTune

            return SyneTune(space, seed, SCHEDULERS[name])
        case "SMAC3":
            from peers.smac3 import MultiFidelitySmac

            return MultiFidelitySmac(space, seed)
        case "DEHB":
            from peers.differential_evolution import Dehb

            return Dehb(space, seed)
        case "NePS PriorBand":
            from peers.prior_band import PriorBand

            return PriorBand(space, seed)
        case "Optuna GP + Hyperband" | "Optuna CMA-ES + Hyperband":
            from peers.hyperband import OptunaHyperband

            return OptunaHyperband(space, seed, "gp" if name == "Optuna GP + Hyperband" else "cmaes")


def why_unsuitable(name: str, space: Space) -> str | None:
    """Why the method cannot search this space; None where it can."""
    if name == "Optuna CMA-ES + Hyperband" and (conditional := conditions(space)):
        return f"CMA-ES needs every name in every recipe, and {next(iter(conditional))} is not in all"
    return None
