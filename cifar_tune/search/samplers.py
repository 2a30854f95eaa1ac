"""Samplers choose the values of the next trial: Optuna's own, and one that uses the forecast of this search.

ForecastSampler is multi-fidelity Bayesian optimisation: the surrogate model (forecast.py) learns from early and final
scores, and its acquisition function is the expected improvement of the final score.
"""

import random
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import BaseTrial, FrozenTrial

from cifar_tune.errors import InvalidRecipeError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.acquisition import Costs, expected_improvement
from cifar_tune.search.crashes import Crashes
from cifar_tune.search.encoding import Array
from cifar_tune.search.forecast import Forecast, Model
from cifar_tune.search.limits import draw_within, is_within
from cifar_tune.search.priorities import Priorities
from cifar_tune.search.search import SamplerName
from cifar_tune.search.space import Space
from cifar_tune.search.stand_ins import NeighbourTrial, RandomTrial, StandIn

if TYPE_CHECKING:
    from cifar_tune.search.gaussian_process import Foresight, Normal

POOL = 400  # candidates that are compared: those that were drawn last
NUM_RANDOM, NUM_NEW = 200, 30  # random recipes drawn for the first suggestion, and for each one after it
NUM_NEAR = 40  # neighbours drawn of the best trials, and of the best candidates in each of NUM_ROUNDS
NUM_ROUNDS = 2
NUM_BEST = 6  # trials or candidates whose neighbours are drawn
NUM_VALUED = 40  # candidates of which reservation values are computed: those with the highest hopes
RANDOM_SHARE = 0.25  # of the suggestions, so that a misleading forecast cannot direct the whole search
SHARES, DISTANCES = (0.2, 0.5, 1.0), (0.1, 0.2, 0.4)  # of NeighbourTrial
SPACING = 0.12  # to keep from every trial: a fraction of each range (root mean square), if there were only one


@dataclass(frozen=True, eq=False)
class Candidate:
    """A recipe that may be the next trial's, the stand-in that samples its values, and its encoded point (columns,)."""

    trial: StandIn
    recipe: Recipe
    point: Array


