"""How well early scores predict the last ones under each schedule, over all searches of a store.

    uv run python analysis/rungs.py [--store FOLDER] [--output rungs.png]

A scheduler that stops trials at rungs relies on the scores there. For the complete trials of each schedule this shows
the rank correlation between the score after each tenth of the run and the last score, with a 95 % interval from a
bootstrap over trials. The trials that passed a rung are the better ones, so the correlation among them is smaller than
among all trials.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from study import run_study

from cifar_tune.wording import format_percent

NUM_DRAWS = 500
MIN_TRIALS = 10  # fewer do not show the bootstrap how ranks scatter
FRACTIONS = np.arange(1, 10) / 10
GOOD = 0.5  # a correlation above which a rung is worth having


def correlations(trials: pd.DataFrame, epochs: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A row for each search, schedule and tenth: `trials`, and the `correlation` with its interval `low` to `high`."""
    complete = trials[trials["state"] == "completed"][["search", "trial", "schedule"]]
    curves = epochs[["search", "trial", "progress", "val_accuracy"]].merge(complete, on=["search", "trial"])
    rng = np.random.default_rng(seed)
    rows = []
    for (search, schedule), own in curves.groupby(["search", "schedule"]):
        scores = own.groupby("trial")[["progress", "val_accuracy"]].apply(_at_fractions)
        if len(scores) < MIN_TRIALS:
            continue
        for fraction in FRACTIONS:
            pairs = scores[[fraction, "last"]].dropna()
            if len(pairs) < MIN_TRIALS:
                continue
            early, last = pairs[fraction].to_numpy(), pairs["last"].to_numpy()
            low, high = interval(early, last, rng)
            row = {"trials": len(pairs), "correlation": rank_correlation(early, last), "low": low, "high": high}
            rows.append({"search": search, "schedule": schedule, "fraction": fraction, **row})
    return pd.DataFrame(rows, columns=["search", "schedule", "fraction", "trials", "correlation", "low", "high"])


def _at_fractions(curve: pd.DataFrame) -> pd.Series:
    """The score of the last epoch that had ended at each fraction, NaN before the first; and the `last` score."""
    scores = {fraction: curve.loc[curve["progress"] <= fraction + 1e-9, "val_accuracy"] for fraction in FRACTIONS}
    early = {fraction: float(ended.iloc[-1]) if len(ended) else float("nan") for fraction, ended in scores.items()}
    return pd.Series({**early, "last": float(curve["val_accuracy"].iloc[-1])})


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation; NaN where one side is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first, second).statistic)


def interval(early: np.ndarray, last: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % interval of the rank correlation, from a bootstrap over trials; NaN where it cannot be drawn."""
    draws = rng.integers(0, len(early), (NUM_DRAWS, len(early)))
    drawn = [rank_correlation(early[draw], last[draw]) for draw in draws]
    if np.all(np.isnan(drawn)):
        return float("nan"), float("nan")
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def conclude(results: pd.DataFrame) -> str:
    """The results in a paragraph."""
    if results.empty:
        return f"No schedule has {MIN_TRIALS} completed trials, so there is no result. Search longer, or prune less."
    sentences = ["These are rank correlations with the last score."]
    for (search, schedule), rows in results.groupby(["search", "schedule"]):
        row = rows.iloc[(rows["fraction"] - 0.25).abs().argmin()]
        value = f"{row['correlation']:.2f} ({row['low']:.2f} to {row['high']:.2f}, n={row['trials']})"
        first = next(
            (share for share in rows["fraction"] if (rows.loc[rows["fraction"] >= share, "low"] > GOOD).all()), None
        )
        above = "never" if first is None else f"from {format_percent(first, 0)} to the end"
        sentences.append(
            f"{schedule} in {search}: {value} after {format_percent(row['fraction'], 0)} of the run; "
            f"the interval lies above {GOOD} {above}."
        )
    return " ".join(sentences)


def draw(results: pd.DataFrame) -> Figure:
    """A line with its interval for each schedule."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for (search, schedule), rows in results.groupby(["search", "schedule"]):
        label = f"{schedule} ({search}, n={rows['trials'].max()})"
        (line,) = axes.plot(rows["fraction"], rows["correlation"], marker="o", label=label)
        axes.fill_between(rows["fraction"], rows["low"], rows["high"], alpha=0.15, color=line.get_color())
    axes.set(xlabel="share of the run", ylabel="rank correlation with the last score", xlim=(0, 1), ylim=(-1, 1.02))
    axes.set_title("How well early scores predict the last ones, with 95 % intervals")
    axes.legend()
    return figure


if __name__ == "__main__":
    run_study(__doc__, "rungs", correlations, draw, conclude)
