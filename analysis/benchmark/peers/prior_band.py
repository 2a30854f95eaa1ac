"""NePS' PriorBand: Hyperband, whose configurations come from a prior, from the best so far and at random.

The baseline is the prior, with NePS' default confidence, and the first configuration. NePS would train that one for 1
epoch and compare it with others of its rung, which train for 2 where the last rung has 20; here it trains as long as
they. A condition cannot be told: names that a recipe does not use are sampled and ignored, and those that the baseline
lacks have no prior.
"""

from typing import Any

import neps
import numpy as np
import torch
from neps.space import SearchSpace
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cifar_tune.search.space import Space
from peers.successive_halving import Job, SuccessiveHalving
from peers.values import Values, labels

EPOCHS = "epochs"  # the name of the fidelity


class PriorBand(SuccessiveHalving):
    """`neps.algorithms.priorband` by ask and tell, with the prior first."""

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__()
        self._values = Values(space)
        np.random.seed(seed)  # NePS draws from these two generators
        torch.manual_seed(seed)
        parameters = {name: parameter(d, self._values.baseline.get(name)) for name, d in self._values.ranges.items()}
        epochs = neps.HPOInteger(1, self._values.epochs, is_fidelity=True)
        search_space = SearchSpace({**parameters, EPOCHS: epochs})
        optimizer = neps.algorithms.priorband(search_space, sample_prior_first=True)
        self._epochs_by_rung = optimizer.rung_to_fid
        self._neps = neps.AskAndTell(optimizer)

    def ask(self) -> Job:
        trial = self._neps.ask()
        configuration, rung = trial.id.split("_rung_")
        return Job(configuration, self._values.decode(trial.config), self._epochs_by_rung[int(rung)], trial)

    def tell(self, job: Job, accuracy: float) -> None:
        self._neps.tell(job.ticket, 1 - accuracy)


def parameter(distribution: BaseDistribution, prior: Any) -> Any:  # noqa: ANN401 - NePS' hyperparameters
    """The range as NePS has it, with the baseline's value as its prior if there is one.

    Not a `neps.PipelineSpace`: that orders the choices by their hash, which differs from process to process.
    """
    if isinstance(distribution, CategoricalDistribution):
        return neps.HPOCategorical(labels(distribution), prior=prior)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kind = neps.HPOInteger if isinstance(distribution, IntDistribution) else neps.HPOFloat
    return kind(distribution.low, distribution.high, log=distribution.log, prior=prior)
