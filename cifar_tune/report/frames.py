"""Searches as pandas frames, for an analysis of your own: `from cifar_tune import load_trials`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cifar_tune import DEFAULT_STORE, STORE_VARIABLE
from cifar_tune.evaluation.confirmation import read_confirmations
from cifar_tune.report.leaderboard import leaderboard
from cifar_tune.store import Store, absolute
from cifar_tune.trials.reading import read_record
from cifar_tune.trials.trial import Trial

EPOCH = (  # the fields of EpochMetrics (training/loop.py), which cannot be imported without torch
    "epoch",
    "progress",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "lr",
    "seconds",
    "images_per_second",
)


class Frames(NamedTuple):
    """`trials` has a row for each trial, `epochs` one for each epoch; `search` and `trial` join them."""

    trials: pd.DataFrame
    epochs: pd.DataFrame


def load_trials(*searches: str, store: str | Path | None = None) -> Frames:
    """The named searches, or all of a store, as `report` reads them; a UserError for an unknown name.

    Without `store` it is the folder in CIFAR_TUNE_STORE, or `./cifar_tune_store`.

    `trials` has the leaderboard's columns, best first, and a column for every searched value by its name, which is
    missing where a trial did not sample it. `val_accuracy` is a fraction; gains are in percentage points. Trials of a
    search for another score have that as well, as `val_balanced_accuracy` or `val_macro_f1`, and its name as `score`.
    `epochs` has the metrics of each epoch: losses in nats, accuracies as fractions, the learning rate of the last step,
    seconds.
    """
    opened = Store(absolute(Path(store or os.environ.get(STORE_VARIABLE) or DEFAULT_STORE)))
    by_search = read_record(opened, searches)
    trials = leaderboard(by_search, read_confirmations(opened, by_search)).infer_objects()
    return Frames(trials, epochs_frame(by_search))


def epochs_frame(searches: Mapping[str, Sequence[Trial]]) -> pd.DataFrame:
    """A row for each epoch of each trial."""
    rows = [
        {"search": name, "trial": trial.number, **epoch}
        for name, trials in searches.items()
        for trial in trials
        for epoch in trial.curve
    ]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["search", "trial", *EPOCH])
