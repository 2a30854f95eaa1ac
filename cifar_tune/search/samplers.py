"""Samplers: where the next trial's values come from. Optuna's own, and one that goes by the search's Forecast."""

import random
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import BaseTrial, FrozenTrial
from scipy.stats import norm

from cifar_tune.search.encoding import Array
from cifar_tune.search.forecast import MIN_TRIALS, Forecast
from cifar_tune.search.limits import draw_within, is_within
from cifar_tune.search.search import SamplerName
from cifar_tune.search.space import Space
from cifar_tune.search.stand_ins import NeighbourTrial, RandomTrial, StandIn

if TYPE_CHECKING:
    from cifar_tune.search.gaussian_process import Normal

POOL = 400  # recipes drawn last, which are compared by their forecasts
NUM_RANDOM, NUM_NEW = 200, 30  # random ones that are drawn the first time, and each time after it
NUM_NEAR = 40  # neighbours of the best trials, and in each of NUM_ROUNDS of the most promising in the pool
NUM_ROUNDS = 2
NUM_BEST = 6
RANDOM_SHARE = 0.25  # of the trials, for what no model foresees: a forecast that misleads is not believed for ever
SHARES, DISTANCES = (0.2, 0.5, 1.0), (0.1, 0.2, 0.4)  # how near
SPACING = 0.1  # of each range, by the root of the mean square, to the nearest trial; less as trials fill the space


@dataclass(frozen=True, eq=False)
class Candidate:
    """A recipe that may be the next trial's: what it samples, and where that lies."""

    trial: StandIn
    point: Array


class ForecastSampler(BaseSampler):
    """The recipe that is expected to improve most on the best trial, of many random ones and neighbours of good ones.

    One in four is random, as in BOHB (Falkner et al., ICML 2018), which takes one in three.
    Recipes are drawn by asking the space itself, so that a conditional one is no special case.
    """

    def __init__(self, space: Space, forecast: Forecast, seed: int) -> None:
        self._space = space
        self._forecast = forecast
        self._rng = random.Random(seed)
        self._independent = RandomSampler(seed)
        self._pool: deque[Candidate] = deque(maxlen=POOL)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What the chosen recipe samples; nothing for a trial whose values are given."""
        is_given = "fixed_params" in trial.system_attrs or "recipe" in trial.user_attrs
        self._chosen = StandIn() if is_given else self._choose()
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
        if not forecast.is_informed:
            return draw_within(self._space, self._rng)
        random_ones = self._drawn(RandomTrial(self._rng) for _ in range(NUM_NEW if self._pool else NUM_RANDOM))
        self._pool.extend(random_ones)
        if random_ones and self._rng.random() < RANDOM_SHARE:
            chosen = random_ones[0]
        elif promising := self._most_promising():
            chosen = promising[0]
        else:  # all that was drawn is known, or above a limit
            return draw_within(self._space, self._rng)
        others = [candidate for candidate in self._pool if not np.array_equal(candidate.point, chosen.point)]
        self._pool = deque(others, POOL)
        return chosen.trial

    def _most_promising(self) -> list[Candidate]:
        """The best of the pool, after it has got neighbours of the best trials, and of the best of itself."""
        forecast = self._forecast
        ends = forecast.predict_trials()
        incumbent = max((ends[number] for number in forecast.completed), default=max(ends.values()))
        best = [forecast.params(number) for number in sorted(ends, key=ends.__getitem__, reverse=True)[:NUM_BEST]]
        self._pool.extend(self._drawn(self._neighbours(best)))
        for _ in range(NUM_ROUNDS):
            promising = [candidate.trial.params for candidate in self._ranked(incumbent)[:NUM_BEST]]
            self._pool.extend(self._drawn(self._neighbours(promising)))
        return self._ranked(incumbent)[:NUM_BEST]

    def _ranked(self, incumbent: float) -> list[Candidate]:
        """The pool, the one whose improvement on the best is expected to be greatest first.

        After all others come those that are like some trial, which would find out little but another seed's luck.
        """
        num_columns = self._forecast.encoding.num_columns
        points = np.array([candidate.point for candidate in self._pool]).reshape(len(self._pool), num_columns)
        worth = expected_improvement(self._forecast.predict(points), incumbent)
        spacing = (
            SPACING * np.sqrt(num_columns) * (MIN_TRIALS / len(self._forecast.numbers)) ** (1 / max(1, num_columns))
        )
        is_near = self._forecast.distances(points) < spacing
        return [self._pool[i] for i in np.lexsort((-worth, is_near))]

    def _neighbours(self, recipes: Sequence[Mapping[str, Any]]) -> Iterator[StandIn]:
        for params in islice(cycle(recipes), NUM_NEAR):
            yield NeighbourTrial(self._rng, params, self._rng.choice(SHARES), self._rng.choice(DISTANCES))

    def _drawn(self, trials: Iterable[StandIn]) -> list[Candidate]:
        """The recipes that are new and within the limits; the space itself is asked for each."""
        candidates = []
        for trial in trials:
            recipe = self._space.sample(cast(BaseTrial, trial))
            (point,) = self._forecast.encoding.encode([trial.params])
            if is_within(recipe, self._space.search.limits) and not self._forecast.knows(point):
                candidates.append(Candidate(trial, point))
        return candidates


def expected_improvement(found: "Normal", best: float) -> Array:
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
