"""Compares our samplers and schedulers with random search, stock Ray Tune and others, on surrogates of recorded curves.

    uv run python analysis/benchmark/compare.py                 # run the searches that results.parquet lacks
    uv run python analysis/benchmark/compare.py --seeds 0       # report those that were run
    build/peers/bin/python analysis/benchmark/compare.py --methods DEHB SMAC3   # with the packages that peers/ names

A case is a space, a family of surrogates, a baseline (the published recipe, or the median of the space), a number of
workers and a method. Each of its searches, one for each seed, spends the epochs of BUDGET whole trainings. The report
has the epochs until the best completed trial is in the top 5 % and the top 1 % of the space, as interquartile means
over the seeds with 95 % bootstrap intervals, and the mean regret along the way. Then it compares each of our methods
with the best other one of each cell: ratios below 1 are ours.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, astuple, dataclass, fields
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, cast, get_args

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from peers import PEERS, why_unsuitable
from simulation import COMPARATORS, OURS, MethodName, make_method, search_of, simulate, with_baseline
from surrogates import SPACES, Family, Surrogate, open_space, random_params

from cifar_tune.search.encoding import Array

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.parquet"  # a row for each new best trial of each case and seed
REGRET = FOLDER / "regret.png"
METHODS: tuple[MethodName, ...] = ("ours", *COMPARATORS)  # those that need no other packages
ALL_METHODS: tuple[MethodName, ...] = (*OURS, *COMPARATORS, *PEERS)
BUDGET = 30  # whole trainings
SHARES = (0.05, 0.01)  # of the space, whose best recipes are sought
TRAININGS = (10, 15, 30)  # after which the regret is reported
SEEDS_TOGETHER = 5  # searches after which the results are written
NUM_BOOTSTRAPS = 2_000
LOWEST_REGRET = 0.05  # points: less is none

Baseline = Literal["published", "median"]


@dataclass(frozen=True)
class Cell:
    """A space with a surrogate and a baseline, searched by so many workers."""

    space: str
    family: Family
    baseline: Baseline
    num_workers: int

    def __str__(self) -> str:
        return " ".join(map(str, astuple(self)))


@dataclass(frozen=True)
class Case(Cell):
    """One method in a cell of the comparison."""

    method: MethodName

    @property
    def cell(self) -> Cell:
        return Cell(self.space, self.family, self.baseline, self.num_workers)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Those that the command line asks for; no method on a space it cannot search."""
    names = options.spaces, options.families, options.baselines, options.workers, options.methods
    for case in (Case(*each) for each in product(*names)):
        if suits(case.method, case.space):
            yield case


@cache
def suits(method: MethodName, space: str) -> bool:
    """Whether the method can search the space."""
    return why_unsuitable(method, open_space(space)) is None


CASE = [field.name for field in fields(Case)]


def run(case: Case, seeds: Sequence[int]) -> pd.DataFrame:
    """Search a case with each of the seeds; its rows of the results."""
    surrogate = surrogate_of(case.space, case.family)
    baseline = baseline_params(surrogate, case.baseline)
    space = with_baseline(open_space(case.space), baseline, search_of(case.method))
    rows = []
    for seed in seeds:
        method = make_method(case.method, space, seed)
        new_bests = simulate(method, surrogate, case.num_workers, BUDGET * surrogate.epochs, seed)
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
    for share in SHARES:
        epochs = epochs_until(rows, surrogate.threshold(share))
        low, high = interval(epochs)
        row[f"top {100 * share:.0f} %"] = interquartile_mean(epochs)
        row[f"from {100 * share:.0f} %"], row[f"to {100 * share:.0f} %"] = low, high
    row["reached"] = float(np.isfinite(epochs).mean())
    for trainings in TRAININGS:
        row[f"regret after {trainings}"] = float(regrets_after(rows, surrogate, trainings).mean())
    return row


def regrets_after(rows: pd.DataFrame, surrogate: Surrogate, trainings: int) -> Array:
    """For each seed, the points by which the best trial lies below the best of the space."""
    so_far = rows[rows["num_epochs"] <= trainings * surrogate.epochs].groupby("seed")["value"].last()
    return np.asarray(100 * (surrogate.values[-1] - so_far.reindex(sorted(rows["seed"].unique())).fillna(0)))


def measures(rows: pd.DataFrame, surrogate: Surrogate) -> dict[str, Array]:
    """What methods are compared by, for each seed; epochs are at most the budget."""
    budget = BUDGET * surrogate.epochs
    epochs = {f"top {100 * s:.0f} %": epochs_until(rows, surrogate.threshold(s)).clip(max=budget) for s in SHARES}
    regrets = {f"regret after {each}": regrets_after(rows, surrogate, each) for each in TRAININGS}
    return epochs | regrets


