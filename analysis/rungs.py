"""How far early scores predict the last ones, for each schedule, over all searches of a store.

    uv run python analysis/rungs.py [--store FOLDER] [--output rungs.png]

ASHA's rungs are worth what the scores there know of the end. For the complete trials of each schedule: the rank
correlation between the score after each tenth of the run and the last one, with a 95 % interval by the bootstrap over
trials. Trials that a rung let go on are the better ones, which makes the correlation among them smaller than among all.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from study import run_study

NUM_DRAWS = 500
MIN_TRIALS = 10  # of fewer the bootstrap knows too little of how ranks scatter
FRACTIONS = np.arange(1, 10) / 10


def correlations(trials: pd.DataFrame, epochs: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A row for each search, schedule and tenth: `trials`, `correlation` with `low` and `high`."""
    complete = trials[trials["state"] == "completed"][["search", "trial", "schedule"]]
    curves = epochs[["search", "trial", "progress", "val_accuracy"]].merge(complete, on=["search", "trial"])
    rng = np.random.default_rng(seed)
    rows = []
    for (search, schedule), found in curves.groupby(["search", "schedule"]):
        wide = found.groupby("trial")[["progress", "val_accuracy"]].apply(_at_fractions)
        if len(wide) < MIN_TRIALS:
            continue
        for fraction in FRACTIONS:
            early, last = wide[fraction].to_numpy(), wide["last"].to_numpy()
            known = ~np.isnan(early)
            if known.sum() < MIN_TRIALS:
                continue
            low, high = interval(early[known], last[known], rng)
            row = {"trials": int(known.sum()), "correlation": rank_correlation(early[known], last[known])}
            rows.append({"search": search, "schedule": schedule, "fraction": fraction, **row, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["search", "schedule", "fraction", "trials", "correlation", "low", "high"])


def _at_fractions(curve: pd.DataFrame) -> pd.Series:
    """The score of the last epoch that was over by then; none before the first."""
    scores = {fraction: curve.loc[curve["progress"] <= fraction + 1e-9, "val_accuracy"] for fraction in FRACTIONS}
    at = {fraction: float(found.iloc[-1]) if len(found) else float("nan") for fraction, found in scores.items()}
    return pd.Series({**at, "last": float(curve["val_accuracy"].iloc[-1])})


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's; none where one side is all equal."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first, second).statistic)


def interval(early: np.ndarray, last: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """By the bootstrap over trials."""
    draws = rng.integers(0, len(early), (NUM_DRAWS, len(early)))
    found = [rank_correlation(early[draw], last[draw]) for draw in draws]
    low, high = np.nanpercentile(found, [2.5, 97.5]) if not np.all(np.isnan(found)) else (float("nan"),) * 2
    return float(low), float(high)


def conclude(found: pd.DataFrame) -> str:
    """A paragraph."""
    if found.empty:
        return f"No schedule has {MIN_TRIALS} completed trials, so nothing can be said; search longer, or prune less."
    said = []
    for (search, schedule), rows in found.groupby(["search", "schedule"]):
        quarter = rows.iloc[(rows["fraction"] - 0.25).abs().argmin()]
        since = next((f for f in rows["fraction"] if (rows.loc[rows["fraction"] >= f, "low"] > 0.5).all()), None)
        first = "never" if since is None else f"from {100 * since:.0f} % to the end"
        value = f"{quarter['correlation']:.2f} ({quarter['low']:.2f} to {quarter['high']:.2f}, n={quarter['trials']})"
        where = f"after {100 * quarter['fraction']:.0f} % of the run"
        said.append(f"{schedule} of {search}: {value} {where}; its interval lies above 0.5 {first}")
    return f"Rank correlation with the last score. {'; '.join(said)}."


def draw(found: pd.DataFrame) -> Figure:
    """A line with its interval for each schedule."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for (search, schedule), rows in found.groupby(["search", "schedule"]):
        label = f"{schedule} ({search}, n={rows['trials'].max()})"
        (line,) = axes.plot(rows["fraction"], rows["correlation"], marker="o", label=label)
        axes.fill_between(rows["fraction"], rows["low"], rows["high"], alpha=0.15, color=line.get_color())
    axes.set(xlabel="share of the run", ylabel="rank correlation with the last score", xlim=(0, 1), ylim=(-1, 1.02))
    axes.set_title("What early scores know of the last ones, with 95 % intervals")
    axes.legend()
    return figure


if __name__ == "__main__":
    run_study(__doc__, "rungs", correlations, draw, conclude)