class ForecastSampler(BaseSampler):
    """Suggests the recipe with the largest expected improvement, among random recipes and neighbours of good ones.

    Where the scheduler freezes and thaws trials, it is the one with the largest reservation value (priorities.py). One
    suggestion in four is random; in BOHB (Falkner et al., ICML 2018) one in three is. Recipes are drawn by calling the
    space, so conditional spaces need no special treatment.
    """

    def __init__(self, space: Space, forecast: Forecast, crashes: Crashes, seed: int) -> None:
        self._space = space
        self._forecast = forecast
        self._crashes = crashes
        self._rng = random.Random(seed)
        self._independent = RandomSampler(seed)
        self._pool: deque[Candidate] = deque(maxlen=POOL)
        self._is_fresh = False  # whether candidates were drawn since the last suggestion
        self._predicting: Model | None = None
        self._predicted: dict[Candidate, Array] = {}  # by that model: mean, variance, distance to the nearest trial
        if space.search.scheduler.name == "freeze-thaw":
            forecast.priorities = Priorities(forecast, self.best_new)

    def best_new(self) -> "tuple[Foresight, Costs] | None":
        """What is known of the most promising candidate; None where there is none. The forecast has been fitted."""
        model = self._forecast.model
        assert model is not None
        best = self._most_promising(model)[:1]
        return self._foresee(model, best) if best else None

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
        if self._rng.random() < RANDOM_SHARE and (new := self._candidates([RandomTrial(self._rng)])):
            candidate = new[0]
        elif promising := self._most_promising(model):
            candidate = promising[0]
            self._forecast.note_gain(float(_gains(model, model.predict(candidate.point[None]))[0]))
        else:  # every draw repeats a trial or exceeds a limit
            return draw_within(self._space, self._rng)
        others = [other for other in self._pool if not np.array_equal(other.point, candidate.point)]
        self._pool = deque(others, POOL)
        self._is_fresh = False
        return candidate.trial

    def _most_promising(self, model: Model) -> list[Candidate]:
        """The best candidates of the pool, to which new ones are added once for each suggestion."""
        if not self._is_fresh:
            self._draw(model)
            self._is_fresh = True
        return self._ranked_pool(model)[:NUM_BEST]

    def _draw(self, model: Model) -> None:
        """Add random recipes, and neighbours of the best trials and of the best candidates, to the pool."""
        num_random = NUM_NEW if self._pool else NUM_RANDOM
        self._pool.extend(self._candidates(RandomTrial(self._rng) for _ in range(num_random)))
        best = [model.params[i] for i in np.argsort(-model.ends, kind="stable")[:NUM_BEST]]
        self._pool.extend(self._candidates(self._neighbours(best)))
        for _ in range(NUM_ROUNDS):
            promising = [candidate.trial.params for candidate in self._ranked_pool(model)[:NUM_BEST]]
            self._pool.extend(self._candidates(self._neighbours(promising)))

    def _ranked_pool(self, model: Model) -> list[Candidate]:
        """The candidates by what they promise, the most promising first.

        Candidates near a trial come last, because they would show little more than a second seed of that trial. The
        spacing shrinks as trials fill the space: together they keep the same share of it free, however few its columns.
        """
        num_trials, num_columns = model.points.shape
        scores, distances = self._predict_pool(model)
        is_near = distances < SPACING * np.sqrt(num_columns) * num_trials ** (-1 / max(1, num_columns))
        return [self._pool[i] for i in np.lexsort((-self._promises(model, scores), is_near))]

    def _predict_pool(self, model: Model) -> "tuple[Normal, Array]":
        """The scores of the pool's candidates and their distances (n,) to trials; a model predicts each one once."""
        from cifar_tune.search.gaussian_process import Normal  # imports torch, which the model has loaded

        if self._predicting is not model:
            self._predicting, self._predicted = model, {}
        new = [candidate for candidate in self._pool if candidate not in self._predicted]
        if new:
            points = np.array([candidate.point for candidate in new])
            scores = model.predict(points)
            rows = np.column_stack([scores.mean, scores.variance, model.distances(points)])
            self._predicted |= dict(zip(new, rows, strict=True))
        mean, variance, distances = np.array([self._predicted[each] for each in self._pool]).reshape(-1, 3).T
        return Normal(mean, variance), distances

    def _promises(self, model: Model, scores: "Normal") -> Array:
        """The expected improvement of each of the pool's candidates on the best trial, or its reservation value."""
        priorities = self._forecast.priorities
        if priorities is None:
            return _gains(model, scores)
        hopeful = np.argsort(-(scores.mean + scores.sd), kind="stable")[:NUM_VALUED]
        worths = np.full(len(scores.mean), -np.inf)
        if len(hopeful):
            worths[hopeful] = priorities.worths(*self._foresee(model, [self._pool[i] for i in hopeful]))
        return worths

    def _foresee(self, model: Model, candidates: Sequence[Candidate]) -> "tuple[Foresight, Costs]":
        """What is known of the candidates' final scores, and their epochs."""
        points = np.array([candidate.point for candidate in candidates])
        foresight = model.believing.foresee(points, np.zeros(len(points), dtype=np.intp))
        return foresight, self._forecast.costs_of_new([candidate.recipe for candidate in candidates])

    def _neighbours(self, params_of_each: Sequence[Mapping[str, Any]]) -> Iterator[StandIn]:
        for params in islice(cycle(params_of_each), NUM_NEAR):
            yield NeighbourTrial(self._rng, params, self._rng.choice(SHARES), self._rng.choice(DISTANCES))

    def _candidates(self, trials: Iterable[StandIn]) -> list[Candidate]:
        """Call the space with each stand-in; those whose recipe is new, within the limits, and like none that fails."""
        candidates = []
        for trial in trials:
            with suppress(InvalidRecipeError):
                recipe = self._space.sample(cast(BaseTrial, trial))
                (point,) = self._forecast.encoding.encode([trial.params])
                if not self._forecast.has_trial_at(point) and is_within(recipe, self._space.search.limits):
                    candidates.append(Candidate(trial, recipe, point))
        are_left_out = self._crashes.are_left_out([candidate.trial.params for candidate in candidates])
        return [each for each, is_left_out in zip(candidates, are_left_out, strict=True) if not is_left_out]


def _gains(model: Model, scores: "Normal") -> Array:
    """The expected improvement of each of n scores on the best trial: (n,)."""
    best = float(model.ends.max()) if model.incumbent is None else model.incumbent
    return expected_improvement(scores, best)


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
