"""Which of the documents' choices matter: what each searched choice is worth, over all searches of a store.

    uv run python analysis/choices.py [--store FOLDER] [--output choices.png]

Each choice of a recipe (architecture, schedule, optimizer, augmentation, ...) splits a search's complete trials into
groups. What a choice is worth is the difference between the means of its best and its worst group, beside what would be
seen if the choice did nothing: the same difference with the scores dealt out anew 2,000 times.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cifar_tune import load_trials

NUM_SHUFFLES = 2000
KINDS = ("model", "schedule", "optimizer")  # columns of every leaderboard
MIN_TRIALS = 3  # of a group
MAX_VALUES = 6  # a number with more is no choice; it is split into its lower and its upper half


def choices(trials: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A row for each search and choice: `spread` from the worst to the best group in points, `p` of none, `best`."""
    complete = trials[trials["state"].isin(["completed", "stopped early"])]
    fixed = list(trials.columns[: list(trials.columns).index("num_macs") + 1])
    searched = [name for name in trials.columns if name not in fixed and name.removesuffix("/name") not in KINDS]
    rows = []
    for search, found in complete.groupby("search"):
        for name in [*KINDS, *searched]:
            groups = as_groups(found[name])
            known = groups.notna()
            row = spread(groups[known], found.loc[known, "val_accuracy"], np.random.default_rng(seed))
            if row is not None:
                rows.append({"search": search, "choice": name, **row})
    columns = ["search", "choice", "trials", "spread", "p", "best"]
    return pd.DataFrame(rows, columns=columns).sort_values("spread", ascending=False, ignore_index=True)


def as_groups(values: pd.Series) -> pd.Series:
    """The values themselves, or which half of them each lies in."""
    if values.nunique() <= MAX_VALUES:
        return values.map(str, na_action="ignore")
    numbers = pd.to_numeric(values)
    middle = numbers.median()
    return numbers.map(lambda x: f"up to {middle:.3g}" if x <= middle else f"above {middle:.3g}", na_action="ignore")


def spread(groups: pd.Series, scores: pd.Series, rng: np.random.Generator) -> dict[str, object] | None:
    """Between the groups' means; None where fewer than two groups have MIN_TRIALS."""
    counts = groups.value_counts()
    large = groups.isin(counts[counts >= MIN_TRIALS].index)
    codes, names = pd.factorize(groups[large])
    if len(names) < 2:
        return None
    values = scores[large].to_numpy(float)
    members = np.eye(len(names))[codes]
    sizes = members.sum(axis=0)
    means = values @ members / sizes
    shuffled = rng.permuted(np.tile(values, (NUM_SHUFFLES, 1)), axis=1) @ members / sizes
    by_chance = shuffled.max(axis=1) - shuffled.min(axis=1)
    found = means.max() - means.min()
    p = (1 + (by_chance >= found - 1e-12).sum()) / (1 + NUM_SHUFFLES)
    return {"trials": int(large.sum()), "spread": 100 * float(found), "p": float(p), "best": names[means.argmax()]}


def conclude(found: pd.DataFrame) -> str:
    """A paragraph."""
    if found.empty:
        return f"No choice has two groups of {MIN_TRIALS} complete trials, so nothing can be said; search longer."
    level = 0.05 / len(found)
    sure, unsure = found[found["p"] <= level], found[found["p"] > level]
    said = [f"{row.choice} ({row.search}: {row.spread:.1f} points for {row.best})" for row in sure.itertuples()]
    tested = f"Of {len(found)} choices, tested at {level:.2g} each,"
    matter = f"{tested} {len(sure)} matter: {'; '.join(said)}." if said else f"{tested} none is known to matter."
    rest = f" For the other {len(unsure)} the trials cannot tell a difference from chance." if len(unsure) else ""
    return matter + rest


def draw(found: pd.DataFrame) -> Figure:
    """The spreads as bars; filled where chance does not explain them."""
    shown = found.head(20).iloc[::-1]
    figure = Figure(figsize=(8, 1 + 0.35 * max(1, len(shown))), layout="constrained")
    axes = figure.add_subplot()
    sure = shown["p"] <= 0.05 / max(1, len(found))
    labels = [f"{row.choice} ({row.search}, n={row.trials})" for row in shown.itertuples()]
    axes.barh(labels, shown["spread"], color=["#0072B2" if each else "white" for each in sure], edgecolor="#0072B2")
    axes.set_xlabel("points from the worst to the best group (white: maybe chance)")
    return figure


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--output", type=Path, default=Path("choices.png"))
    arguments = parser.parse_args()
    found = choices(load_trials(store=arguments.store).trials)
    draw(found).savefig(arguments.output, dpi=150)
    print(found.to_string(index=False) if len(found) else "")
    print(f"\n{conclude(found)}\n{arguments.output}")


if __name__ == "__main__":
    main()
