"""A search in simulated time: the real searcher and scheduler objects, workers that train on a surrogate.

The product's side is its own Driver and Record, with the study in memory. The comparators are Ray's own objects, told
what Ray Tune's controller tells them and in its order.
"""

import heapq
import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal, Protocol

import numpy as np
import optuna
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils.util import flatten_dict
from surrogates import Surrogate

from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record_in
from cifar_tune.search.record import Record
from cifar_tune.search.search import Search
from cifar_tune.search.space import Space

SECONDS_BETWEEN_TRIALS = 0.25  # what analysis/overhead.py measures

MethodName = Literal["ours", "random", "random + ASHA", "OptunaSearch", "OptunaSearch + ASHA"]
COMPARATORS: tuple[MethodName, ...] = ("random", "random + ASHA", "OptunaSearch", "OptunaSearch + ASHA")


class Method(Protocol):
    """A searcher with its scheduler."""

    def start(self) -> tuple[int, Mapping[str, Any]] | None:
        """The next trial: its number and sampled values; None where there are no more."""

    def report(self, number: int, epoch: int, accuracy: float, seconds: float) -> bool:
        """Whether the trial goes on after this epoch; it does not after its last."""


class Ours:
    """What the product ships."""

    def __init__(self, record: Record, num_trials: int = 10**9) -> None:
        self._driver = Driver(record, num_trials, [])

    def start(self) -> tuple[int, Mapping[str, Any]] | None:
        if self._driver.num_left == 0:
            return None
        trial = self._driver.next_trial()
        return trial.number, trial.params

    def report(self, number: int, epoch: int, accuracy: float, seconds: float) -> bool:
        return self._driver.add_epoch(number, {"epoch": epoch, "val_accuracy": accuracy, "seconds": seconds}, {})


class RayTune:
    """Ray's Optuna searcher, by default as it comes, with one of Ray's schedulers."""

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
        np.random.seed(seed)  # Ray's ASHA draws its bracket from here

    def start(self) -> tuple[int, Mapping[str, Any]]:
        number = len(self._trials)
        trial = self._trials[number] = SimpleNamespace(trial_id=str(number))
        params = flatten_dict(self._searcher.suggest(trial.trial_id))
        self._scheduler.on_trial_add(None, trial)
        return number, params

    def report(self, number: int, epoch: int, accuracy: float, seconds: float) -> bool:
        """As `TuneController` does; a trainable's last report is followed by its end."""
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
    """A fresh one."""
    if name == "ours":
        return Ours(open_record_in(optuna.storages.InMemoryStorage(), "simulation", space, seed))
    sampler = optuna.samplers.RandomSampler(seed=seed) if name.startswith("random") else None
    return RayTune(space, sampler, seed, asha=name.endswith("ASHA"))


@dataclass(frozen=True)
class Best:
    """A trial has completed as the best so far: what the search had spent by then, and its worth without noise."""

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
    """Every best trial of a search until `num_epochs` are spent, or it is worth `until` and `at_least` so many are.

    The best trial is the completed one with the highest score, as a report would have it; its worth is the surrogate's.
    """
    rng = np.random.default_rng(seed)
    order = itertools.count()
    events: list[tuple[float, int, int, int]] = []  # when, tie-break, trial, epoch
    curves = {}

    def start(now: float) -> None:
        trial = method.start()
        if trial is None:
            return
        number, params = trial
        curves[number] = surrogate.train(params, rng)
        heapq.heappush(events, (now + SECONDS_BETWEEN_TRIALS + curves[number].seconds, next(order), number, 1))

    for _ in range(num_workers):
        start(0.0)
    best, found = -np.inf, list[Best]()
    for spent in itertools.takewhile(lambda _: events, range(1, num_epochs + 1)):
        now, _, number, epoch = heapq.heappop(events)
        curve = curves[number]
        accuracy = float(curve.accuracies[epoch - 1])
        if method.report(number, epoch, accuracy, curve.seconds):
            heapq.heappush(events, (now + curve.seconds, next(order), number, epoch + 1))
            continue
        if epoch == surrogate.epochs and accuracy > best:
            best = accuracy
            found.append(Best(spent, now, curve.value))
        if found and found[-1].value >= until and spent >= at_least:
            break
        del curves[number]
        start(now)
    return found


def with_baseline(space: Space, params: Mapping[str, Any], search: Search) -> Space:
    """The space with another recipe as its baseline."""
    recipe = space.sample(optuna.trial.FixedTrial(dict(params)))
    return replace(space, baselines=(recipe,), search=search)
