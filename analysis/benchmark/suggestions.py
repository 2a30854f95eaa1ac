"""What a suggestion costs when a search has a thousand finished trials, with each sampler that serves the space.

    uv run python analysis/benchmark/suggestions.py

The trials come from a surrogate and lie in a real store. The share of the workers' time is for the recorded epochs and
four workers, who wait for one driver.
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
                    found = time_suggestions(record, space, surrogate, options.num_suggestions)
                except UserError as error:
                    print(f"  {sampler:8} {str(error).split(': ', 1)[1]}")
                    continue
                share = found * NUM_WORKERS / (mean(seconds) + found)
                print(f"  {sampler:8} {found:.3f} s each, {100 * share:.1f} % of the workers' time")


def fill(name: str, surrogate: Surrogate, folder: Path, num_trials: int) -> Record:
    """Random trials under the scheduler that is the default, as the surrogate has them."""
    space = replace(open_space(name), search=Search(sampler="random"))
    record = open_record(open_store(folder), name, space, seed=0)
    simulate(Ours(record, num_trials), surrogate, NUM_WORKERS, 10**9, seed=0)
    return record


def time_suggestions(record: Record, space: Space, surrogate: Surrogate, num_suggestions: int) -> float:
    """The mean seconds, after one that is not counted; every trial is over before the next, so each brings news."""
    space.check()
    record.study.sampler = build_sampler(space, record.forecast, seed=0)
    searcher, rng = Ours(record), np.random.default_rng(0)
    seconds = []
    for _ in range(1 + num_suggestions):
        start = time.perf_counter()
        suggested = searcher.start()
        seconds.append(time.perf_counter() - start)
        assert suggested is not None
        number, params = suggested
        curve = surrogate.train(params, rng)
        for epoch, accuracy in enumerate(curve.accuracies, start=1):
            if not searcher.report(number, epoch, accuracy, curve.seconds):
                break
    return float(np.mean(seconds[1:]))


if __name__ == "__main__":
    main()
