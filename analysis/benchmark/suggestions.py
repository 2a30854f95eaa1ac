"""Measures the time of a suggestion after a thousand finished trials, for each sampler that can search the space.

    uv run python analysis/benchmark/suggestions.py

The trials come from a surrogate and are stored in a real store. The printed share is that of the time of four workers,
which wait for one driver, with the recorded times of epochs. The scheduler freeze-thaw chooses among paused trials,
too, so it searches by itself, and its choices are timed once it has begun so many trials.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import numpy as np
from simulation import Ours, Workers, simulate
from surrogates import SPACES, Surrogate, open_space

from cifar_tune.errors import UserError
from cifar_tune.search.identity import open_record
from cifar_tune.search.record import Record
from cifar_tune.search.samplers import build_sampler
from cifar_tune.search.schedulers import ByForecast, FreezeThaw
from cifar_tune.search.search import SamplerName, Search
from cifar_tune.search.space import Space
from cifar_tune.store import open_store

NUM_WORKERS = 4


def main() -> None:
    """Fill a store for each space, and time the samplers on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-trials", type=int, default=1_000)
    parser.add_argument("--num-suggestions", type=int, default=20)
    options = parser.parse_args()
    for name in SPACES:
        surrogate = Surrogate(name, "trees")
        with tempfile.TemporaryDirectory() as folder:
            record = fill(name, surrogate, Path(folder), options.num_trials)
            seconds = [trial.seconds for trial in record.trials() if trial.is_over]
            print(f"{name}: {len(seconds)} finished trials of {mean(seconds):.1f} s on average")
            for sampler in get_args(SamplerName):
                search = record.space.search.model_copy(update={"sampler": sampler})
                try:
                    space = replace(record.space, search=search)
                    duration = time_suggestions(record, space, surrogate, options.num_suggestions)
                except UserError as error:
                    print(f"  {sampler:8} {str(error).split(': ', 1)[1]}")
                    continue
                share = duration * NUM_WORKERS / (mean(seconds) + duration)
                print(f"  {sampler:8} {duration:.3f} s each, {100 * share:.1f} % of the workers' time")
        with tempfile.TemporaryDirectory() as folder:
            duration, share = time_freeze_thaw(name, surrogate, Path(folder), options.num_trials)
            print(f"  freeze-thaw {duration:.3f} s each, {100 * share:.1f} % of the workers' time")


def fill(name: str, surrogate: Surrogate, folder: Path, num_trials: int) -> Record:
    """A record of random trials with curves of the surrogate, most of them stopped early."""
    space = replace(open_space(name), search=Search(sampler="random", scheduler=ByForecast()))
    record = open_record(open_store(folder), name, space, seed=0)
    simulate(Ours(record, num_trials), surrogate, NUM_WORKERS, 10**9, seed=0)
    return record


def time_freeze_thaw(name: str, surrogate: Surrogate, folder: Path, num_trials: int) -> tuple[float, float]:
    """The mean seconds of a choice in the last tenth of the trials, and its share of the workers' time there."""
    space = replace(open_space(name), search=Search(scheduler=FreezeThaw()))
    record = open_record(open_store(folder), name, space, seed=0)
    method = Ours(record, num_trials, ahead=False)
    workers, now = Workers(method, surrogate, NUM_WORKERS, 0), 0.0
    choosing, since, num_choices, start = 0.0, 0.0, 0, method.start

    def timed() -> tuple[int, Mapping[str, Any]] | None:
        nonlocal choosing, num_choices
        before = time.perf_counter()
        trial = start()
        choosing, num_choices = choosing + time.perf_counter() - before, num_choices + 1
        return trial

    method.start = timed  # type: ignore[method-assign]
    while record.num_started < num_trials:
        if record.num_started < 0.9 * num_trials:
            choosing, num_choices, since = 0.0, 0, now
        workers.start(now)
        event = workers.next_epoch()
        assert event is not None
        now = event[0]
    return choosing / num_choices, choosing / (now - since)


def time_suggestions(record: Record, space: Space, surrogate: Surrogate, num_suggestions: int) -> float:
    """The mean seconds of a suggestion, without the first.

    Each trial ends before the next suggestion, so every suggestion has new results to learn from.
    """
    space.check()
    record.study.sampler = build_sampler(space, record.forecast, record.crashes, seed=0, num_trials=0)
    method, rng = Ours(record, ahead=False), np.random.default_rng(0)
    seconds = []
    for _ in range(1 + num_suggestions):
        start = time.perf_counter()
        trial = method.start()
        seconds.append(time.perf_counter() - start)
        assert trial is not None
        number, params = trial
        curve = surrogate.train(params, rng)
        for epoch, accuracy in enumerate(curve.accuracies, start=1):
            if not method.report(number, epoch, accuracy, curve.seconds):
                break
    return float(np.mean(seconds[1:]))


if __name__ == "__main__":
    main()
