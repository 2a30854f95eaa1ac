"""What trials will end at, from all that those of a search have shown so far: one model for searcher and scheduler.

A trial is seen at a few levels, fractions of its schedule, and at its end; a Gaussian process over the sampled values
knows all of them at once, so that many scores at an early level and few ends make a forecast of the end.
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

LEVELS = (1 / 8,)  # fractions of the schedule; the end is one more
MAX_TRIALS = 200  # that the process is fitted to: its cost grows with their cube
REFIT = 1.25  # hyperparameters are sought again when there are so many times the observations of the last time
TAIL = 1 / 8  # of a trial's epochs, whose mean score is taken for its end
MIN_TRIALS = 10  # with a score; before that nothing is forecast
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
    has not been. `levels` are the fractions of a schedule at which it looks, `ranges` gives the space's distributions.
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
        self._given: dict[int, _Given] = {}
        self._known: set[bytes] = set()  # their points
        self._num_optimized = 0  # observations when the hyperparameters were last sought

    @cached_property
    def encoding(self) -> Encoding:
        """Of what the space samples; a search that asks for no forecast does not wait for it."""
        return Encoding(self._ranges())

    @cached_property
    def _process(self) -> "GaussianProcess":
        from cifar_tune.search.gaussian_process import GaussianProcess  # torch's import is for searches alone

        return GaussianProcess(self.encoding.num_columns, len(self._fractions) + 1)

    def read(self) -> None:
        """Take note of what is in the record now."""
        found = self._study.get_trials(deepcopy=False)
        trials = [trial for trial in found if "recipe" in trial.user_attrs and trial.state != TrialState.FAIL]
        for trial in trials:
            if trial.number not in self._given:
                recipe = Recipe.model_validate(trial.user_attrs["recipe"])
                point = self.encoding.encode([trial.params])[0]
                self._given[trial.number] = _Given(trial.params, point, epochs_at(recipe, self._fractions))
                self._known.add(point.tobytes())
        scores = np.array([self._scores(trial) for trial in trials]).reshape(-1, len(self._fractions) + 1)
        is_running = np.array([trial.state == TrialState.RUNNING for trial in trials], dtype=bool)
        is_known = np.array_equal(scores, self.scores, equal_nan=True) and np.array_equal(is_running, self._is_running)
        if not is_known:
            self.numbers = [trial.number for trial in trials]
            self._points = np.array([self._given[number].point for number in self.numbers])
            self.scores, self._is_running = scores, is_running
            self._fit()

    def _scores(self, trial: FrozenTrial) -> list[float]:
        """At each level; what broke down or stopped early is at the levels that it never got to what it ended as."""
        end = _end(trial) if trial.state == TrialState.COMPLETE else math.nan
        epochs = self._given[trial.number].epochs
        return [*(trial.intermediate_values.get(epoch, end) for epoch in epochs), end]

    def _fit(self) -> None:
        """A running trial is believed to go as expected, so that nobody else is sent where it already is."""
        if not self.is_informed:
            return
        points, scores = self._points, floored(self.scores)
        rows = self._thinned(np.flatnonzero(~np.isnan(scores).all(axis=1)))
        num_seen = int((~np.isnan(scores[rows])).sum())
        optimize = num_seen >= REFIT * self._num_optimized
        self._num_optimized = num_seen if optimize else self._num_optimized
        self._process.fit(points[rows], scores[rows], optimize=optimize)
        if self._is_running.any():
            self._process.believe(points[self._is_running])

    def _thinned(self, rows: Indices) -> Indices:
        """At most MAX_TRIALS: half the best of those that got furthest, the others the latest."""
        if len(rows) <= MAX_TRIALS:
            return rows
        by_end = np.lexsort(np.nan_to_num(self.scores[rows], nan=-math.inf).T)
        best, others = np.split(rows[by_end[::-1]], [MAX_TRIALS // 2])
        return np.concatenate([best, np.sort(others)[-(MAX_TRIALS // 2) :]])

    @property
    def is_informed(self) -> bool:
        """Whether there are scores to go by."""
        return int((~np.isnan(self.scores)).any(axis=1).sum()) >= MIN_TRIALS

    @property
    def completed(self) -> list[int]:
        """The numbers of the trials that came to their end."""
        return [self.numbers[row] for row in np.flatnonzero(~np.isnan(self.scores[:, -1]))]

    def params(self, number: int) -> Mapping[str, Any]:
        """The sampled values of a trial."""
        return self._given[number].params

    def knows(self, point: Array) -> bool:
        """Whether a trial samples just these values, (columns,)."""
        return point.tobytes() in self._known

    def distances(self, points: Array) -> Array:
        """How far each of (n, columns) is from the nearest trial."""
        from scipy.spatial.distance import cdist  # half a second that a report need not wait for

        found: Array = cdist(points, self._points).min(axis=1)
        return found

    def predict(self, points: Array) -> "Normal":
        """Where recipes end, by their encoded values, (n, columns)."""
        return self._process.predict(points)

    def predict_trials(self) -> dict[int, float]:
        """Where the trials are expected to end, without the luck of those that have, by number."""
        return dict(zip(self.numbers, self.predict(self._points).mean.tolist(), strict=True))


def _end(trial: FrozenTrial) -> float:
    """What a trial came to: the mean score of its last epochs, which scatters less than the last one."""
    scores = [score for _, score in sorted(trial.intermediate_values.items())]
    if trial.user_attrs["state"] not in COMPLETE_STATES or not scores:
        assert trial.value is not None
        return trial.value
    return fmean(scores[-math.ceil(TAIL * len(scores)) :])


def floored(scores: Array) -> Array:
    """Without depths: a breakdown says no more than that it is bad, and would be all that a process sees."""
    lowest = [_floor(column[~np.isnan(column)]) for column in scores.T]
    return np.maximum(scores, lowest)  # NaN stays


def _floor(scores: Array) -> float:
    if len(scores) == 0:
        return -math.inf
    median = np.median(scores)
    return float(median - FLOOR * (scores.max() - median))
