"""The leaderboard: the trials of searches as a pandas frame, ranked. What its columns hold is in columns.py.

Ranks and gains are taken within one task (data set, number of training images, and what trials are scored by), since
scores of different ones do not compare. Trials that were trained to their end come first, by score; then paused and
pruned ones by how far they got, then those that broke down. Trials that were trained to their end above a limit of
their search come between the first two.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cifar_tune.evaluation.confirmation import METHOD, Confirmation
from cifar_tune.report.columns import LEADERBOARD, RankedTrial, TrialColumn
from cifar_tune.training.scores import SCORE_NAMES, ScoreName
from cifar_tune.trials.ranking import baseline_score, pareto_front
from cifar_tune.trials.trial import COMPLETE_STATES, State, Trial

ORDER: tuple[State, ...] = (
    "completed",
    "stopped early",
    "paused",
    "pruned",
    "diverged",
    "out of memory",
    "failed",
    "interrupted",
    "running",
)
UNCONFIRMED = (
    "unconfirmed: one run each, scored on the validation split by which the best was chosen. "
    "`cifar-tune confirm SEARCH` retrains the best trials with fresh seeds and judges whether their gains are real"
)
TASK = ("dataset", "train_images", "score")  # what scores must share to be compared


def leaderboard(
    searches: Mapping[str, Sequence[Trial]],
    confirmations: Mapping[str, Confirmation] = {},
    columns: Sequence[TrialColumn] = LEADERBOARD,
) -> pd.DataFrame:
    """One row per trial, best first within each task: the columns and every searched value by its name.

    The trials of all these searches that share a task meet on one Pareto front.
    """
    baselines = {name: baseline_score(trials) for name, trials in searches.items()}
    in_order = sorted(
        ((name, trial) for name, trials in searches.items() for trial in trials), key=lambda pair: _place(pair[1])
    )
    on_front = _on_front([trial for _, trial in in_order])
    ranks: Counter[tuple[Any, ...]] = Counter()
    rows = []
    for name, trial in in_order:
        ranks[_task(trial)] += 1
        is_on_front = (trial.search, trial.number) in on_front
        ranked = RankedTrial(trial, ranks[_task(trial)], baselines[name], is_on_front, confirmations.get(name))
        rows.append(_row(ranked, columns))
    common = [column.name for column in columns if column.applies is None]
    names = dict.fromkeys([*common, *(name for row in rows for name in row)])
    return pd.DataFrame(rows, columns=list(names), dtype=object)  # whole numbers stay so beside a missing one


def task_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of a leaderboard that are its trials' task; without the score where every score is an accuracy."""
    return [name for name in TASK if name in frame]


def score_of(rows: pd.DataFrame) -> ScoreName:
    """What the trials of one task are scored by."""
    score = rows["score"].iloc[0] if "score" in rows else None
    return score if score in SCORE_NAMES else "accuracy"


def eligible(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of trials that may be the best: trained to their end, within the limits of their search."""
    complete = frame["state"].isin(COMPLETE_STATES)
    return frame[complete & frame["over_limits"].isna()] if "over_limits" in frame else frame[complete]


def footnotes(frame: pd.DataFrame) -> list[str]:
    """What the verdicts in a leaderboard mean; a period is left to the caller."""
    verdicts = set(frame["verdict"].dropna())
    return [*([METHOD] if verdicts - {"unconfirmed"} else []), *([UNCONFIRMED] if "unconfirmed" in verdicts else [])]


def _row(ranked: RankedTrial, columns: Sequence[TrialColumn]) -> dict[str, Any]:
    """The cells of a trial by name, in the order of csv and json."""
    applying = [column for column in columns if column.applies is None or column.applies(ranked)]
    first = {column.name: column.value(ranked) for column in applying if not column.follows_values}
    last = {column.name: column.value(ranked) for column in applying if column.follows_values}
    named = {column.name for column in columns}  # `epochs` may be searched too; the column is how many were trained
    return first | {name: value for name, value in ranked.trial.params.items() if name not in named} | last


def _task(trial: Trial) -> tuple[Any, ...]:
    return trial.dataset, trial.recipe.train_images, trial.goal.score


def _place(trial: Trial) -> tuple[Any, ...]:
    """The key by which trials are sorted: by task, by state, by epochs where they were cut short, by score."""
    place, epochs = (int(bool(trial.over_limits)), 0) if trial.is_complete else (ORDER.index(trial.state), trial.epochs)
    task = (trial.dataset, trial.recipe.train_images or 0, trial.goal.score)
    return *task, place, -epochs, -(trial.score or 0.0)


def _on_front(trials: Sequence[Trial]) -> set[tuple[str, int]]:
    """The search and the number of each trial on the Pareto front of its task, for the cost its search minimizes."""
    tasks: dict[tuple[Any, ...], list[Trial]] = defaultdict(list)
    for trial in trials:
        tasks[_task(trial)].append(trial)
    costs = {trial.goal.minimize for trial in trials if trial.goal.minimize}
    fronts = [(cost, trial) for cost in costs for task in tasks.values() for trial in pareto_front(task, cost)]
    return {(trial.search, trial.number) for cost, trial in fronts if trial.goal.minimize == cost}
