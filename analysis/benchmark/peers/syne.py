"""Syne Tune's asynchronous successive halving, with random configurations and with two of its models.

Syne Tune's `BOHB` is this ASHA, which stops trials, with a kernel density estimator: not the synchronous Hyperband of
the paper. By its defaults the estimator starts when 15 % of the trials are more than the names: until the 74th trial of
ten names, `BOHB` is `ASHA`. It also ignores that a range is logarithmic. `ASHACQR` has conformal quantile regression.
Both models see the last accuracy of each trial, at whatever epoch. A condition cannot be told: names that a recipe does
not use are sampled and ignored.
"""

import datetime
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice, lograndint, loguniform, randint, uniform
from syne_tune.optimizer.baselines import ASHA, ASHACQR, BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision

from cifar_tune.search.space import Space
from peers.values import Values, labels

SCHEDULERS = {"Syne Tune ASHA": ASHA, "Syne Tune BOHB": BOHB, "Syne Tune CQR + ASHA": ASHACQR}


class SyneTune:
    """One of these schedulers, called as Syne Tune's tuner calls them."""

    def __init__(self, space: Space, seed: int, scheduler: type) -> None:
        # It warns that it takes the first configurations in one of two ways, and is given them in the other by itself.
        logging.getLogger("syne_tune.optimizer.schedulers").setLevel(logging.ERROR)
        np.random.seed(seed)  # its random configurations, trees and brackets come from here, not from `random_seed`
        self._values = Values(space)
        self._scheduler = scheduler(
            {name: domain(distribution) for name, distribution in self._values.ranges.items()},
            metric="val_accuracy",
            time_attr="epoch",
            max_t=self._values.epochs,
            do_minimize=False,
            random_seed=seed,
            points_to_evaluate=[self._values.full_baseline],
        )
        self._trials: dict[int, Trial] = {}

    def start(self) -> tuple[int, Mapping[str, Any]]:
        number = len(self._trials)
        suggestion = self._scheduler.suggest()
        trial = self._trials[number] = Trial(number, suggestion.config, datetime.datetime.now())
        self._scheduler.on_trial_add(trial)
        return number, self._values.decode(suggestion.config)

    def report(self, number: int, epoch: int, accuracy: float, seconds: float) -> bool:
        """The scheduler stops a trial after its last epoch, too."""
        trial, result = self._trials[number], {"val_accuracy": accuracy, "epoch": epoch}
        goes_on: bool = self._scheduler.on_trial_result(trial, result) == SchedulerDecision.CONTINUE
        if not goes_on:
            self._scheduler.on_trial_remove(trial)
        return goes_on


def domain(distribution: BaseDistribution) -> Any:  # noqa: ANN401 - Syne Tune's domains
    """The range as Syne Tune has it."""
    if isinstance(distribution, CategoricalDistribution):
        return choice(labels(distribution))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(distribution, IntDistribution):
        return (lograndint if distribution.log else randint)(distribution.low, distribution.high)
    return (loguniform if distribution.log else uniform)(distribution.low, distribution.high)
