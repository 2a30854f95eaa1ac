"""A confirmation: the gains of a search's finalists over the baseline, from reruns of all of them with fresh seeds.

reruns.py has the runs and their records, significance.py the statistics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cifar_tune.evaluation.reruns import Design, count_reruns, read_design, read_runs, runs_of
from cifar_tune.evaluation.significance import (
    MIN_OF_A_CLASS,
    Estimate,
    Gain,
    estimate_score,
    judge_gains,
    paired_difference,
)
from cifar_tune.store import HITS, Store
from cifar_tune.training.scores import Values
from cifar_tune.trials.facts import SMALLEST_CLASS
from cifar_tune.trials.trial import SEED, Trial
from cifar_tune.wording import format_count, score_title

METHOD = (
    "confirmed gain: the mean paired difference from the baseline, both trained again with the same fresh seeds. It is "
    "real if its interval excludes zero. All rows share one validation split, whose images count as a sample, like the "
    "seeds: variance = var(seeds' means) / seeds + var(images' means) / images - var(rest) / (seeds x images), with a "
    "t distribution. Of a balanced accuracy or a macro F1, an image's share is its influence on the score. At most 1 "
    "confirmation in 20 has any false verdict (Holm)"
)


@dataclass(frozen=True)
class Confirmation:
    """The `count`-th confirmation of a search: scores and gains by trial number.

    `broken` says why a trial has neither. The baseline has a score and no gain. `too_few` says why no trial has a gain,
    where a class has too few validation images for one.
    """

    count: int
    design: Design
    scores: Mapping[int, Estimate]
    gains: Mapping[int, Gain]
    broken: Mapping[int, str]
    too_few: str | None = None


def read_confirmations(store: Store, searches: Iterable[str]) -> dict[str, Confirmation]:
    """The last completed confirmation of each search that has one."""
    confirmations = {search: read_confirmation(store, search) for search in searches}
    return {search: confirmation for search, confirmation in confirmations.items() if confirmation}


def read_confirmation(store: Store, search: str) -> Confirmation | None:
    """The last confirmation of a search in which every run is over; None if there is none."""
    for count in range(count_reruns(store, search, "confirm"), 0, -1):
        design, runs = read_design(store, search, "confirm", count), read_runs(store, search, "confirm", count)
        if design.is_complete(runs):
            values = {run.number: _read_values(store, run) for run in runs if run.is_complete}
            return judge(count, design, runs, {number: row for number, row in values.items() if row is not None})
    return None


def judge(count: int, design: Design, runs: Sequence[Trial], values: Mapping[int, Values]) -> Confirmation:
    """The confirmation from its runs and the images' values of each that was trained to its end, by run number."""
    tables, broken = {}, {}
    for number in design.recipes:
        runs_of_trial = runs_of(runs, number)
        without = [run for run in runs_of_trial if run.number not in values]
        failures = [f"{_failure(run)} with seed {run.params[SEED]}" for run in without]
        if failures:
            broken[number] = ", ".join(failures)
        else:
            tables[number] = np.stack([values[run.number] for run in runs_of_trial])
    too_few = _too_few(design, runs)
    can_judge = design.baseline in tables and too_few is None
    finalists = [number for number in design.finalists if number in tables and can_judge]
    gains = judge_gains([paired_difference(tables[number], tables[design.baseline]) for number in finalists])
    scores = {number: estimate_score(table) for number, table in tables.items()}
    return Confirmation(count, design, scores, dict(zip(finalists, gains, strict=True)), broken, too_few)


def _too_few(design: Design, runs: Sequence[Trial]) -> str | None:
    """Why gains cannot be judged: in a class of few images no error is often seen, and then no spread either."""
    sizes = [run.facts[SMALLEST_CLASS] for run in runs if SMALLEST_CLASS in run.facts]
    if not sizes or min(sizes) >= MIN_OF_A_CLASS:
        return None
    images, score = format_count(min(sizes), "validation image"), score_title(design.score)
    return f"the smallest class has {images}, and a gain in {score} needs {MIN_OF_A_CLASS}"


def _failure(run: Trial) -> str:
    return f"{HITS} is missing" if run.is_complete else run.state


def _read_values(store: Store, run: Trial) -> Values | None:
    """The images' values of a run; None if the file is missing or damaged, so that the rest of a report appears."""
    dtype = np.bool_ if run.goal.score == "accuracy" else np.float64
    try:
        values: Values = np.load(store.trial(run.search, run.number) / HITS, allow_pickle=False)
        return values if values.dtype == dtype and values.ndim == 1 else None
    except Exception:  # a damaged file can raise anything in numpy
        return None
