"""Compares our sampler and scheduler with random search, stock Ray Tune and others, on surrogates of recorded curves.

    uv run python analysis/benchmark/compare.py                 # run the cases that results.parquet lacks, then report
    uv run python analysis/benchmark/compare.py --seeds 0       # report the cases in results.parquet
    build/peers/bin/python analysis/benchmark/compare.py --methods DEHB SMAC3   # with the packages that peers/ names

A case is a space, a family of surrogates, a baseline (the published recipe, or the median of the space), a number of
workers and a method. It is searched with 30 seeds, each until the best trial is in the top 1 % of the space and for at
least MIN_TRAININGS whole trainings. The report has the epochs until the best completed trial is in the top 5 % and the
top 1 %, as interquartile means over the seeds with 95 % bootstrap intervals, and the regret along the way.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple, dataclass, fields
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from peers import PEERS, why_unsuitable
from simulation import COMPARATORS, MethodName, make_method, simulate, with_baseline
from surrogates import SPACES, Family, Surrogate, open_space, random_params

from cifar_tune.search.encoding import Array
from cifar_tune.search.search import Search

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.parquet"  # a row for each new best trial of each case and seed
REGRET = FOLDER / "regret.png"
METHODS: tuple[MethodName, ...] = ("ours", *COMPARATORS)  # those that need no other packages
ALL_METHODS: tuple[MethodName, ...] = (*METHODS, *PEERS)
WORKERS = (4, 1, 16)
MIN_TRAININGS, MAX_TRAININGS = 30, 150  # budgets, in whole trainings
NUM_BOOTSTRAPS = 2_000

Baseline = Literal["published", "median"]


@dataclass(frozen=True)
class Case:
    """One cell of the comparison."""

    space: str
    family: Family
    baseline: Baseline
    num_workers: int
    method: MethodName

    def __str__(self) -> str:
        return " ".join(map(str, astuple(self)))


def cases(methods: Sequence[MethodName]) -> Iterator[Case]:
    """All baselines with 4 workers; the published one with 1 and 16 workers. No method on a space it cannot search."""
    for workers, space, method in product(WORKERS, SPACES, methods):
        if not suits(method, space):
            continue
        yield Case(space, "gp", "published", workers, method)
        yield Case(space, "trees", "published", workers, method)
        if workers == WORKERS[0]:
            yield Case(space, "gp", "median", workers, method)
            yield Case(space, "trees", "median", workers, method)


@cache
def suits(method: MethodName, space: str) -> bool:
    """Whether the method can search the space."""
    return why_unsuitable(method, open_space(space)) is None


CASE = [field.name for field in fields(Case)]


def run(case: Case, num_seeds: int) -> pd.DataFrame:
    """Search a case with every seed; its rows of the results."""
    surrogate = surrogate_of(case.space, case.family)
    space = with_baseline(open_space(case.space), baseline_params(surrogate, case.baseline), Search())
    rows = []
    for seed in range(num_seeds):
        method = make_method(case.method, space, seed)
        new_bests = simulate(
            method,
            surrogate,
            case.num_workers,
            MAX_TRAININGS * surrogate.epochs,
            seed,
            until=surrogate.threshold(0.01),
            at_least=MIN_TRAININGS * surrogate.epochs,
        )
        rows += [{**asdict(case), "seed": seed, **asdict(best)} for best in new_bests]
    return pd.DataFrame(rows)


@cache
def surrogate_of(space: str, family: Family) -> Surrogate:
    """The surrogate, fitted once per process."""
    return Surrogate(space, family)


def baseline_params(surrogate: Surrogate, baseline: Baseline) -> dict[str, Any]:
    """The values of the published recipe, or of a random recipe that half of the space surpasses."""
    if baseline == "published":
        return dict(surrogate.table.params[0])
    candidates = random_params(surrogate.table.space.path.stem)[:2_000]
    values = surrogate.value(candidates)
    return candidates[int(np.argmin(np.abs(values - np.median(surrogate.values))))]


def epochs_until(rows: pd.DataFrame, value: float) -> Array:
    """For each seed, the epochs until the best trial reached `value`; infinite where none did."""
    reached = rows[rows["value"] >= value].groupby("seed")["num_epochs"].min()
    return reached.reindex(sorted(rows["seed"].unique())).fillna(np.inf).to_numpy(float)


def interquartile_mean(values: Array) -> float:
    """The mean of the middle half of the values."""
    ranked, cut = np.sort(values), len(values) // 4
    return float(ranked[cut : len(ranked) - cut].mean())


def interval(values: Array) -> tuple[float, float]:
    """A 95 % bootstrap interval of the interquartile mean."""
    rng = np.random.default_rng(0)
    means = [interquartile_mean(rng.choice(values, len(values))) for _ in range(NUM_BOOTSTRAPS)]
    low, high = np.percentile(means, [2.5, 97.5], method="nearest")  # values may be infinite
    return float(low), float(high)


def summarise(case: Case, rows: pd.DataFrame) -> dict[str, Any]:
    """One row of the printed table, from the rows of the case."""
    surrogate = surrogate_of(case.space, case.family)
    row: dict[str, Any] = {**asdict(case), "seeds": rows["seed"].nunique()}
    for share in (0.05, 0.01):
        epochs = epochs_until(rows, surrogate.threshold(share))
        low, high = interval(epochs)
        row[f"top {100 * share:.0f} %"] = interquartile_mean(epochs)
        row[f"from {100 * share:.0f} %"], row[f"to {100 * share:.0f} %"] = low, high
    row["reached"] = float(np.isfinite(epochs).mean())
    best = surrogate.values[-1]
    for trainings in (10, 20, 30):
        so_far = rows[rows["num_epochs"] <= trainings * surrogate.epochs].groupby("seed")["value"].last()
        row[f"regret after {trainings}"] = 100 * float((best - so_far).mean())
    return row


def main() -> None:
    """Run the missing cases, then report all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--num-workers", type=int, default=2, help="processes of this script")
    parser.add_argument("--methods", nargs="+", choices=ALL_METHODS, default=METHODS, help="those to run")
    options = parser.parse_args()
    results = pd.read_parquet(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=CASE)
    done = set(results[CASE].itertuples(index=False, name=None))
    missing = [case for case in cases(options.methods) if astuple(case) not in done] if options.seeds else []
    with ProcessPoolExecutor(options.num_workers, get_context("spawn")) as pool:
        for case, rows in zip(missing, pool.map(run, missing, [options.seeds] * len(missing)), strict=True):
            results = pd.concat([results, rows])  # written after every case, so that an interruption loses little
            results.to_parquet(RESULTS, index=False)
            print(case, flush=True)
    # pandas-stubs know only that a key's parts are hashable.
    report({Case(*cast(Any, key)): rows for key, rows in results.groupby(CASE, sort=False)})


