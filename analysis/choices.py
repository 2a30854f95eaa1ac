"""Which of the documents' choices matter: what scores go with each searched choice, over all searches of a store.

    uv run python analysis/choices.py [--store FOLDER] [--output choices.png]

Each choice of a recipe (architecture, schedule, optimizer, augmentation, ...) splits a search's complete trials into
groups. What a choice is worth is the difference between the means of its best and its worst group, beside the chance of
groups that differ as much (Kruskal and Wallis' test of the scores' ranks) if it went with nothing. A searcher does not
draw values independently, and pruning keeps the good trials: what goes with the scores need not be their cause.
"""

import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import kruskal
from study import run_study

from cifar_tune.report.columns import searched_names
from cifar_tune.report.leaderboard import eligible

KINDS = ("model", "schedule", "optimizer")  # columns of every leaderboard
REPEATED = [f"{kind}/name" for kind in KINDS]  # searched values that say the same
MIN_TRIALS = 3  # of a group
MAX_VALUES = 6  # a number with more is no choice; it is split into its lower and its upper half


def choices(trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each search and choice: `spread` from the worst to the best group in points, `p` of none, `best`."""
    rows = []
    for search, found in eligible(trials).groupby("search"):
        for name in [*KINDS, *(name for name in searched_names(trials) if name not in REPEATED)]:
            groups = as_groups(found[name])
            known = groups.notna()
            row = spread(groups[known], found.loc[known, "val_accuracy"])
            if row is not None:
                rows.append({"search": search, "choice": name, **row})
    columns = ["search", "choice", "trials", "spread", "p", "best"]
    return pd.DataFrame(rows, columns=columns).sort_values("spread", ascending=False, ignore_index=True)


def as_groups(values: pd.Series) -> pd.Series:
    """The values themselves, or of numbers with many values which half of them each lies in."""
    if values.nunique() <= MAX_VALUES or not pd.api.types.is_numeric_dtype(values.dropna().infer_objects()):
        return values.map(str, na_action="ignore")
    numbers = pd.to_numeric(values)
    middle = numbers.median()
    return numbers.map(lambda x: f"up to {middle:.3g}" if x <= middle else f"above {middle:.3g}", na_action="ignore")


def spread(groups: pd.Series, scores: pd.Series) -> dict[str, object] | None:
    """Between the groups' means; None where fewer than two groups have MIN_TRIALS."""
    counts = groups.value_counts()
    large = groups.isin(counts[counts >= MIN_TRIALS].index)
    found = scores[large].astype(float).groupby(groups[large])
    if len(found) < 2:
        return None
    means = found.mean()
    values = [group.to_numpy() for _, group in found]
    p = float(kruskal(*values).pvalue) if scores[large].nunique() > 1 else 1.0
    return {"trials": int(large.sum()), "spread": 100 * (means.max() - means.min()), "p": p, "best": means.idxmax()}


def conclude(found: pd.DataFrame) -> str:
    """A paragraph."""
    if found.empty:
        return f"No choice has two groups of {MIN_TRIALS} complete trials, so nothing can be said; search longer."
    level = 0.05 / len(found)
    sure, unsure = found[found["p"] <= level], found[found["p"] > level]
    said = [f"{row.choice} ({row.search}: {row.spread:.1f} points for {row.best})" for row in sure.itertuples()]
    tested = f"Of {len(found)} choices, tested at {level:.2g} each,"
    matter = (
        f"{tested} {len(sure)} {'goes' if len(sure) == 1 else 'go'} with the scores: {'; '.join(said)}."
        if said
        else f"{tested} none goes with the scores."
    )
    rest = f" In {len(unsure)} no difference can be told from chance." if len(unsure) else ""
    return f"{matter}{rest} What goes with a score need not be its cause: searchers draw good values together."


def draw(found: pd.DataFrame) -> Figure:
    """The spreads as bars; filled where chance does not explain them."""
    shown = found.head(20).iloc[::-1]
    figure = Figure(figsize=(8, 1 + 0.35 * max(1, len(shown))), layout="constrained")
    axes = figure.add_subplot()
    sure = shown["p"] <= 0.05 / max(1, len(found))
    labels = [f"{row.choice} ({row.search}, n={row.trials})" for row in shown.itertuples()]
    axes.barh(labels, shown["spread"], color=["#0072B2" if each else "white" for each in sure], edgecolor="#0072B2")
    axes.set_title("Which choices go with the scores")
    axes.set_xlabel("points from the worst to the best group (white: maybe chance)")
    return figure


if __name__ == "__main__":
    run_study(__doc__, "choices", lambda trials, epochs: choices(trials), draw, conclude)
