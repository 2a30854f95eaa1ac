"""A confirmation: the gains of a search's finalists over the baseline, from reruns of all of them with fresh seeds.

reruns.py has the runs and their records, significance.py the statistics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cifar_tune.evaluation.reruns import Design, count_reruns, read_design, read_runs, runs_of
from cifar_tune.evaluation.significance import Estimate, Gain, Hits, estimate_accuracy, judge_gains, paired_difference
from cifar_tune.store import HITS, Store
from cifar_tune.trials.trial import SEED, Trial

METHOD = (
    "confirmed gain: the mean paired difference from the baseline, both trained again with the same fresh seeds. It is "
    "real if its interval excludes zero. All rows share one validation split, whose images count as a sample, like the "
    "seeds: variance = var(seeds' means) / seeds + var(images' means) / images - var(rest) / (seeds x images), with a "
    "t distribution. At most 1 confirmation in 20 has any false verdict (Holm)"
)


@dataclass(frozen=True)
class Confirmation:
    """The `count`-th confirmation of a search: accuracies and gains by trial number.

    `broken` says why a trial has neither. The baseline has an accuracy and no gain.
    """

    count: int
    design: Design
    accuracies: Mapping[int, Estimate]
    gains: Mapping[int, Gain]
    broken: Mapping[int, str]


def read_confirmations(store: Store, searches: Iterable[str]) -> dict[str, Confirmation]:
    """The last completed confirmation of each search that has one."""
    confirmations = {search: read_confirmation(store, search) for search in searches}
    return {search: confirmation for search, confirmation in confirmations.items() if confirmation}


def read_confirmation(store: Store, search: str) -> Confirmation | None:
    """The last confirmation of a search in which every run is over; None if there is none."""
    for count in range(count_reruns(store, search, "confirm"), 0, -1):
        design, runs = read_design(store, search, "confirm", count), read_runs(store, search, "confirm", count)
        if design.is_complete(runs):
            hits = {run.number: _read_hits(store, run) for run in runs if run.is_complete}
            return judge(count, design, runs, {number: table for number, table in hits.items() if table is not None})
    return None


def judge(count: int, design: Design, runs: Sequence[Trial], hits: Mapping[int, Hits]) -> Confirmation:
    """The confirmation from its runs and the `hits` of each run that was trained to its end, by run number."""
    tables, broken = {}, {}
    for number in design.recipes:
        runs_of_trial = runs_of(runs, number)
        failures = [f"{_failure(run)} with seed {run.params[SEED]}" for run in runs_of_trial if run.number not in hits]
        if failures:
            broken[number] = ", ".join(failures)
        else:
            tables[number] = np.stack([hits[run.number] for run in runs_of_trial])
    baseline = tables.get(design.baseline)
    finalists = [number for number in design.finalists if number in tables and baseline is not None]
    gains = judge_gains([paired_difference(tables[number], tables[design.baseline]) for number in finalists])
    accuracies = {number: estimate_accuracy(table) for number, table in tables.items()}
    return Confirmation(count, design, accuracies, dict(zip(finalists, gains, strict=True)), broken)


def _failure(run: Trial) -> str:
    return f"{HITS} is missing" if run.is_complete else run.state


def _read_hits(store: Store, run: Trial) -> Hits | None:
    """The hits of a run; None if the file is missing or damaged, so that the rest of a report still appears."""
    try:
        hits: Hits = np.load(store.trial(run.search, run.number) / HITS, allow_pickle=False)
        return hits if hits.dtype == np.bool_ and hits.ndim == 1 else None
    except Exception:  # a damaged file can raise anything in numpy
        return None
