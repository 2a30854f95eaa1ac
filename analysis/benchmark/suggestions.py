"""Measures the time of a suggestion after a thousand finished trials, for each sampler that can search the space.

    uv run python analysis/benchmark/suggestions.py

The trials come from a surrogate and are stored in a real store. The printed share is that of the time of four workers,
which wait for one driver, with the recorded times of epochs.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import get_args

import numpy as np
from simulation import Ours, simulate
from surrogates import SPACES, Surrogate, open_space

from cifar_tune.errors import UserError
from cifar_tune.search.identity import open_record
from cifar_tune.search.record import Record
from cifar_tune.search.samplers import build_sampler
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


def fill(name: str, surrogate: Surrogate, folder: Path, num_trials: int) -> Record:
    """A record of random trials with curves of the surrogate, under the default scheduler."""
    space = replace(open_space(name), search=Search(sampler="random"))
    record = open_record(open_store(folder), name, space, seed=0)
    simulate(Ours(record, num_trials), surrogate, NUM_WORKERS, 10**9, seed=0)
    return record


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
