"""Samplers: where the next trial's values come from. Optuna's own, and one that goes by the search's Forecast."""

import random
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from cifar_tune.search.limits import draw_within, is_within
from cifar_tune.search.space import SamplerName, Space
from cifar_tune.search.trials import NeighbourTrial, RandomTrial, StandIn

NUM_RANDOM_TRIALS = 12  # before the forecast is asked
NUM_RANDOM = 200  # recipes that are compared by their forecasts, to begin with
NUM_NEW = 30  # of them; the others were there for the last trial
NUM_NEAR = 60  # neighbours of the best trials, and in each of NUM_ROUNDS of the best recipes so far
NUM_ROUNDS = 3
NUM_BEST = 6
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
            return draw_within(self._space, self._rng)
        ends = forecast.predict_trials()
        best = [forecast.params(forecast.numbers[row]) for row in np.argsort(-ends.mean)[:NUM_BEST]]
        self._pool.extend(self._drawn(RandomTrial(self._rng) for _ in range(NUM_NEW if self._pool else NUM_RANDOM)))
        incumbent = self._incumbent(ends)
        one = draw_within(self._space, self._rng)  # the others may all lie above a limit
        ranked = self._ranked([one, *self._pool, *self._neighbours(best)], incumbent)
        for _ in range(NUM_ROUNDS):
            nearer = self._neighbours([trial.params for _, trial in ranked[:NUM_BEST]])
            ranked = sorted([*ranked[:NUM_BEST], *self._ranked(nearer, incumbent)], key=_worth, reverse=True)
        return ranked[0][1]

    def _ranked(self, drawn: Sequence[StandIn], incumbent: float) -> list[tuple[float, StandIn]]:
        """With the improvement that is expected of each, the greatest first."""
        found = self._forecast.predict([trial.params for trial in drawn])
        worths = expected_improvement(found, incumbent).tolist()
        return sorted(zip(worths, drawn, strict=True), key=_worth, reverse=True)

    def _incumbent(self, ends: Normal) -> float:
        is_complete = ~np.isnan(self._forecast.scores[:, -1])
        return float(ends.mean[is_complete].max() if is_complete.any() else ends.mean.max())

    def _neighbours(self, recipes: Sequence[Mapping[str, Any]]) -> list[StandIn]:
        return self._drawn(self._near(recipes[i % len(recipes)]) for i in range(NUM_NEAR))

    def _near(self, params: Mapping[str, Any]) -> NeighbourTrial:
        return NeighbourTrial(self._rng, params, self._rng.choice(SHARES), self._rng.choice(DISTANCES))

    def _drawn(self, trials: Iterable[StandIn]) -> list[StandIn]:
        """Those whose recipes are within the limits, after the space has asked them all."""
        limits = self._space.search.limits
        return [trial for trial in trials if is_within(self._space.sample(cast(BaseTrial, trial)), limits)]


def _worth(found: tuple[float, StandIn]) -> float:
    return found[0]


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
