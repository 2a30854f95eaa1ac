"""A confirmation: what the reruns of a search's finalists say of their gains over the baseline.

The runs and their files are the record's (search/reruns.py), the arithmetic significance.py's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cifar_tune.evaluation.reruns import Design, count_reruns, read_design, read_runs, runs_of
from cifar_tune.evaluation.significance import Estimate, Gain, Hits, estimate_accuracy, judge_gains, paired_difference
from cifar_tune.store import HITS, Store
from cifar_tune.trials.trial import SEED, Trial

METHOD = (
    "confirmed gain: the mean paired difference from the baseline, both trained again with the same fresh seeds; real "
    "if its interval holds no zero. All rows share one validation split, whose images count as a sample, like the "
    "seeds: variance = var(seeds' means) / seeds + var(images' means) / images - var(rest) / (seeds x images), with "
    "a t distribution; at most 1 confirmation in 20 has any false verdict (Holm)"
)


@dataclass(frozen=True)
class Confirmation:
    """The `count`-th of a search, by trial number: accuracies, the finalists' gains, and why others have neither."""

    count: int
    design: Design
    accuracies: Mapping[int, Estimate]
    gains: Mapping[int, Gain]
    broken: Mapping[int, str]


def read_confirmations(store: Store, searches: Iterable[str]) -> dict[str, Confirmation]:
    """The last whole confirmation of each search that has one."""
    found = {search: read_confirmation(store, search) for search in searches}
    return {search: confirmation for search, confirmation in found.items() if confirmation}


def read_confirmation(store: Store, search: str) -> Confirmation | None:
    """The last one of which every run is over."""
    for count in range(count_reruns(store, search, "confirm"), 0, -1):
        design, runs = read_design(store, search, "confirm", count), read_runs(store, search, "confirm", count)
        if design.is_complete(runs):
            hits = {run.number: _read_hits(store, run) for run in runs if run.is_complete}
            return judge(count, design, runs, {number: found for number, found in hits.items() if found is not None})
    return None


def judge(count: int, design: Design, runs: Sequence[Trial], hits: Mapping[int, Hits]) -> Confirmation:
    """What the runs say, with the `hits` of each that was trained to its end, by its number."""
    tables, broken = {}, {}
    for number in design.recipes:
        own = runs_of(runs, number)
        bad = [f"{_fate(run)} with seed {run.params[SEED]}" for run in own if run.number not in hits]
        if bad:
            broken[number] = ", ".join(bad)
        else:
            tables[number] = np.stack([hits[run.number] for run in own])
    baseline = tables.get(design.baseline)
    finalists = [number for number in design.finalists if number in tables and baseline is not None]
    gains = judge_gains([paired_difference(tables[number], tables[design.baseline]) for number in finalists])
    accuracies = {number: estimate_accuracy(table) for number, table in tables.items()}
    return Confirmation(count, design, accuracies, dict(zip(finalists, gains, strict=True)), broken)


def _fate(run: Trial) -> str:
    return f"{HITS} is lost" if run.is_complete else run.state


def _read_hits(store: Store, run: Trial) -> Hits | None:
    """None where the file is missing or damaged; a report has other things to say too."""
    try:
        hits: Hits = np.load(store.trial(run.search, run.number) / HITS, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return hits
