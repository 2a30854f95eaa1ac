"""The forecast of final scores: the surrogate model of a search, which its sampler and its scheduler share.

Multi-fidelity Bayesian optimisation: each trial is observed at a few levels, which are fractions of its schedule, and
at its end. One Gaussian process over the sampled values learns from all of them together, so many scores at an early
level and few final ones are enough to predict final scores.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.encoding import Array, Encoding
from cifar_tune.search.rungs import epochs_at
from cifar_tune.trials.trial import COMPLETE_STATES

if TYPE_CHECKING:
    from cifar_tune.search.gaussian_process import GaussianProcess, Normal

Indices = npt.NDArray[np.intp]

LEVELS = (1 / 8,)  # fractions of the schedule; the end is one more level
MAX_TRIALS = 200  # to which the process is fitted; its cost grows with their cube
REFIT = 1.25  # factor by which observations must grow before the hyperparameters are optimized again
TAIL = 1 / 8  # last fraction of a trial's epochs, whose mean score counts as its final score
MIN_TRIALS = 10  # with a score, before anything is predicted
FLOOR = 2.0  # the distance of a score below the median is capped at this many times that of the best above it


@dataclass(frozen=True)
class _Observed:
    """The fixed parts of a trial: its sampled values, their encoded point, and the epoch of each level but the last."""

    params: Mapping[str, Any]
    point: Array
    epochs: Sequence[int]


class Forecast:
    """Predicts final accuracies, without the noise between seeds; `read` updates it from the record.

    `numbers` are the numbers of the trials in it, and `scores` (n, levels + 1) their scores in the same order, NaN at
    levels that a trial has not reached. `ranges` returns the space's distributions, `levels` are fractions of a
    schedule.
    """

    def __init__(
        self, study: Study, ranges: Callable[[], Mapping[str, BaseDistribution]], levels: Sequence[float]
    ) -> None:
        self._study = study
        self._ranges = ranges
        self._fractions = levels
        self.numbers: list[int] = []
        self.scores = np.empty((0, len(self._fractions) + 1))
        self._is_running = np.empty(0, dtype=bool)
        self._observed: dict[int, _Observed] = {}  # by trial number
        self._point_bytes: set[bytes] = set()  # the points of all trials
        self._num_optimized = 0  # the number of observations when the hyperparameters were last optimized

    @cached_property
    def encoding(self) -> Encoding:
        """The encoding of the space's values; made late, because searches without a forecast need none."""
        return Encoding(self._ranges())

    @cached_property
    def _process(self) -> "GaussianProcess":
        from cifar_tune.search.gaussian_process import GaussianProcess  # imports torch, which a report need not load

        return GaussianProcess(self.encoding.num_columns, len(self._fractions) + 1)

    def read(self) -> None:
        """Update the model to the trials that are in the record now."""
        trials = [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if "recipe" in trial.user_attrs and trial.state != TrialState.FAIL
        ]
        for trial in trials:
            if trial.number not in self._observed:
                recipe = Recipe.model_validate(trial.user_attrs["recipe"])
                point = self.encoding.encode([trial.params])[0]
                self._observed[trial.number] = _Observed(trial.params, point, epochs_at(recipe, self._fractions))
                self._point_bytes.add(point.tobytes())
        scores = np.array([self._scores(trial) for trial in trials]).reshape(-1, len(self._fractions) + 1)
        is_running = np.array([trial.state == TrialState.RUNNING for trial in trials], dtype=bool)
        if np.array_equal(scores, self.scores, equal_nan=True) and np.array_equal(is_running, self._is_running):
            return
        self.numbers = [trial.number for trial in trials]
        self._points = np.array([self._observed[number].point for number in self.numbers])
        self.scores, self._is_running = scores, is_running
        self._fit()

    def _scores(self, trial: FrozenTrial) -> list[float]:
        """The score at each level; a trial that broke down or stopped early has its final score at later levels."""
        end = _final_score(trial) if trial.state == TrialState.COMPLETE else math.nan
        epochs = self._observed[trial.number].epochs
        return [*(trial.intermediate_values.get(epoch, end) for epoch in epochs), end]

    def _fit(self) -> None:
        """Fit the process; predictions count as scores of running trials, so the sampler does not go there again."""
        if not self.is_informed:
            return
        points, scores = self._points, floored(self.scores)
        rows = self._thinned(np.flatnonzero(~np.isnan(scores).all(axis=1)))
        num_observations = int((~np.isnan(scores[rows])).sum())
        optimize = num_observations >= REFIT * self._num_optimized
        self._num_optimized = num_observations if optimize else self._num_optimized
        self._process.fit(points[rows], scores[rows], optimize=optimize)
        if self._is_running.any():
            self._process.believe(points[self._is_running])

    def _thinned(self, rows: Indices) -> Indices:
        """At most MAX_TRIALS rows: one half the best trials at the highest level reached, the other the latest ones."""
        if len(rows) <= MAX_TRIALS:
            return rows
        by_end = np.lexsort(np.nan_to_num(self.scores[rows], nan=-math.inf).T)
        best, others = np.split(rows[by_end[::-1]], [MAX_TRIALS // 2])
        return np.concatenate([best, np.sort(others)[-(MAX_TRIALS // 2) :]])

    @property
    def is_informed(self) -> bool:
        """Whether there are enough scores for predictions."""
        return int((~np.isnan(self.scores)).any(axis=1).sum()) >= MIN_TRIALS

    @property
    def completed(self) -> list[int]:
        """The numbers of the trials with a final score."""
        return [self.numbers[row] for row in np.flatnonzero(~np.isnan(self.scores[:, -1]))]

    def params(self, number: int) -> Mapping[str, Any]:
        """The sampled values of a trial."""
        return self._observed[number].params

    def has_trial_at(self, point: Array) -> bool:
        """Whether a trial has exactly these encoded values, (columns,)."""
        return point.tobytes() in self._point_bytes

    def distances(self, points: Array) -> Array:
        """The distance of each of (n, columns) encoded points to the nearest trial: (n,)."""
        from scipy.spatial.distance import cdist  # half a second that a report need not wait for

        distances: Array = cdist(points, self._points).min(axis=1)
        return distances

    def predict(self, points: Array) -> "Normal":
        """The final scores of recipes, by their encoded values (n, columns)."""
        return self._process.predict(points)

    def predict_trials(self) -> dict[int, float]:
        """The expected final score of each trial by number, without the noise of its own seed where it has ended."""
        return dict(zip(self.numbers, self.predict(self._points).mean.tolist(), strict=True))


def _final_score(trial: FrozenTrial) -> float:
    """The mean score of the trial's last epochs, which scatters less than that of the last one."""
    scores = [score for _, score in sorted(trial.intermediate_values.items())]
    if trial.user_attrs["state"] not in COMPLETE_STATES or not scores:
        assert trial.value is not None
        return trial.value
    return fmean(scores[-math.ceil(TAIL * len(scores)) :])


def floored(scores: Array) -> Array:
    """Scores (n, levels) with very low ones raised: otherwise a few breakdowns would dominate the fit. NaN stays."""
    lowest = [_floor(column[~np.isnan(column)]) for column in scores.T]
    return np.maximum(scores, lowest)


def _floor(scores: Array) -> float:
    if len(scores) == 0:
        return -math.inf
    median = np.median(scores)
    return float(median - FLOOR * (scores.max() - median))
