"""Comparisons across searches: trials grouped by what they have in common, and the five documents side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cifar_tune.errors import UserError
from cifar_tune.evaluation.confirmation import Confirmation
from cifar_tune.evaluation.significance import estimate_mean
from cifar_tune.recipe.recipe import Recipe, Value, nearest
from cifar_tune.report.columns import LEADERBOARD
from cifar_tune.report.findings import Findings
from cifar_tune.report.leaderboard import TASK, eligible, leaderboard
from cifar_tune.trials.ranking import best_trial
from cifar_tune.trials.trial import Trial

RESULTS = {column.name for column in LEADERBOARD if column.is_result}


def compare(found: Findings, by: str) -> pd.DataFrame:
    """What `report --by` shows: the documents, or the trials grouped by columns, which commas divide."""
    names = [name.strip() for name in by.split(",")]
    if names == ["document"]:
        return documents(found)
    return grouped(leaderboard(found.searches, found.confirmations), *names)


def grouped(frame: pd.DataFrame, *by: str) -> pd.DataFrame:
    """A row for each combination of values of these columns of the leaderboard, within each task, the best first.

    The best and the mean are of trials that were trained to their end; the mean has its 95 % interval where there are
    two, as if they were draws from all trials of the kind. A UserError for a column that there is not.
    """
    known = [str(name) for name in frame.columns if name not in RESULTS]
    for name in by:
        if name in RESULTS:
            raise UserError(f"--by {','.join(by)}: {name} is what a trial found; group by what it is, such as model.")
        if name not in known:
            choices = nearest(name, [*known, *(["document"] if len(by) == 1 else [])])
            raise UserError(f"--by {','.join(by)}: the leaderboard has no column {name!r}; {choices}.")
    names = list(dict.fromkeys([*TASK, *by]))
    rows = [
        {**dict(zip(names, key, strict=True)), **_summary(group)}
        for key, group in frame.groupby(names, dropna=False, sort=False)
    ]
    found = pd.DataFrame(rows, columns=[*names, *SUMMARY], dtype=object)
    return found.sort_values([*TASK, "best"], ascending=[True, True, False], na_position="last", ignore_index=True)


SUMMARY = ("trials", "completed", "best", "gain", "mean", "mean_low", "mean_high", "seconds")


def _summary(group: pd.DataFrame) -> dict[str, Any]:
    complete = eligible(group)
    scores = [float(score) for score in complete["val_accuracy"]]
    best = complete.iloc[scores.index(max(scores))] if scores else None
    mean = estimate_mean(scores) if len(scores) > 1 else None
    return {
        "trials": len(group),
        "completed": len(complete),
        "best": None if best is None else best["val_accuracy"],
        "gain": None if best is None else best["gain"],
        "mean": mean.mean if mean else max(scores, default=None),
        "mean_low": max(mean.low, 0.0) if mean else None,
        "mean_high": min(mean.high, 1.0) if mean else None,
        "seconds": float(sum(group["seconds"])),
    }


@dataclass(frozen=True)
class Document:
    """A published project: what its recipe has that no other's does, and what it or its kind was reported to reach."""

    number: int
    recipe: str
    dataset: str
    published: str
    fits: Mapping[str, Value] = field(default_factory=dict)

    def is_of(self, recipe: Recipe) -> bool:
        """Whether the recipe is of its kind."""
        return recipe.dataset == self.dataset and self.fits.items() <= recipe.flatten().items()


DOCUMENTS = (
    Document(
        1,
        "ResNet-50, frozen, linear head, 32 px",
        "cifar10",
        "about 66 % at 32 px, 89 to 90 % at 224 px",
        {"model/name": "resnet50", "model/head": "linear", "finetune/name": "frozen"},
    ),
    Document(
        2,
        "ResNet-50, head 128-64, two phases, 32 px",
        "cifar10",
        "about 69.5 %",
        {"model/name": "resnet50", "model/head": "128-64", "finetune/name": "two-phase"},
    ),
    Document(
        3,
        "ResNet9, one-cycle, 8 epochs",
        "cifar10",
        "90.55 % on the test images, which it was validated on; with torch's one-cycle",
        {"model/name": "resnet9", "schedule/name": "one-cycle"},
    ),
    Document(
        4,
        "ResNet-50, all of it, 224 px, early stopping",
        "cifar100",
        "82 to 86 %",
        {"model/name": "resnet50", "model/image_size": 224, "finetune/name": "full"},
    ),
    Document(
        5,
        "Mini-ResNet, step decay, 25 epochs",
        "cifar10",
        "88.2 % by a kindred network after 80 epochs, 82.3 % without augmentation",
        {"model/name": "mini_resnet", "schedule/name": "step"},
    ),
)


DOCUMENT = ("document", "recipe", "published")
HELD_AGAINST = ("search", "trial", "train_images", "epochs", "baseline", "best_trial")


def documents(found: Findings) -> pd.DataFrame:
    """A row for each document and each baseline of its kind that was trained to its end; one where there is none."""
    rows = []
    for document in DOCUMENTS:
        told = dict(zip(DOCUMENT, (document.number, document.recipe, document.published), strict=True))
        held = [
            _held_against(trial, trials, found.confirmations.get(name))
            for name, trials in found.searches.items()
            for trial in trials
            if trial.is_baseline and trial.is_complete and document.is_of(trial.recipe)
        ]
        rows += [{**told, **row} for row in held or [{}]]
    return pd.DataFrame(rows, columns=[*DOCUMENT, *HELD_AGAINST], dtype=object)


def _held_against(baseline: Trial, trials: Sequence[Trial], confirmation: Confirmation | None) -> dict[str, Any]:
    """What a search says of a baseline, and of its best trial."""
    best = best_trial(trials)
    return {
        "search": baseline.search,
        "trial": baseline.number,
        "train_images": baseline.recipe.train_images,
        "epochs": baseline.epochs,
        "baseline": _told(baseline, confirmation),
        "best_trial": _told(best, confirmation) if best else None,
    }


def _told(trial: Trial, confirmation: Confirmation | None) -> str:
    """Its accuracy over fresh seeds with the interval, where it has them, or that of its one run."""
    fresh = confirmation.accuracies.get(trial.number) if confirmation else None
    if confirmation is None or fresh is None:
        return f"{100 * (trial.val_accuracy or 0):.2f} %, 1 run"
    interval = f"{100 * fresh.low:.2f} to {100 * fresh.high:.2f}"
    return f"{100 * fresh.mean:.2f} % ({interval}), {len(confirmation.design.seeds)} fresh runs"
