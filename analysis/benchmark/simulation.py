"""Simulates searches: the real samplers and schedulers, with workers that get learning curves from a surrogate.

For cifar-tune these are its own Driver and Record, with the study in memory. For Ray Tune they are Ray's own objects,
called in the order in which Ray Tune's controller calls them.
"""

import heapq
import itertools
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal, Protocol

import numpy as np
import optuna
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils.util import flatten_dict
from surrogates import Curve, Surrogate

from cifar_tune.search.draws import NoTrialLeftError
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record_in
from cifar_tune.search.record import Record
from cifar_tune.search.search import Search
from cifar_tune.search.space import Space

SECONDS_BETWEEN_TRIALS = 0.25  # measured by analysis/speed/search.py

MethodName = Literal["ours", "ours, chosen at once", "random", "random + ASHA", "OptunaSearch", "OptunaSearch + ASHA"]
COMPARATORS: tuple[MethodName, ...] = ("random", "random + ASHA", "OptunaSearch", "OptunaSearch + ASHA")


class Method(Protocol):
    """A sampler with its scheduler."""

    def start(self) -> tuple[int, Mapping[str, Any]] | None:
        """The number and the sampled values of the next trial, or of one that goes on; None if there are no more."""

    def report(self, number: int, epoch: int, accuracy: float, seconds: float) -> bool:
        """Whether the trial goes on after this epoch; never after its last one. A paused one may be started again."""


class Ours:
    """The sampler and the scheduler of cifar-tune.

    In a real search the next trial is chosen `ahead`, as soon as the one before it is started, so it knows nothing of
    what happens until a worker is free. Otherwise it is chosen when it is started.
    """

    def __init__(self, record: Record, num_trials: int = 10**9, *, ahead: bool = True) -> None:
        self._driver = Driver(record, num_trials, [])
        self._ahead = ahead

    def start(self) -> tuple[int, Mapping[str, Any]] | None:
        if not self._driver.can_start:
            return None
        try:
            trial = self._driver.next_trial()
        except NoTrialLeftError:
            return None
        if self._ahead and self._driver.can_prepare:
            self._driver.prepare()
        return trial.number, trial.params

    def report(self, number: int, epoch: int, accuracy: float, seconds: float) -> bool:
        return self._driver.add_epoch(number, {"epoch": epoch, "val_accuracy": accuracy, "seconds": seconds}, {})


class RayTune:
    """Ray's OptunaSearch, with its default sampler unless one is given, and a scheduler of Ray's."""

    def __init__(self, space: Space, sampler: optuna.samplers.BaseSampler | None, seed: int, *, asha: bool) -> None:
        logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)
        baseline = space.baselines[0]
        self._epochs = baseline.epochs
        self._searcher = OptunaSearch(
            lambda trial: space.function(trial) and None,
            metric="val_accuracy",
            mode="max",
            points_to_evaluate=[space.baseline_trial(baseline).params],
            sampler=sampler,
            seed=None if sampler else seed,
        )
        self._scheduler = ASHAScheduler(max_t=self._epochs) if asha else FIFOScheduler()
        self._scheduler.set_search_properties("val_accuracy", "max")
        self._trials: dict[int, SimpleNamespace] = {}
        np.random.seed(seed)  # ASHAScheduler draws brackets from this generator

    def start(self) -> tuple[int, Mapping[str, Any]]:
        number = len(self._trials)
        trial = self._trials[number] = SimpleNamespace(trial_id=str(number))
        params = flatten_dict(self._searcher.suggest(trial.trial_id))
        self._scheduler.on_trial_add(None, trial)
        return number, params

    def report(self, number: int, epoch: int, accuracy: float, seconds: float) -> bool:
        """Call searcher and scheduler as `TuneController` does; the last epoch ends the trial."""
        trial, result = self._trials[number], {"training_iteration": epoch, "val_accuracy": accuracy}
        stops = self._scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP
        if not stops:
            self._searcher.on_trial_result(trial.trial_id, result)
        if stops or epoch == self._epochs:
            self._scheduler.on_trial_complete(None, trial, result)
            self._searcher.on_trial_complete(trial.trial_id, result)
            return False
        return True


def make_method(name: MethodName, space: Space, seed: int) -> Method:
    """A new search with the method of this name."""
    if name.startswith("ours"):
        record = open_record_in(optuna.storages.InMemoryStorage(), "simulation", space, seed)
        return Ours(record, ahead=name == "ours")
    sampler = optuna.samplers.RandomSampler(seed=seed) if name.startswith("random") else None
    return RayTune(space, sampler, seed, asha=name.endswith("ASHA"))


@dataclass(frozen=True)
class Best:
    """A new best trial: the epochs and seconds that the search had spent, and its final accuracy without noise."""

    num_epochs: int
    seconds: float
    value: float


def simulate(
    method: Method,
    surrogate: Surrogate,
    num_workers: int,
    num_epochs: int,
    seed: int,
    until: float = np.inf,
    at_least: int = 0,
) -> list[Best]:
    """The successive best trials of a search that ends when it has spent `num_epochs`.

    It ends earlier once the best trial's `value` has reached `until` and `at_least` epochs are spent. The best trial is
    the completed one with the highest score; its `value` is the surrogate's, without noise.
    """
    rng = np.random.default_rng(seed)
    order = itertools.count()
    events: list[tuple[float, int, int, int]] = []  # time, tie-break, trial, epoch
    curves, done = dict[int, Curve](), Counter[int]()  # the epochs of each trial

    def start(now: float) -> None:
        trial = method.start()
        if trial is None:
            return
        number, params = trial
        if number not in curves:
            curves[number] = surrogate.train(params, rng)
        end = now + SECONDS_BETWEEN_TRIALS + curves[number].seconds
        heapq.heappush(events, (end, next(order), number, done[number] + 1))

    for _ in range(num_workers):
        start(0.0)
    best_score, bests = -np.inf, list[Best]()
    for spent in itertools.takewhile(lambda _: events, range(1, num_epochs + 1)):
        now, _, number, epoch = heapq.heappop(events)
        curve, done[number] = curves[number], epoch
        accuracy = float(curve.accuracies[epoch - 1])
        if method.report(number, epoch, accuracy, curve.seconds):
            heapq.heappush(events, (now + curve.seconds, next(order), number, epoch + 1))
            continue
        if epoch == surrogate.epochs and accuracy > best_score:
            best_score = accuracy
            bests.append(Best(spent, now, curve.value))
        if bests and bests[-1].value >= until and spent >= at_least:
            break
        start(now)
    return bests


def with_baseline(space: Space, params: Mapping[str, Any], search: Search) -> Space:
    """The space with another baseline and another SEARCH."""
    recipe = space.sample(optuna.trial.FixedTrial(dict(params)))
    return replace(space, baselines=(recipe,), search=search)
