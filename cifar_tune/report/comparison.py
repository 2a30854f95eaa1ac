"""Comparisons across searches: trials grouped by what they have in common, and the published projects side by side."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cifar_tune.errors import UserError
from cifar_tune.evaluation.confirmation import Confirmation
from cifar_tune.evaluation.significance import estimate_mean
from cifar_tune.recipe.recipe import nearest
from cifar_tune.report.columns import LEADERBOARD
from cifar_tune.report.findings import Findings
from cifar_tune.report.leaderboard import eligible, leaderboard, score_of, task_columns
from cifar_tune.report.projects import PROJECTS
from cifar_tune.training.scores import metric_name
from cifar_tune.trials.ranking import best_trial
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_count, format_percent_range, format_score

PROJECT = "project"  # of `--by`: the published projects instead of a column
RESULTS = {column.name for column in LEADERBOARD if column.is_result}
SUMMARY = ("trials", "completed", "best", "gain", "mean", "mean_low", "mean_high", "seconds")
PROJECT_COLUMNS = (PROJECT, "title", "published")
BASELINE_COLUMNS = ("search", "trial", "train_images", "epochs", "baseline", "best_trial")


def compare(findings: Findings, by: str) -> pd.DataFrame:
    """The table of `report --by`: the published projects, or the trials grouped by columns, which commas divide."""
    names = [name.strip() for name in by.split(",")]
    if "" in names:
        raise UserError(f"--by {by!r} lacks a column; write --by model, or --by model,schedule.")
    if names == [PROJECT]:
        return compare_projects(findings)
    return grouped(leaderboard(findings.searches, findings.confirmations), *names)


def grouped(frame: pd.DataFrame, *by: str) -> pd.DataFrame:
    """A row for each combination of values of these columns of the leaderboard, within each task, the best first.

    The best and the mean are of the eligible trials; the mean of two or more has its 95 % interval, as if they were
    draws from all trials of the kind. A UserError for an unknown column, and for one that is a result.
    """
    _check_columns(frame, by)
    task = task_columns(frame)
    names = list(dict.fromkeys([*task, *by]))
    rows = [
        {**dict(zip(names, key, strict=True)), **_summary(group)}
        for key, group in frame.groupby(names, dropna=False, sort=False)
    ]
    groups = pd.DataFrame(rows, columns=[*names, *SUMMARY], dtype=object)
    ascending = [*(True for _ in task), False]
    return groups.sort_values([*task, "best"], ascending=ascending, na_position="last", ignore_index=True)


def _check_columns(frame: pd.DataFrame, by: Sequence[str]) -> None:
    """A UserError for names by which trials cannot be grouped."""
    choices = [str(name) for name in frame.columns if name not in RESULTS]
    for name in by:
        if name in RESULTS:
            raise UserError(f"--by {','.join(by)}: {name} is a result; group by what a trial is, such as model.")
        if name not in choices:
            advice = nearest(name, [*choices, PROJECT] if len(by) == 1 else choices)
            hint = f" For the published projects, use --by {PROJECT}." if len(by) == 1 else ""
            raise UserError(f"--by {','.join(by)}: the leaderboard has no column {name!r}; {advice}.{hint}")


def _summary(group: pd.DataFrame) -> dict[str, Any]:
    """The cells of SUMMARY for a group of rows of the leaderboard."""
    complete, name = eligible(group), metric_name(score_of(group))
    scores = [float(score) for score in complete[name]]
    best = complete.iloc[scores.index(max(scores))] if scores else None
    mean = estimate_mean(scores) if len(scores) > 1 else None
    return {
        "trials": len(group),
        "completed": len(complete),
        "best": None if best is None else best[name],
        "gain": None if best is None else best["gain"],
        "mean": mean.mean if mean else max(scores, default=None),
        "mean_low": max(mean.low, 0.0) if mean else None,
        "mean_high": min(mean.high, 1.0) if mean else None,
        "seconds": float(sum(group["seconds"])),
    }


def compare_projects(findings: Findings) -> pd.DataFrame:
    """A row for each project and each completed baseline of its kind; one row where there is no such baseline."""
    rows = []
    for project in PROJECTS:
        cells = dict(zip(PROJECT_COLUMNS, (project.name, project.title, project.published), strict=True))
        baselines = [
            _baseline_cells(trial, trials, findings.confirmations.get(name))
            for name, trials in findings.searches.items()
            for trial in trials
            if trial.is_baseline and trial.is_complete and project.is_of(trial.recipe)
        ]
        rows += [{**cells, **baseline} for baseline in baselines or [{}]]
    return pd.DataFrame(rows, columns=[*PROJECT_COLUMNS, *BASELINE_COLUMNS], dtype=object)


def _baseline_cells(baseline: Trial, trials: Sequence[Trial], confirmation: Confirmation | None) -> dict[str, Any]:
    """The cells of BASELINE_COLUMNS for a baseline and the best trial of its search."""
    best = best_trial(trials)
    return {
        "search": baseline.search,
        "trial": baseline.number,
        "train_images": baseline.recipe.train_images,
        "epochs": baseline.epochs,
        "baseline": _describe_score(baseline, confirmation),
        "best_trial": _describe_score(best, confirmation) if best else None,
    }


def _describe_score(trial: Trial, confirmation: Confirmation | None) -> str:
    """The score over fresh seeds with its interval, where the trial has them, or that of its one run."""
    estimate = confirmation.scores.get(trial.number) if confirmation else None
    if confirmation is None or estimate is None:
        return f"{format_score(trial.goal.score, trial.score or 0)}, 1 run"
    interval = format_percent_range(estimate.low, estimate.high)
    runs = format_count(len(confirmation.design.seeds), "fresh run")
    return f"{format_score(trial.goal.score, estimate.mean)} ({interval}), {runs}"
