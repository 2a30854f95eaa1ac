"""The forecast of final scores: the surrogate model of a search, which its sampler and its scheduler share.

Multi-fidelity Bayesian optimisation: each trial is observed at a few levels, which are fractions of its schedule, and
at its end. One Gaussian process over the sampled values learns from all of them together, so many scores at an early
level and few final ones are enough to predict final scores.

Fitting takes longer than a worker should wait. So one thread notes what happens and asks for the forecasts of trials,
while another fits the process to all that is noted and chooses recipes by it.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.acquisition import Costs, expected_improvement
from cifar_tune.search.encoding import Array, Encoding
from cifar_tune.search.rungs import epochs_at
from cifar_tune.trials.trial import OPTUNA_STATES, Trial

if TYPE_CHECKING:
    from cifar_tune.search.gaussian_process import Foresight, GaussianProcess, Normal, Posterior

Indices = npt.NDArray[np.intp]

LEVELS = (1 / 8,)  # fractions of the schedule; the end is one more level
MAX_SCORES = 400  # to which the process is fitted; its cost grows with their cube
REFIT = 1.25  # factor by which observations must grow before the hyperparameters are optimized again
TAIL = 1 / 8  # last fraction of a trial's epochs, whose mean score counts as its final score
MIN_TRIALS = 10  # with a score, before anything is predicted
FLOOR = 2.0  # the distance of a score below the median is capped at this many times that of the best above it
# The length that the process expects of a learning rate, relative to other values: nothing decides more about a score
# (Bengio, arXiv:1206.5533). Fitting the lengths would show it, too, but later.
LR_LENGTH = 0.5
RESERVED = 64  # rows of the table of trials at first
WORTH = 0.001  # of the score, that another training has to be expected to gain
NUM_GAINS = 5  # latest recipes of which none may be worth it before the search has converged: each forecast is noisy


@dataclass(frozen=True)
class _Known:
    """The fixed parts of a trial: its row, its sampled values, the epoch of each level but the last, and of its end."""

    row: int
    params: Mapping[str, Any]
    epochs: Sequence[int]
    end: int


@dataclass(frozen=True)
class Model:
    """The process fitted to what was known at one moment. It never changes.

    `points` (n, columns) are those of all trials. The trials that the process is fitted to are at `rows` of it; `ends`
    are their expected final scores, without the noise of their own seeds, `are_complete` tells which have ended, and
    `params` are their values. `believing` also takes the predictions for running trials for scores of theirs, so that
    the sampler does not go there again. `floors` (levels + 1,) are the lowest scores that it takes as they are, and
    `num_noted` is the number of scores that were noted before.
    """

    points: Array
    ends: Array
    are_complete: npt.NDArray[np.bool_]
    params: Sequence[Mapping[str, Any]]
    posterior: "Posterior"
    believing: "Posterior"
    floors: Array
    num_noted: int

    @property
    def incumbent(self) -> float | None:
        """The highest expected final score of a trial that has ended; None before one has."""
        complete = self.ends[self.are_complete]
        return float(complete.max()) if len(complete) else None

    def predict(self, points: Array) -> "Normal":
        """The final scores of recipes, by their encoded values (n, columns)."""
        return self.believing.predict(points)

    def gains(self, scores: "Normal") -> Array:
        """The expected improvement of each of n final scores on the best trial: (n,)."""
        best = float(self.ends.max()) if self.incumbent is None else self.incumbent
        return expected_improvement(scores, best)

    def distances(self, points: Array) -> Array:
        """The distance of each of (n, columns) encoded points to the nearest trial: (n,)."""
        from scipy.spatial.distance import cdist  # half a second that a report need not wait for

        distances: Array = cdist(points, self.points).min(axis=1)
        return distances


class Precedence(Protocol):
    """Who goes first, where trials are frozen and thawed; priorities.py decides it by the forecast."""

    def worths(self, foresight: "Foresight", costs: Costs) -> Array:
        """What n trials are worth, to be compared with each other: (n,)."""

    def choose(self, paused: Sequence[int], *, can_begin: bool) -> int | None:
        """The number of the paused trial that goes on; None for a new one, or for none where no more `can_begin`."""

    def goes_on(self, number: int) -> bool:
        """Whether a trial that has just got a score goes on without a pause."""


class Forecast:
    """Predicts final accuracies, without the noise between seeds; `note` tells it what happens to each trial.

    `ranges` returns the space's distributions, `levels` are fractions of a schedule or `of_whole` trainings. `numbers`
    are the numbers of the trials, and `scores` (n, levels + 1) their scores in the same order, NaN at levels that a
    trial has not reached.
    """

    def __init__(
        self, ranges: Callable[[], Mapping[str, BaseDistribution]], levels: Sequence[float], *, of_whole: bool = False
    ) -> None:
        self._ranges = ranges
        self._fractions, self._of_whole = levels, of_whole
        self._lock = Lock()  # guards the table of trials
        self._known: dict[int, _Known] = {}  # by number
        self.numbers: list[int] = []
        self._params: list[Mapping[str, Any]] = []
        self._table = np.empty((0, 0))  # a row for each trial, and more: its scores, whether it runs, its point
        self._num_scored = 0  # trials with a score
        self._noted: list[tuple[int, int]] = []  # the row and the level of each score, in the order in which they came
        self._point_bytes: set[bytes] = set()  # the points of all trials
        self._num_optimized = 0  # the number of observations when the hyperparameters were last optimized
        self._model: Model | None = None
        self.priorities: Precedence | None = None  # of a search that freezes and thaws its trials
        self._gains: deque[float] = deque(maxlen=NUM_GAINS)

    @cached_property
    def encoding(self) -> Encoding:
        """The encoding of the space's values; made late, because searches without a forecast need none."""
        return Encoding(self._ranges())

    @cached_property
    def _process(self) -> "GaussianProcess":
        from cifar_tune.search.gaussian_process import GaussianProcess  # imports torch, which a report need not load

        lengths = [LR_LENGTH if field.endswith("lr") else 1.0 for field in self.encoding.fields]
        return GaussianProcess(self.encoding.num_columns, self._num_levels, lengths=lengths)

    def warm_up(self, num_to_come: int) -> None:
        """Import what the first fit needs, which takes seconds that a worker would wait for.

        Not where all trials, `num_to_come` of them not noted yet, are too few for a fit before the last one is chosen.
        """
        if len(self.numbers) + num_to_come > MIN_TRIALS:
            _ = self._process

    @property
    def _num_levels(self) -> int:
        return len(self._fractions) + 1

    @property
    def scores(self) -> Array:
        """The scores (n, levels + 1)."""
        return self._table[: len(self.numbers), : self._num_levels]

    @property
    def _is_running(self) -> npt.NDArray[np.bool_]:
        flags: npt.NDArray[np.bool_] = self._table[: len(self.numbers), self._num_levels] == 1
        return flags

    @property
    def _points(self) -> Array:
        return self._table[: len(self.numbers), self._num_levels + 1 :]

    def note(self, trial: Trial) -> None:
        """Learn what is known of a trial now; one that failed has no scores, and is not predicted."""
        known = self._known.get(trial.number)
        is_running = trial.state in ("running", "interrupted")
        was_running = known is not None and self._table[known.row, self._num_levels] == 1
        if known and was_running and is_running and trial.epochs not in known.epochs:
            return
        point = self.encoding.encode([trial.params])[0]
        with self._lock:
            known = known or self._add(trial, point)
            own = self._table[known.row]
            before, now = own[: self._num_levels].copy(), np.array(self._scores(trial, known))
            own[: self._num_levels], own[self._num_levels] = now, is_running
            self._num_scored += int((~np.isnan(now)).any()) - int((~np.isnan(before)).any())
            self._noted += [(known.row, int(level)) for level in np.flatnonzero(~np.isnan(now) & (now != before))]

    def _add(self, trial: Trial, point: Array) -> _Known:
        epochs = self._epochs_at(trial.recipe)
        known = _Known(len(self.numbers), trial.params, epochs, trial.recipe.epochs)
        if known.row == len(self._table):
            table = np.full((max(RESERVED, 2 * known.row), self._num_levels + 1 + len(point)), math.nan)
            if known.row:
                table[: known.row] = self._table
            self._table = table
        self._table[known.row, self._num_levels + 1 :] = point
        self.numbers.append(trial.number)
        self._params.append(trial.params)
        self._known[trial.number] = known
        self._point_bytes.add(point.tobytes())
        return known

    def _scores(self, trial: Trial, known: _Known) -> list[float]:
        """The score at each level; a trial that broke down or stopped early has its final score at later levels."""
        if trial.state == "failed":
            return [math.nan] * self._num_levels
        end = _final_score(trial)
        reached = [trial.score_after(epoch) if epoch <= trial.epochs else end for epoch in known.epochs]
        return [*reached, end]

    @property
    def is_informed(self) -> bool:
        """Whether there are enough scores for predictions."""
        return self._num_scored >= MIN_TRIALS

    def fit(self) -> Model | None:
        """Fit the process to all that is noted now; None while there are too few scores."""
        with self._lock:
            if not self.is_informed:
                return None
            if self._model is not None and self._is_up_to_date(self._model):
                return self._model
            points, scores, num_noted = self._points, self.scores.copy(), len(self._noted)
            is_running = self._is_running
        rows = thinned(scores)
        floors = lowest(scores)
        fitted = np.maximum(scores[rows], floors)
        posterior = self._process.fit(points[rows], fitted, optimize=self._is_to_be_optimized(fitted))
        self._model = Model(
            points=points,
            ends=posterior.predict(points[rows]).mean,
            are_complete=~np.isnan(scores[rows, -1]),
            params=[self._params[row] for row in rows],
            posterior=posterior,
            believing=posterior.believing(points[is_running]) if is_running.any() else posterior,
            floors=floors,
            num_noted=num_noted,
        )
        return self._model

    def _is_up_to_date(self, model: Model) -> bool:
        return (model.num_noted, len(model.points)) == (len(self._noted), len(self.numbers))

    def _is_to_be_optimized(self, scores: Array) -> bool:
        """Whether there are so many more observations than the last time that the hyperparameters may be others."""
        num_observations = int((~np.isnan(scores)).sum())
        if num_observations < REFIT * self._num_optimized:
            return False
        self._num_optimized = num_observations
        return True

    def expect(self, numbers: Sequence[int]) -> dict[int, float]:
        """The expected final score of each trial by number, without the noise of its own seed where it has ended.

        It follows from the last fit and from the scores that were noted since; empty before the first fit.
        """
        model = self._model
        if model is None:
            return {}
        means = self._updated(model).predict(self._points[self._rows(numbers)]).mean
        return dict(zip(numbers, means.tolist(), strict=True))

    def _updated(self, model: Model) -> "Posterior":
        """The model's process with the scores that were noted since."""
        new = self._noted[model.num_noted :]
        if not new:
            return model.posterior
        rows, levels = np.array(new, dtype=np.intp).T
        scores = np.maximum(self.scores[rows, levels], model.floors[levels])
        is_left = ~np.isnan(scores)  # a trial may have failed after its score was noted
        return model.posterior.given(self._points[rows[is_left]], levels[is_left], scores[is_left])

    def _rows(self, numbers: Sequence[int]) -> list[int]:
        return [self._known[number].row for number in numbers]

    @property
    def model(self) -> Model | None:
        """The last fit; None before the first."""
        return self._model

    def foresee(self, numbers: Sequence[int], *, believing: bool = False) -> "Foresight":
        """What is known of the final scores of trials that have not ended, and what their next scores would add.

        From the last fit, and from the scores that were noted since; or `believing` what it predicts of running trials.
        """
        assert self._model is not None
        rows = self._rows(numbers)
        posterior = self._model.believing if believing else self._updated(self._model)
        return posterior.foresee(self._points[rows], self._num_reached(rows))

    def note_gain(self, gain: float) -> None:
        """Learn by how much the most promising new recipe is expected to surpass the best trial."""
        self._gains.append(gain)

    @property
    def expected_gain(self) -> float | None:
        """The accuracy that another training is expected to gain; None before enough is known."""
        return median(self._gains) if len(self._gains) == NUM_GAINS else None

    @property
    def has_converged(self) -> bool:
        """Whether no recipe is worth another training."""
        return len(self._gains) == NUM_GAINS and max(self._gains) < WORTH

    def waiting(self) -> list[int]:
        """The numbers of the trials that have a score, do not run and have not ended: paused ones, and pruned ones."""
        scores = self.scores
        is_waiting = ~np.isnan(scores).all(axis=1) & np.isnan(scores[:, -1]) & ~self._is_running
        return [self.numbers[row] for row in np.flatnonzero(is_waiting)]

    def costs(self, numbers: Sequence[int]) -> Costs:
        """The epochs that trials still have to train."""
        rows = self._rows(numbers)
        stops = np.array([[0, *self._known[number].epochs, self._known[number].end] for number in numbers], dtype=float)
        each, reached = np.arange(len(rows)), self._num_reached(rows)
        return Costs(stops[each, reached + 1] - stops[each, reached], stops[each, -1] - stops[each, reached + 1])

    def costs_of_new(self, recipes: Sequence[Recipe]) -> Costs:
        """The epochs of new trials."""
        first = np.array([[*self._epochs_at(recipe), recipe.epochs][0] for recipe in recipes], dtype=float)
        return Costs(first, np.array([recipe.epochs for recipe in recipes]) - first)

    def _epochs_at(self, recipe: Recipe) -> list[int]:
        return epochs_at(recipe, self._fractions, of_whole=self._of_whole)

    def _num_reached(self, rows: Sequence[int]) -> Indices:
        """The number of levels at which each trial has a score; the next one is the level of that number."""
        reached: Indices = (~np.isnan(self.scores[rows])).sum(axis=1)
        return np.minimum(reached, self._num_levels - 1)

    def are_running(self, numbers: Iterable[int]) -> bool:
        """Whether one of the trials runs or is to be resumed."""
        return any(self._is_running[self._known[number].row] for number in numbers if number in self._known)

    def has_score(self, number: int) -> bool:
        """Whether a trial has a score at any level; one that failed has none."""
        return bool((~np.isnan(self.scores[self._known[number].row])).any())

    def has_trial_at(self, point: Array) -> bool:
        """Whether a trial has exactly these encoded values, (columns,)."""
        return point.tobytes() in self._point_bytes


