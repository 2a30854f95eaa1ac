"""Samplers: where the next trial's values come from. Optuna's own, and one that goes by the search's Forecast."""

import random
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import BaseTrial, FrozenTrial
from scipy.stats import norm

from cifar_tune.search.encoding import Array
from cifar_tune.search.forecast import Forecast
from cifar_tune.search.gaussian_process import Normal
from cifar_tune.search.space import SamplerName, Space
from cifar_tune.search.trials import NeighbourTrial, RandomTrial, StandIn

NUM_RANDOM_TRIALS = 12  # before the forecast is asked
NUM_RANDOM, NUM_NEAR = 300, 200  # recipes that are compared by their forecasts
NUM_NEW = 50  # of the random ones; the others were there for the last trial
NUM_BEST = 5  # trials near which recipes are drawn
SHARES, DISTANCES = (0.2, 0.5, 1.0), (0.03, 0.1, 0.2)  # how near


class ForecastSampler(BaseSampler):
    """The recipe that is expected to improve most on the best trial, of many random ones and neighbours of good ones.

    Recipes are drawn by asking the space itself, so that a conditional one is no special case.
    """

    def __init__(self, space: Space, forecast: Forecast, seed: int) -> None:
        self._space = space
        self._forecast = forecast
        self._rng = random.Random(seed)
        self._independent = RandomSampler(seed)
        self._pool: deque[StandIn] = deque(maxlen=NUM_RANDOM)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What the chosen recipe samples; nothing for a trial whose values are given."""
        self._chosen = StandIn() if "fixed_params" in trial.system_attrs else self._choose()
        return self._chosen.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Of the chosen recipe."""
        return self._chosen.params

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - what the distribution has
        """At random."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _choose(self) -> StandIn:
        forecast = self._forecast
        forecast.read()
        if len(forecast.numbers) < NUM_RANDOM_TRIALS:
            return self._draw(RandomTrial(self._rng))
        ends = forecast.predict_trials()
        best = [forecast.params(forecast.numbers[row]) for row in np.argsort(-ends.mean)[:NUM_BEST]]
        self._pool.extend(self._draw(RandomTrial(self._rng)) for _ in range(NUM_NEW if self._pool else NUM_RANDOM))
        drawn = [*self._pool, *(self._draw(self._near(best[i % len(best)])) for i in range(NUM_NEAR))]
        found = forecast.predict([trial.params for trial in drawn])
        return drawn[int(np.argmax(expected_improvement(found, self._incumbent(ends))))]

    def _incumbent(self, ends: Normal) -> float:
        is_complete = ~np.isnan(self._forecast.scores[:, -1])
        return float(ends.mean[is_complete].max() if is_complete.any() else ends.mean.max())

    def _near(self, params: Mapping[str, Any]) -> NeighbourTrial:
        return NeighbourTrial(self._rng, params, self._rng.choice(SHARES), self._rng.choice(DISTANCES))

    def _draw(self, trial: StandIn) -> StandIn:
        self._space.sample(cast(BaseTrial, trial))
        return trial


def expected_improvement(found: Normal, best: float) -> Array:
    """By how much each is expected to lie above `best`, counting those that do not as zero."""
    z = (found.mean - best) / found.sd
    return np.asarray(found.sd * (z * norm.cdf(z) + norm.pdf(z)))


def build_sampler(space: Space, forecast: Forecast, seed: int) -> BaseSampler:
    """The one that the space's SEARCH names, with a seed of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if space.search.sampler == "forecast":
            return ForecastSampler(space, forecast, seed)
        return OPTUNAS[space.search.sampler](seed)


def _tpe(seed: int) -> BaseSampler:
    """Over each branch of a conditional space by itself (`group`), the parameters of a branch together."""
    return TPESampler(seed=seed, multivariate=True, group=True)


OPTUNAS: dict[SamplerName, Callable[[int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda seed: RandomSampler(seed),
    "gp": lambda seed: GPSampler(seed=seed),
    "cmaes": lambda seed: CmaEsSampler(seed=seed),
    "qmc": lambda seed: QMCSampler(seed=seed, scramble=True),
}
