"""Simulates searches: the real samplers and schedulers, with workers that get learning curves from a surrogate.

For cifar-tune these are its own Driver and Record, with the study in memory. For Ray Tune they are Ray's own objects,
called in the order in which Ray Tune's controller calls them. The methods of other libraries are in peers/.
"""

import heapq
import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
import optuna
from peers import PEERS, PeerName, make_peer
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils.util import flatten_dict
from surrogates import Curve, Surrogate

from cifar_tune.search.draws import NoTrialLeftError
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record_in
from cifar_tune.search.record import Record
from cifar_tune.search.schedulers import ByForecast, FreezeThaw, Scheduler
from cifar_tune.search.search import Search
from cifar_tune.search.space import Space

SECONDS_BETWEEN_TRIALS = 0.25  # measured by analysis/speed/search.py

OurName = Literal["ours", "ours, chosen at once", "ours, forecast", "ours, freeze-thaw"]
StockName = Literal["random", "random + ASHA", "OptunaSearch", "OptunaSearch + ASHA"]
MethodName = OurName | StockName | PeerName
OURS: tuple[OurName, ...] = get_args(OurName)
COMPARATORS: tuple[StockName, ...] = get_args(StockName)
SCHEDULERS: Mapping[str, Scheduler] = {"ours, forecast": ByForecast(), "ours, freeze-thaw": FreezeThaw()}


class Method(Protocol):
    """A sampler with its scheduler."""

    def start(self) -> tuple[int, Mapping[str, Any]] | None:
        """The number and the sampled values of the next trial; None if there is none now.

        The number of a trial that has left its worker means that this trial goes on, with its next epoch.
        """

    def report(self, number: int, epoch: int, accuracy: float, seconds: float) -> bool:
        """Whether the trial goes on after this epoch; if not, it leaves its worker, as it does after its last one."""


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
            try:
                self._driver.prepare()
            except NoTrialLeftError:
                self._driver.leave_rest()
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


def search_of(name: MethodName) -> Search:
    """The SEARCH of a space that is searched with the method of this name; other libraries do not read it."""
    return Search(scheduler=SCHEDULERS[name]) if name in SCHEDULERS else Search()


def make_method(name: MethodName, space: Space, seed: int) -> Method:
    """A new search with the method of this name."""
    if name in PEERS:
        return cast(Method, make_peer(name, space, seed))
    if name.startswith("ours"):
        record = open_record_in(optuna.storages.InMemoryStorage(), "simulation", space, seed)
        return Ours(record, ahead=name != "ours, chosen at once")
    sampler = optuna.samplers.RandomSampler(seed=seed) if name.startswith("random") else None
    return RayTune(space, sampler, seed, asha=name.endswith("ASHA"))


@dataclass(frozen=True)
class Best:
    """A new best trial: the epochs and seconds that the search had spent, and its final accuracy without noise."""

    num_epochs: int
    seconds: float
    value: float


@dataclass
class Training:
    """A trial's curve and how many of its epochs are done."""

    curve: Curve
    epochs: int = 0


class Workers:
    """Workers that train a method's trials, one epoch at a time.

    The luck of a trial depends on `seed` and its number alone, so methods share it.
    """

    def __init__(self, method: Method, surrogate: Surrogate, num_workers: int, seed: int) -> None:
        self._method, self._surrogate, self._seed = method, surrogate, seed
        self._num_free = num_workers
        self._trainings: dict[int, Training] = {}
        self._events: list[tuple[float, int, int]] = []  # time, tie-break, trial
        self._order = itertools.count()

    def start(self, now: float) -> None:
        """Give each free worker a trial, until the method has none; those without one are asked again next time."""
        while self._num_free and (trial := self._method.start()) is not None:
            number, params = trial
            if number not in self._trainings:
                rng = np.random.default_rng((self._seed, number))
                self._trainings[number] = Training(self._surrogate.train(params, rng))
            self._num_free -= 1
            self._push(now + SECONDS_BETWEEN_TRIALS, number)

    def next_epoch(self) -> tuple[float, Training] | None:
        """The time when the next epoch ends, and its training, after the method was told; None if nothing trains."""
        if not self._events:
            return None
        now, _, number = heapq.heappop(self._events)
        training = self._trainings[number]
        training.epochs += 1
        curve = training.curve
        if self._method.report(number, training.epochs, float(curve.accuracies[training.epochs - 1]), curve.seconds):
            self._push(now, number)
        else:
            self._num_free += 1
        return now, training

    def _push(self, now: float, number: int) -> None:
        heapq.heappush(self._events, (now + self._trainings[number].curve.seconds, next(self._order), number))


def simulate(
    method: Method,
    surrogate: Surrogate,
    num_workers: int,
    num_epochs: int,
    seed: int,
) -> list[Best]:
    """The successive best trials of a search that ends when it has spent `num_epochs`.

    The best trial is the completed one with the highest score; its `value` is the surrogate's, without noise.
    """
    workers, now = Workers(method, surrogate, num_workers, seed), 0.0
    best_score, bests = -np.inf, list[Best]()
    for spent in range(1, num_epochs + 1):
        workers.start(now)
        event = workers.next_epoch()
        if event is None:
            break
        now, training = event
        score = float(training.curve.accuracies[-1])
        if training.epochs == surrogate.epochs and score > best_score:
            best_score = score
            bests.append(Best(spent, now, training.curve.value))
    return bests


def with_baseline(space: Space, params: Mapping[str, Any], search: Search) -> Space:
    """The space with another baseline and another SEARCH."""
    recipe = space.sample(optuna.trial.FixedTrial(dict(params)))
    return replace(space, baselines=(recipe,), search=search)