def ratios(tables: Mapping[Case, Mapping[str, Array]], method: MethodName) -> pd.DataFrame:
    """Our method's measures divided by those of the best other one of each cell, with a geometric mean over the cells.

    `tables` are the `measures` of each case. Each measure is a column, with a 95 % bootstrap interval over the seeds of
    both.
    """
    rng, table, draws = np.random.default_rng(0), dict[Any, dict[str, str]](), list[dict[str, Array]]()
    for case in tables:
        rivals = [tables[other] for other in tables if other.cell == case.cell and other.method not in OURS]
        if rivals and case.method == method:
            draws.append({name: _ratio(tables[case][name], [each[name] for each in rivals], rng) for name in rivals[0]})
            table[str(case.cell)] = {name: _with_interval(drawn) for name, drawn in draws[-1].items()}
    if draws:
        means = {name: np.exp(np.mean([np.log(drawn[name]) for drawn in draws], axis=0)) for name in draws[0]}
        table["geometric mean"] = {name: _with_interval(drawn) for name, drawn in means.items()}
    return pd.DataFrame(table).T


def _ratio(own: Array, rivals: Sequence[Array], rng: np.random.Generator) -> Array:
    """The ratio to the best rival, and after it bootstrap samples of it."""
    best = min(rivals, key=_mean)
    drawn = [_mean(rng.choice(own, len(own))) / _mean(rng.choice(best, len(best))) for _ in range(NUM_BOOTSTRAPS)]
    return np.array([_mean(own) / _mean(best), *drawn])


def _mean(values: Array) -> float:
    return max(float(values.mean()), LOWEST_REGRET)


def _with_interval(drawn: Array) -> str:
    low, high = np.percentile(drawn[1:], [2.5, 97.5])
    return f"{drawn[0]:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Run the missing searches, then report those that the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--num-workers", type=int, default=2, help="processes of this script")
    parser.add_argument("--methods", nargs="+", choices=ALL_METHODS, default=METHODS, help="those to run")
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=SPACES)
    parser.add_argument("--families", nargs="+", choices=get_args(Family), default=get_args(Family))
    parser.add_argument("--baselines", nargs="+", choices=get_args(Baseline), default=["median"])
    parser.add_argument("--workers", nargs="+", type=int, default=[4], help="workers of each search")
    options = parser.parse_args()
    results = pd.read_parquet(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=[*CASE, "seed"])
    with ProcessPoolExecutor(options.num_workers, get_context("spawn")) as pool:
        running = [pool.submit(run, *searches) for searches in missing(results, options)]
        for searches in as_completed(running):
            results = pd.concat([results, searches.result()])
            results.to_parquet(RESULTS, index=False)
            print(".", end="", flush=True)
    # pandas-stubs know only that a key's parts are hashable.
    found = {Case(*cast(Any, key)): rows for key, rows in results.groupby(CASE, sort=False)}
    asked = set(product(options.spaces, options.families, options.baselines, options.workers))
    report({case: rows for case, rows in found.items() if astuple(case.cell) in asked})


def missing(results: pd.DataFrame, options: argparse.Namespace) -> Iterator[tuple[Case, list[int]]]:
    """The searches that were not run, a few seeds of a case together; the first seeds of all cases first."""
    done = set(results[[*CASE, "seed"]].itertuples(index=False, name=None))
    asked = list(cases(options))
    for first in range(0, options.seeds, SEEDS_TOGETHER):
        for case in asked:
            seeds = range(first, min(first + SEEDS_TOGETHER, options.seeds))
            if left := [seed for seed in seeds if (*astuple(case), seed) not in done]:
                yield case, left


def report(results: Mapping[Case, pd.DataFrame]) -> None:
    """Print how good the baselines are and the table of all cases; draw the regret."""
    done = sorted(results, key=lambda case: (astuple(case.cell), ALL_METHODS.index(case.method)))
    for space, family, baseline in sorted({(case.space, case.family, case.baseline) for case in done}):
        surrogate = surrogate_of(space, family)
        (value,) = surrogate.value([baseline_params(surrogate, baseline)])
        print(
            f"{space}, {family}: the {baseline} baseline is better than {100 * (1 - surrogate.quantile(value)):.1f} %"
        )
    table = pd.DataFrame([summarise(case, results[case]) for case in done])
    print(table.to_string(index=False, float_format=lambda number: f"{number:.1f}"))
    tables = {case: measures(results[case], surrogate_of(case.space, case.family)) for case in done}
    for method in OURS:
        if not (compared := ratios(tables, method)).empty:
            print(f"{method}, divided by the best of the others in each cell:\n{compared.to_string()}")
    draw(results, REGRET)


def draw(results: Mapping[Case, pd.DataFrame], path: Path) -> None:
    """Mean regret against epochs for 4 workers, a panel for each space, surrogate and baseline."""
    panels = list(dict.fromkeys((c.space, c.family, c.baseline) for c in results if c.num_workers == 4))
    figure, axes = plt.subplots(2, -(-len(panels) // 2), figsize=(4 * -(-len(panels) // 2), 7), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        surrogate = surrogate_of(panel[0], panel[1])
        grid = np.arange(1, BUDGET * surrogate.epochs)
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
    points = np.maximum(100 * (surrogate.values[-1] - values), LOWEST_REGRET)
    rng = np.random.default_rng(0)
    means = [points[:, rng.integers(points.shape[1], size=points.shape[1])].mean(axis=1) for _ in range(200)]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return points.mean(axis=1), low, high


if __name__ == "__main__":
    main()
