"""The leaderboard: the record's trials as a pandas frame, ranked.

Ranks and gains are taken within one task (data set and number of training images), since scores on different ones do
not compare. Trials that were trained to their end come first, by score; then pruned ones by how far they got, then
those that broke down. What was trained to its end above a limit of its search comes between the first two.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Any

import pandas as pd

from cifar_tune.evaluation.confirmation import METHOD, Confirmation
from cifar_tune.evaluation.significance import Gain
from cifar_tune.trials.facts import LET_THROUGH
from cifar_tune.trials.ranking import baseline_accuracy, gain_in_points, pareto_front
from cifar_tune.trials.trial import COMPLETE_STATES, State, Trial

ORDER: tuple[State, ...] = (
    "completed",
    "stopped early",
    "pruned",
    "diverged",
    "out of memory",
    "failed",
    "interrupted",
    "running",
)
COLUMNS = [
    "rank",
    "search",
    "trial",
    "state",
    "model",
    "schedule",
    "optimizer",
    "dataset",
    "train_images",
    "val_accuracy",
    "gain",
    "verdict",
    "epochs",
    "seconds",
    "let_through",
    "num_parameters",
    "num_macs",
]
MARKS = ("pareto", "over_limits")  # columns that only a search with such a goal has
BAND = ("confirmed_gain", "gain_low", "gain_high")  # and these one that was confirmed
UNCONFIRMED = (
    "unconfirmed: one run each, on a validation split that all rows share and that chose the best; `cifar-tune confirm "
    "SEARCH` trains the best again with fresh seeds and says whether their gains are real"
)
TASK = ["dataset", "train_images"]  # what scores must share to be compared


def leaderboard(
    searches: Mapping[str, Sequence[Trial]], confirmations: Mapping[str, Confirmation] = {}
) -> pd.DataFrame:
    """One row per trial: COLUMNS, MARKS and BAND where a search has such, and then every searched value by its name.

    Best first within each task, in which the trials of all these searches meet on one Pareto front.
    """
    rows = []
    on_front = _on_front([trial for trials in searches.values() for trial in trials])
    for name, trials in searches.items():
        baseline = baseline_accuracy(trials)
        confirmation = confirmations.get(name)
        rows += [{**_row(trial, baseline, on_front), **_verdict(trial, confirmation)} for trial in trials]
    rows.sort(key=_place)
    ranks: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        task = tuple(row[name] for name in TASK)
        ranks[task] += 1
        row["rank"] = ranks[task]
    names = list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
    return pd.DataFrame(rows, columns=[*COLUMNS, *names], dtype=object)  # whole numbers stay so beside a missing one


def counting(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of trials that were trained to their end within the limits of their search."""
    complete = frame["state"].isin(COMPLETE_STATES)
    return frame[complete & frame["over_limits"].isna()] if "over_limits" in frame else frame[complete]


def _on_front(trials: Sequence[Trial]) -> set[tuple[str, int]]:
    """The search and the number of each trial that lies on the front of its task for what its search minimizes."""
    tasks: dict[tuple[Any, ...], list[Trial]] = defaultdict(list)
    for trial in trials:
        tasks[trial.recipe.dataset, trial.recipe.train_images].append(trial)
    costs = {trial.goal.minimize for trial in trials if trial.goal.minimize}
    fronts = [(cost, trial) for cost in costs for task in tasks.values() for trial in pareto_front(task, cost)]
    return {(trial.search, trial.number) for cost, trial in fronts if trial.goal.minimize == cost}


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Tasks apart; then by state, by epochs where they were cut short, by score."""
    is_complete = row["state"] in COMPLETE_STATES
    place, reached = (
        (int(bool(row.get("over_limits"))), 0) if is_complete else (ORDER.index(row["state"]), row["epochs"])
    )
    task = (row["dataset"], row["train_images"] or 0)
    return (*task, place, -reached, -(row["val_accuracy"] or 0.0))


def _row(trial: Trial, baseline: float | None, on_front: Set[tuple[str, int]]) -> dict[str, Any]:
    recipe = trial.recipe
    return {
        "search": trial.search,
        "trial": trial.number,
        "state": trial.state,
        "model": recipe.model.name,
        "schedule": recipe.schedule.name,
        "optimizer": recipe.optimizer.name,
        "dataset": recipe.dataset,
        "train_images": recipe.train_images,
        "val_accuracy": trial.val_accuracy,
        "gain": gain_in_points(trial, baseline),
        "epochs": trial.epochs,
        "seconds": trial.seconds,
        "let_through": trial.facts.get(LET_THROUGH),
        "num_parameters": trial.facts.get("num_parameters"),
        "num_macs": trial.facts.get("num_macs"),
        **({"pareto": (trial.search, trial.number) in on_front} if trial.goal.minimize else {}),
        **({"over_limits": ", ".join(trial.over_limits) or None} if trial.goal.limits.given else {}),
        **{name: value for name, value in trial.params.items() if name not in COLUMNS},  # epochs: how many it trained
    }


def _verdict(trial: Trial, confirmation: Confirmation | None) -> dict[str, Any]:
    """Whether the gain is known to be real; nothing is said of baselines and of what was not trained to its end."""
    gain = confirmation.gains.get(trial.number) if confirmation else None
    if gain is not None:
        return {
            "verdict": gain.verdict,
            **band(gain),
        }
    if trial.is_baseline or not trial.is_complete:
        return {"verdict": None}
    return {"verdict": "not judged" if confirmation and trial.number in confirmation.design.recipes else "unconfirmed"}


def band(gain: Gain) -> dict[str, float]:
    """BAND of a confirmed gain, in points."""
    return dict(zip(BAND, (100 * share for share in (gain.mean, gain.low, gain.high)), strict=True))


def footnotes(frame: pd.DataFrame) -> list[str]:
    """What the verdicts in a leaderboard mean."""
    verdicts = set(frame["verdict"].dropna())
    return [*([METHOD] if verdicts - {"unconfirmed"} else []), *([UNCONFIRMED] if "unconfirmed" in verdicts else [])]
