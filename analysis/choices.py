"""Which choices of a recipe matter: the scores that go with each searched choice, over all searches of a store.

    uv run python analysis/choices.py [--store FOLDER] [--output choices.png]

Each choice (architecture, schedule, optimizer, augmentation, ...) splits a search's complete trials into groups. The
spread of a choice is the difference between the mean scores of its best and its worst group. Beside it stands p: the
chance of so large a difference if the choice had no effect (Kruskal and Wallis' test of the scores' ranks). A sampler
does not draw values independently, and pruning keeps the good trials: what goes with the scores need not cause them.
"""

import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import kruskal
from study import run_study

from cifar_tune.report.columns import searched_names
from cifar_tune.report.leaderboard import eligible
from cifar_tune.wording import format_count

KINDS = ("model", "schedule", "optimizer")  # columns of every leaderboard
REPEATED = [f"{kind}/name" for kind in KINDS]  # searched values that say the same
MIN_TRIALS = 3  # of a group
MAX_VALUES = 6  # a number with more values is split into its lower and its upper half
ALPHA = 0.05  # the chance of naming any choice that has no effect


def choices(trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each search and choice, the largest `spread` (in points) first: `trials`, `p`, and the `best` group."""
    rows = []
    for search, own in eligible(trials).groupby("search"):
        for name in [*KINDS, *(name for name in searched_names(trials) if name not in REPEATED)]:
            groups = as_groups(own[name]).dropna()
            row = spread(groups, own.loc[groups.index, "val_accuracy"])
            if row is not None:
                rows.append({"search": search, "choice": name, **row})
    columns = ["search", "choice", "trials", "spread", "p", "best"]
    return pd.DataFrame(rows, columns=columns).sort_values("spread", ascending=False, ignore_index=True)


def as_groups(values: pd.Series) -> pd.Series:
    """The group of each value: the value itself, or its half for numbers with many values; missing ones stay so."""
    if values.nunique() <= MAX_VALUES or not pd.api.types.is_numeric_dtype(values.dropna().infer_objects()):
        return values.map(str, na_action="ignore")
    numbers = pd.to_numeric(values)
    middle = numbers.median()
    return numbers.map(lambda x: f"up to {middle:.3g}" if x <= middle else f"above {middle:.3g}", na_action="ignore")


def spread(groups: pd.Series, scores: pd.Series) -> dict[str, object] | None:
    """The spread between the groups' means; None where fewer than two groups have MIN_TRIALS."""
    counts = groups.value_counts()
    large = groups.isin(counts[counts >= MIN_TRIALS].index)
    by_group = scores[large].astype(float).groupby(groups[large])
    if len(by_group) < 2:
        return None
    means = by_group.mean()
    samples = [group.to_numpy() for _, group in by_group]
    p = float(kruskal(*samples).pvalue) if scores[large].nunique() > 1 else 1.0
    return {"trials": int(large.sum()), "spread": 100 * (means.max() - means.min()), "p": p, "best": means.idxmax()}


def level(results: pd.DataFrame) -> float:
    """The level at which each choice is tested, so that the chance of any false one is ALPHA (Bonferroni)."""
    return ALPHA / max(1, len(results))


def conclude(results: pd.DataFrame) -> str:
    """The results in a paragraph."""
    if results.empty:
        return f"No choice has two groups of {MIN_TRIALS} complete trials, so there is no result. Search longer."
    is_clear = results["p"] <= level(results)
    clear = [
        f"{row.choice} ({row.search}: {row.spread:.1f} points for {row.best})" for row in results[is_clear].itertuples()
    ]
    num_unclear = int((~is_clear).sum())
    sentences = [
        f"{format_count(len(results), 'choice was', 'choices were')} tested at a level of {level(results):.2g} each.",
        f"{format_count(len(clear), 'choice goes', 'choices go')} with the scores: {'; '.join(clear)}."
        if clear
        else "No choice goes with the scores.",
        f"For the other {num_unclear} the difference may be chance." if clear and num_unclear else "",
        "A choice that goes with the scores need not cause them: samplers draw good values together.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def draw(results: pd.DataFrame) -> Figure:
    """The spreads as bars, filled where chance does not explain them."""
    shown = results.head(20).iloc[::-1]
    figure = Figure(figsize=(8, 1 + 0.35 * max(1, len(shown))), layout="constrained")
    axes = figure.add_subplot()
    colors = ["#0072B2" if p <= level(results) else "white" for p in shown["p"]]
    labels = [f"{row.choice} ({row.search}, n={row.trials})" for row in shown.itertuples()]
    axes.barh(labels, shown["spread"], color=colors, edgecolor="#0072B2")
    axes.set_title("Which choices go with the scores")
    axes.set_xlabel("points from the worst to the best group (white: may be chance)")
    return figure


if __name__ == "__main__":
    run_study(__doc__, "choices", lambda trials, epochs: choices(trials), draw, conclude)
