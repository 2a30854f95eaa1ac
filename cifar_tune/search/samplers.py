"""Samplers choose the values of the next trial: Optuna's own, and one that uses the forecast of this search.

ForecastSampler is multi-fidelity Bayesian optimisation: the surrogate model (forecast.py) learns from early and final
scores, and its acquisition function is a reservation value or the expected improvement of the final score.
"""

import random
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from cifar_tune.search.acquisition import Costs
from cifar_tune.search.crashes import Crashes
from cifar_tune.search.forecast import Forecast
from cifar_tune.search.limits import draw_within
from cifar_tune.search.pool import Pool
from cifar_tune.search.priorities import Priorities
from cifar_tune.search.search import SamplerName
from cifar_tune.search.space import Space
from cifar_tune.search.stand_ins import StandIn

if TYPE_CHECKING:
    from cifar_tune.search.gaussian_process import Foresight

RANDOM_SHARE = 0.25  # of the suggestions, so that a misleading forecast cannot direct the whole search


class ForecastSampler(BaseSampler):
    """Suggests the recipe with the largest expected improvement, among random recipes and neighbours of good ones.

    Where the scheduler freezes and thaws trials, it is the one with the largest reservation value (priorities.py). One
    suggestion in four is random; in BOHB (Falkner et al., ICML 2018) one in three is.
    """

    def __init__(self, space: Space, forecast: Forecast, crashes: Crashes, seed: int) -> None:
        self._space = space
        self._forecast = forecast
        self._rng = random.Random(seed)
        self._pool = Pool(space, forecast, crashes, self._rng)
        self._independent = RandomSampler(seed)
        if space.search.scheduler.name == "freeze-thaw":
            forecast.priorities = Priorities(forecast, self.best_new, space.baselines[0].epochs)

    def best_new(self) -> "tuple[Foresight, Costs] | None":
        """What is known of the most promising candidate; None where there is none. The forecast has been fitted."""
        model = self._forecast.model
        assert model is not None
        best = self._pool.best(model)
        return self._pool.foresee(model, [best]) if best else None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The distributions of the suggested recipe; none for a trial that has its values already."""
        has_values = "fixed_params" in trial.system_attrs or "recipe" in trial.user_attrs
        self._suggestion = StandIn() if has_values else self._suggest()
        return self._suggestion.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of the suggested recipe."""
        return self._suggestion.params

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - what the distribution has
        """A random value, for a name that the suggested recipe does not have."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _suggest(self) -> StandIn:
        model = self._forecast.fit()
        if model is None:
            return draw_within(self._space, self._rng)
        candidate = self._pool.draw_random() if self._rng.random() < RANDOM_SHARE else None
        if candidate is None:
            candidate = self._pool.best(model)
            if candidate is None:
                return draw_within(self._space, self._rng)
            self._forecast.note_gain(float(model.gains(model.predict(candidate.point[None]))[0]))
        self._pool.take(candidate)
        return candidate.trial


def build_sampler(
    space: Space, forecast: Forecast | None, crashes: Crashes, *, seed: int, num_trials: int
) -> BaseSampler:
    """The sampler that the space's SEARCH names; only the forecast's uses the two models of the search.

    A search that is resumed after `num_trials` goes on with other random numbers. But a QMC sequence stays the same:
    Optuna keeps in the study how far it got. A point that was chosen ahead and never trained is skipped.
    """
    sampler_seed = seed if space.search.sampler == "qmc" else seed + num_trials
    sampler_seed %= 2**32  # numpy takes no larger ones
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if space.search.sampler == "forecast":
            assert forecast is not None
            return ForecastSampler(space, forecast, crashes, sampler_seed)
        return OPTUNAS[space.search.sampler](sampler_seed)


def _tpe(seed: int) -> BaseSampler:
    """TPE that models each branch of a conditional space separately (`group`), and the values of a branch jointly."""
    return TPESampler(seed=seed, multivariate=True, group=True)


OPTUNAS: dict[SamplerName, Callable[[int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda seed: RandomSampler(seed),
    "gp": lambda seed: GPSampler(seed=seed),
    "cmaes": lambda seed: CmaEsSampler(seed=seed),
    "qmc": lambda seed: QMCSampler(seed=seed, scramble=True),
}
