"""The candidates for the next trial of a search with a forecast: they are drawn, ranked by what they promise, and kept.

A candidate is a random recipe or a neighbour of a good one, which the space gives when it is called with a stand-in for
a trial. So conditional spaces need no special treatment.
"""

import random
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from optuna.trial import BaseTrial

from cifar_tune.errors import InvalidRecipeError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.acquisition import Costs
from cifar_tune.search.crashes import Crashes
from cifar_tune.search.encoding import Array
from cifar_tune.search.forecast import Forecast, Model
from cifar_tune.search.limits import is_within
from cifar_tune.search.space import Space
from cifar_tune.search.stand_ins import NeighbourTrial, RandomTrial, StandIn

if TYPE_CHECKING:
    from cifar_tune.search.gaussian_process import Foresight, Normal

SIZE = 400  # candidates that are compared: those that were drawn last
NUM_RANDOM, NUM_NEW = 200, 30  # random recipes drawn for the first suggestion, and for each one after it
NUM_NEAR = 40  # neighbours drawn of the best trials, and of the best candidates in each of NUM_ROUNDS
NUM_ROUNDS = 2
NUM_BEST = 6  # trials or candidates whose neighbours are drawn
NUM_VALUED = 40  # candidates of which reservation values are computed: those with the highest hopes
SHARES, DISTANCES = (0.2, 0.5, 1.0), (0.1, 0.2, 0.4)  # of NeighbourTrial
SPACING = 0.12  # to keep from every trial: a fraction of each range (root mean square), if there were only one


@dataclass(frozen=True, eq=False)
class Candidate:
    """A recipe that may be the next trial's, the stand-in that samples its values, and its encoded point (columns,)."""

    trial: StandIn
    recipe: Recipe
    point: Array


class Pool:
    """The candidates of one search; a `forecast` with priorities ranks them by reservation value, others by gain."""

    def __init__(self, space: Space, forecast: Forecast, crashes: Crashes, rng: random.Random) -> None:
        self._space = space
        self._forecast = forecast
        self._crashes = crashes
        self._rng = rng
        self._candidates: deque[Candidate] = deque(maxlen=SIZE)
        self._is_fresh = False  # whether candidates were drawn since the last one was taken
        self._predicting: Model | None = None
        self._predicted: dict[Candidate, Array] = {}  # by that model: mean, variance, distance to the nearest trial

    def draw_random(self) -> Candidate | None:
        """A random candidate, which the pool does not keep; None for a draw that is no trial."""
        return next(iter(self._new([RandomTrial(self._rng)])), None)

    def best(self, model: Model) -> Candidate | None:
        """The candidate that promises most; None where every draw repeats a trial or exceeds a limit.

        New candidates are drawn once for each that is taken.
        """
        if not self._is_fresh:
            self._draw(model)
            self._is_fresh = True
        return next(iter(self._ranked(model)), None)

    def take(self, candidate: Candidate) -> None:
        """Take out a candidate that becomes a trial, and its equals."""
        others = [other for other in self._candidates if not np.array_equal(other.point, candidate.point)]
        self._candidates = deque(others, SIZE)
        self._is_fresh = False

    def foresee(self, model: Model, candidates: Sequence[Candidate]) -> "tuple[Foresight, Costs]":
        """What is known of the candidates' final scores, and their epochs."""
        points = np.array([candidate.point for candidate in candidates])
        foresight = model.believing.foresee(points, np.zeros(len(points), dtype=np.intp))
        return foresight, self._forecast.costs_of_new([candidate.recipe for candidate in candidates])

    def _draw(self, model: Model) -> None:
        """Add random recipes, and neighbours of the best trials and of the best candidates."""
        num_random = NUM_NEW if self._candidates else NUM_RANDOM
        self._candidates.extend(self._new(RandomTrial(self._rng) for _ in range(num_random)))
        best = [model.params[i] for i in np.argsort(-model.ends, kind="stable")[:NUM_BEST]]
        self._candidates.extend(self._new(self._neighbours(best)))
        for _ in range(NUM_ROUNDS):
            promising = [candidate.trial.params for candidate in self._ranked(model)[:NUM_BEST]]
            self._candidates.extend(self._new(self._neighbours(promising)))

    def _ranked(self, model: Model) -> list[Candidate]:
        """The candidates by what they promise, the most promising first.

        Candidates near a trial come last, because they would show little more than a second seed of that trial. The
        spacing shrinks as trials fill the space: together they keep the same share of it free, however few its columns.
        """
        num_trials, num_columns = model.points.shape
        scores, distances = self._predict(model)
        is_near = distances < SPACING * np.sqrt(num_columns) * num_trials ** (-1 / max(1, num_columns))
        return [self._candidates[i] for i in np.lexsort((-self._promises(model, scores), is_near))]

    def _predict(self, model: Model) -> "tuple[Normal, Array]":
        """The scores of the candidates and their distances (n,) to trials; a model predicts each one once."""
        from cifar_tune.search.gaussian_process import Normal  # imports torch, which the model has loaded

        if self._predicting is not model:
            self._predicting, self._predicted = model, {}
        new = [candidate for candidate in self._candidates if candidate not in self._predicted]
        if new:
            points = np.array([candidate.point for candidate in new])
            scores = model.predict(points)
            rows = np.column_stack([scores.mean, scores.variance, model.distances(points)])
            self._predicted |= dict(zip(new, rows, strict=True))
        mean, variance, distances = np.array([self._predicted[each] for each in self._candidates]).reshape(-1, 3).T
        return Normal(mean, variance), distances

    def _promises(self, model: Model, scores: "Normal") -> Array:
        """The expected improvement of each candidate on the best trial, or its reservation value."""
        priorities = self._forecast.priorities
        if priorities is None:
            return model.gains(scores)
        hopeful = np.argsort(-(scores.mean + scores.sd), kind="stable")[:NUM_VALUED]
        worths = np.full(len(scores.mean), -np.inf)
        if len(hopeful):
            worths[hopeful] = priorities.worths(*self.foresee(model, [self._candidates[i] for i in hopeful]))
        return worths

    def _neighbours(self, params_of_each: Sequence[Mapping[str, Any]]) -> Iterator[StandIn]:
        for params in islice(cycle(params_of_each), NUM_NEAR):
            yield NeighbourTrial(self._rng, params, self._rng.choice(SHARES), self._rng.choice(DISTANCES))

    def _new(self, trials: Iterable[StandIn]) -> list[Candidate]:
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
