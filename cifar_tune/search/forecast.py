"""What trials will end at, from all that those of a search have shown so far: one model for searcher and scheduler.

A trial is seen at a few levels, fractions of its schedule, and at its end. A Gaussian process over the sampled values
knows the scores at the first level, where nearly every trial has one, and one for each later level what those that got
there gained over a straight line from the level before (Kennedy and O'Hagan's autoregressive model, Biometrika 87:1,
2000, in the recursive form of Le Gratiet and Garnier, arXiv:1210.0686). That only good trials get further does no harm:
they were chosen by the very score that the line starts from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from cifar_tune.recipe import Recipe
from cifar_tune.search.encoding import Array, Encoding
from cifar_tune.search.gaussian_process import GaussianProcess, Normal

if TYPE_CHECKING:
    from cifar_tune.search.space import Space

Indices = npt.NDArray[np.intp]

LEVELS = (1 / 16, 1 / 4)  # fractions of the schedule; the end is one more
MAX_POINTS = 200  # that a process is fitted to: its cost grows with their cube
REFIT = 1.25  # hyperparameters are sought again when there are so many times the observations of the last time
RIDGE = 5e-4  # accuracies squared: holds a line through few points to the slope 1
MIN_POINTS = 3  # for a line; before that a level adds nothing but UNKNOWN to the one before
UNKNOWN = 0.05  # standard deviation of what a level adds while too few trials got there, in accuracy
MIN_TRIALS = 8  # before a forecast is better than the scores themselves
FLOOR = 2.0  # a score lies at most so many times as far below the median as the best lies above it


@dataclass(frozen=True)
class _Given:
    """What of a trial never changes: its sampled values, where they lie, and the epoch of each level but the last."""

    params: Mapping[str, Any]
    point: Array
    epochs: Sequence[int]


class Forecast:
    """The model, brought up to date by `read`; its predictions are of accuracies at the end, without a seed's noise.

    `numbers` are those of the trials it knows, in the order of the rows of `scores`: (n, levels), NaN where a trial
    has not been.
    """

    def __init__(self, study: Study, space: "Space", seed: int) -> None:
        self._study = study
        self._space = space
        self._fractions = space.search.scheduler.levels
        self.numbers: list[int] = []
        self.scores = np.empty((0, len(self._fractions) + 1))
        self._is_running = np.empty(0, dtype=bool)
        self._rng = np.random.default_rng(seed)
        self._given: dict[int, _Given] = {}

    @cached_property
    def encoding(self) -> Encoding:
        """Of what the space samples; a search that asks for no forecast does not wait for it."""
        return Encoding(self._space.ranges())

    @cached_property
    def _levels(self) -> list["_Level"]:
        return [_Level(self.encoding.num_columns) for _ in range(len(self._fractions) + 1)]

    def read(self) -> None:
        """Take note of what is in the record now."""
        found = self._study.get_trials(deepcopy=False)
        trials = [trial for trial in found if "recipe" in trial.user_attrs and trial.state != TrialState.FAIL]
        for trial in trials:
            if trial.number not in self._given:
                recipe = Recipe.model_validate(trial.user_attrs["recipe"])
                point = self.encoding.encode([trial.params])[0]
                self._given[trial.number] = _Given(trial.params, point, level_epochs(recipe, self._fractions))
        scores = np.array([self._scores(trial) for trial in trials]).reshape(-1, len(self._levels))
        is_running = np.array([trial.state == TrialState.RUNNING for trial in trials], dtype=bool)
        is_known = np.array_equal(scores, self.scores, equal_nan=True) and np.array_equal(is_running, self._is_running)
        if not is_known:
            self.numbers = [trial.number for trial in trials]
            self.scores, self._is_running = scores, is_running
            self._fit()

    def _scores(self, trial: FrozenTrial) -> list[float]:
        """At each level; what broke down or stopped early is at the levels that it never got to what it ended as."""
        is_complete = trial.state == TrialState.COMPLETE
        end = trial.value if is_complete and trial.value is not None else math.nan
        epochs = self._given[trial.number].epochs
        return [*(trial.intermediate_values.get(epoch, end) for epoch in epochs), end]

    def _fit(self) -> None:
        """A running trial is believed to go as expected, so that nobody else is sent where it already is."""
        points = np.array([self._given[number].point for number in self.numbers])
        scores = floored(self.scores)
        before = np.zeros(len(scores))
        for level, now in zip(self._levels, scores.T, strict=True):
            seen = np.flatnonzero(~np.isnan(now) & ~np.isnan(before))
            rows = self._thinned(seen, now)
            level.fit(points[rows], before[rows], now[rows])
            level.believe(points[self._is_running & np.isnan(now)])
            before = now

    def _thinned(self, rows: Indices, scores: Array) -> Indices:
        """At most MAX_POINTS: the best of them, and as many of the others by chance."""
        if len(rows) <= MAX_POINTS:
            return rows
        ranked = rows[np.argsort(-scores[rows])]
        best, others = np.split(ranked, [MAX_POINTS // 2])
        return np.concatenate([best, self._rng.choice(others, MAX_POINTS - len(best), replace=False)])

    @property
    def is_informed(self) -> bool:
        """Whether there is something to go by: a few trials, and one that has come to its end."""
        is_over = ~np.isnan(self.scores[:, -1])
        return len(self.numbers) >= MIN_TRIALS and bool(is_over.any())

    def promises(self, level: int) -> dict[int, float]:
        """What is expected in the end of every trial that was at a level, by number."""
        ends = self.predict_trials()
        return {self.numbers[row]: float(ends.mean[row]) for row in np.flatnonzero(~np.isnan(self.scores[:, level]))}

    def params(self, number: int) -> Mapping[str, Any]:
        """The sampled values of a trial."""
        return self._given[number].params

    def predict(self, params: Sequence[Mapping[str, Any]]) -> Normal:
        """Where recipes would end that were not tried."""
        return self._onwards(self.encoding.encode(params), np.full((len(params), len(self._levels)), np.nan))

    def predict_trials(self) -> Normal:
        """Where the trials end, `numbers` in order; from the last level that each has reached."""
        return self._onwards(np.array([self._given[number].point for number in self.numbers]), floored(self.scores))

    def _onwards(self, points: Array, scores: Array) -> Normal:
        found = Normal(np.zeros(len(points)), np.zeros(len(points)))
        for level, now in zip(self._levels, scores.T, strict=True):
            expected = level.predict(points, found)
            is_seen = ~np.isnan(now)
            found = Normal(np.where(is_seen, now, expected.mean), np.where(is_seen, 0.0, expected.variance))
        return found


class _Level:
    """The scores at one level: a line through those at the level before, and a process over what is left of them."""

    def __init__(self, num_columns: int) -> None:
        self._process = GaussianProcess(num_columns)
        self._line = (0.0, 1.0)
        self._num_points = 0
        self._num_optimized = 0

    def fit(self, points: Array, before: Array, scores: Array) -> None:
        """Take (n, columns), (n,) and (n,) as all that was seen."""
        self._num_points = len(points)
        if self._num_points < MIN_POINTS:
            return
        deviation = before - before.mean()
        slope = (deviation @ (scores - scores.mean()) + RIDGE) / (deviation @ deviation + RIDGE)
        self._line = (scores.mean() - slope * before.mean(), slope)
        optimize = self._num_points >= REFIT * self._num_optimized
        self._num_optimized = self._num_points if optimize else self._num_optimized
        self._process.fit(points, scores - self._line[0] - slope * before, optimize=optimize)

    def believe(self, points: Array) -> None:
        """Take for seen at these points what is expected there."""
        if self._num_points >= MIN_POINTS and len(points):
            self._process.believe(points)

    def predict(self, points: Array, before: Normal) -> Normal:
        """From the level before to this one, without a seed's noise: no trial that is like another can surprise."""
        if self._num_points < MIN_POINTS:
            return Normal(before.mean, before.variance + UNKNOWN**2)
        intercept, slope = self._line
        rest = self._process.predict(points)
        return Normal(intercept + slope * before.mean + rest.mean, slope**2 * before.variance + rest.variance)


def level_epochs(recipe: Recipe, fractions: Sequence[float] = LEVELS) -> list[int]:
    """The epochs after which a trial is at each level but the last; none before it may be compared with others."""
    return [min(max(recipe.epoch_at(fraction), recipe.first_rung), recipe.epochs) for fraction in fractions]


def floored(scores: Array) -> Array:
    """Without depths: a breakdown says no more than that it is bad, and would be all that a process sees."""
    lowest = [_floor(column[~np.isnan(column)]) for column in scores.T]
    return np.maximum(scores, lowest)  # NaN stays


def _floor(scores: Array) -> float:
    if len(scores) == 0:
        return -math.inf
    median = np.median(scores)
    return float(median - FLOOR * (scores.max() - median))
