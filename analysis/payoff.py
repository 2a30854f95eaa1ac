"""What a search costs and what it gains, for every search of a store.

    uv run python analysis/payoff.py [--store FOLDER] [--output payoff.png]

The gain of the best trial so far over the baseline is shown against the training time of all workers together, in
seconds and in multiples of the baseline's. Gains of one run each are optimistic; where `cifar-tune confirm` has judged
the best trial, its verdict is given too.
"""

import pandas as pd
from matplotlib.figure import Figure
from study import run_study

from cifar_tune.evaluation.significance import Gain
from cifar_tune.report.columns import BAND
from cifar_tune.report.leaderboard import eligible
from cifar_tune.report.sentences import describe_gain
from cifar_tune.wording import format_percent


def payoff(trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each trial, in the order of their numbers.

    `spent` is the training time of all trials up to this one in seconds, `baselines` the same in runs of the baseline,
    `gain` the best so far in points, and `confirmed` the verdict on the search's best trial, empty without one.
    """
    rows = []
    for search, own in trials.groupby("search"):
        ordered = own.sort_values("trial")
        gains = ordered["gain"].where(ordered.index.isin(eligible(ordered).index)).astype(float)
        baseline_seconds = ordered[ordered["gain"] == 0]["seconds"]  # of the baseline that gains are counted from
        if gains.notna().sum() == 0 or baseline_seconds.empty:
            continue
        spent = ordered["seconds"].astype(float).cumsum()
        rows.append(
            pd.DataFrame(
                {
                    "search": search,
                    "trial": ordered["trial"],
                    "spent": spent,
                    "baselines": spent / float(baseline_seconds.iloc[0]),
                    "gain": gains.cummax().ffill(),
                    "confirmed": _verdict(ordered.iloc[int(gains.argmax())]),
                }
            )
        )
    columns = ["search", "trial", "spent", "baselines", "gain", "confirmed"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def _verdict(best: pd.Series) -> str:
    """The verdict of fresh seeds on the best trial's gain; empty where it was not confirmed."""
    if pd.isna(best.get(BAND[0])):
        return ""
    return describe_gain(Gain(*(best[name] / 100 for name in BAND)))


def conclude(results: pd.DataFrame) -> str:
    """The results in a paragraph."""
    if results.empty:
        return "No search has a complete baseline, so there is no gain to state. Run one to its end."
    sentences = []
    for search, rows in results.groupby("search"):
        last = rows.iloc[-1]
        cost = f"{last['spent']:,.0f} s of training, as much as {last['baselines']:.1f} runs of its baseline"
        if last["gain"] <= 0:
            sentences.append(f"{search} spent {cost}, and no trial beat the baseline.")
            continue
        half = rows[rows["gain"] >= last["gain"] / 2].iloc[0]
        verdict = (
            f"Retrained with fresh seeds: {last['confirmed']}" if last["confirmed"] else "The gain is not confirmed"
        )
        sentences += [
            f"{search} gained {last['gain']:.2f} points for {cost}.",
            f"Half of the gain came after {format_percent(half['spent'] / last['spent'], 0)} of the time.",
            f"{verdict}.",
        ]
    return f"{' '.join(sentences)} A gain of one run, the best of many, is optimistic until it is confirmed."


def draw(results: pd.DataFrame) -> Figure:
    """A staircase for each search."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for search, rows in results.groupby("search"):
        axes.step(rows["baselines"], rows["gain"], where="post", marker=".", label=f"{search} (n={len(rows)})")
    axes.set(xlabel="training time, in runs of the baseline", ylabel="gain of the best so far, points")
    axes.set_title("What searches cost and gain")
    axes.legend()
    return figure


if __name__ == "__main__":
    run_study(__doc__, "payoff", lambda trials, epochs: payoff(trials), draw, conclude, prints_table=False)