def _final_score(trial: Trial) -> float:
    """The mean score of the trial's last epochs, which scatters less than that of the last one; NaN before its end."""
    if OPTUNA_STATES.get(trial.state) != TrialState.COMPLETE:
        return math.nan
    if not trial.is_complete:
        assert trial.score is not None
        return trial.score
    num_last = math.ceil(TAIL * trial.epochs)
    return fmean(trial.score_after(epoch) for epoch in range(trial.epochs - num_last + 1, trial.epochs + 1))


def thinned(scores: Array) -> Indices:
    """Rows with at most MAX_SCORES scores: one half of the best trials at their highest levels, one of the latest."""
    num_scores = (~np.isnan(scores)).sum(axis=1)
    rows = np.flatnonzero(num_scores)
    if num_scores.sum() <= MAX_SCORES:
        return rows
    by_end = rows[np.lexsort(np.nan_to_num(scores[rows], nan=-math.inf).T)[::-1]]
    best = by_end[num_scores[by_end].cumsum() <= MAX_SCORES // 2]
    latest = np.setdiff1d(rows, best)[::-1]
    return np.concatenate([best, latest[num_scores[latest].cumsum() <= MAX_SCORES // 2]])


def lowest(scores: Array) -> Array:
    """The scores (levels,) to which lower ones of (n, levels) are raised; otherwise breakdowns would dominate a fit."""
    return np.array([_floor(column[~np.isnan(column)]) for column in scores.T])


def _floor(scores: Array) -> float:
    if len(scores) == 0:
        return -math.inf
    median = np.median(scores)
    return float(median - FLOOR * (scores.max() - median))
