"""What a search costs against what it gains, for every search of a store.

    uv run python analysis/payoff.py [--store FOLDER] [--output payoff.png]

The gain of the best trial so far over the baseline, after so many seconds of training over all workers, and after so
many times what the baseline took. Gains of one run each are optimistic; where `cifar-tune confirm` has judged the best,
its verdict stands beside them.
"""

import pandas as pd
from matplotlib.figure import Figure
from study import run_study

from cifar_tune.evaluation.significance import Gain
from cifar_tune.report.columns import BAND
from cifar_tune.report.leaderboard import eligible
from cifar_tune.report.sentences import describe_gain


def payoff(trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each trial, in the order of their numbers: `spent` seconds until then, and the best `gain` so far."""
    rows = []
    for search, found in trials.groupby("search"):
        ordered = found.sort_values("trial")
        counted = ordered.index.isin(eligible(ordered).index)
        gains = ordered["gain"].where(counted).astype(float)
        first = ordered[ordered["gain"] == 0]["seconds"]  # of the baseline that gains are over
        if gains.notna().sum() == 0 or first.empty:
            continue
        rows.append(
            pd.DataFrame(
                {
                    "search": search,
                    "trial": ordered["trial"],
                    "spent": ordered["seconds"].astype(float).cumsum(),
                    "baselines": ordered["seconds"].astype(float).cumsum() / float(first.iloc[0]),
                    "gain": gains.cummax().ffill(),
                    "confirmed": _verdict(ordered.loc[gains.idxmax()]),
                }
            )
        )
    columns = ["search", "trial", "spent", "baselines", "gain", "confirmed"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def _verdict(best: pd.Series) -> str:
    """What fresh seeds said of the best trial's gain; nothing where they were not asked."""
    if pd.isna(best.get(BAND[0])):
        return ""
    return describe_gain(Gain(*(best[name] / 100 for name in BAND)))


def conclude(found: pd.DataFrame) -> str:
    """A paragraph."""
    if found.empty:
        return "No search has a complete baseline, so there is no gain to state; run one to its end."
    said = []
    for search, rows in found.groupby("search"):
        last = rows.iloc[-1]
        cost = f"{last['spent']:,.0f} s of training, as much as {last['baselines']:.1f} runs of its baseline"
        if last["gain"] <= 0:
            said.append(f"{search} spent {cost}, and no trial beat the baseline")
            continue
        half = rows[rows["gain"] >= last["gain"] / 2].iloc[0]
        share = 100 * half["spent"] / last["spent"]
        confirmed = f"; again with fresh seeds: {last['confirmed']}" if last["confirmed"] else ", not confirmed"
        half_way = f"half of that after {share:.0f} % of the time"
        said.append(f"{search} gained {last['gain']:.2f} points for {cost}, {half_way}{confirmed}")
    return f"{'. '.join(said)}. A gain is of one run, the best of many: optimistic until it is confirmed."


def draw(found: pd.DataFrame) -> Figure:
    """A staircase for each search."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for search, rows in found.groupby("search"):
        axes.step(rows["baselines"], rows["gain"], where="post", marker=".", label=f"{search} (n={len(rows)})")
    axes.set(xlabel="training time, in runs of the baseline", ylabel="gain of the best so far, points")
    axes.set_title("What searches cost and gain")
    axes.legend()
    return figure


if __name__ == "__main__":
    run_study(__doc__, "payoff", lambda trials, epochs: payoff(trials), draw, conclude, prints_table=False)