def report(results: Mapping[Case, pd.DataFrame]) -> None:
    """Print how good the baselines are and the table of all cases; draw the regret."""
    done = [case for case in cases(ALL_METHODS) if case in results]
    for space, family, baseline in sorted({(case.space, case.family, case.baseline) for case in done}):
        surrogate = surrogate_of(space, family)
        (value,) = surrogate.value([baseline_params(surrogate, baseline)])
        print(
            f"{space}, {family}: the {baseline} baseline is better than {100 * (1 - surrogate.quantile(value)):.1f} %"
        )
    table = pd.DataFrame([summarise(case, results[case]) for case in done])
    print(table.to_string(index=False, float_format=lambda number: f"{number:.1f}"))
    draw(results, REGRET)


def draw(results: Mapping[Case, pd.DataFrame], path: Path) -> None:
    """Mean regret against epochs for 4 workers, a panel for each space, surrogate and baseline."""
    panels = list(dict.fromkeys((c.space, c.family, c.baseline) for c in results if c.num_workers == 4))
    figure, axes = plt.subplots(2, -(-len(panels) // 2), figsize=(4 * -(-len(panels) // 2), 7), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        surrogate = surrogate_of(panel[0], panel[1])
        grid = np.arange(1, MIN_TRAININGS * surrogate.epochs)
        for method in ALL_METHODS:
            case = Case(*panel, 4, method)
            if case in results:
                means, low, high = regret(results[case], surrogate, grid)
                (line,) = axis.plot(grid / surrogate.epochs, means, label=method)
                axis.fill_between(grid / surrogate.epochs, low, high, color=line.get_color(), alpha=0.15)
        axis.set(title=", ".join(panel), yscale="log", xlabel="whole trainings' epochs", ylabel="regret, points")
    axes.flat[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def regret(rows: pd.DataFrame, surrogate: Surrogate, grid: npt.NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """The mean regret in points over the seeds with its 95 % bootstrap interval, at each number of epochs in `grid`.

    NaN before a trial has completed.
    """
    bests = rows.pivot_table(index="num_epochs", columns="seed", values="value")
    values = bests.ffill().reindex(grid, method="ffill").to_numpy()
    points = 100 * (surrogate.values[-1] - values)
    rng = np.random.default_rng(0)
    means = [points[:, rng.integers(points.shape[1], size=points.shape[1])].mean(axis=1) for _ in range(200)]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return points.mean(axis=1), low, high


if __name__ == "__main__":
    main()
