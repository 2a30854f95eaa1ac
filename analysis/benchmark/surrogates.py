"""Surrogates: models of the recorded tables that give the learning curve of any recipe of a space.

There are two families of scikit-learn models, Gaussian processes and extremely randomised trees, so that no search
method profits from being compared on its own kind of model. A curve is the table's mean curve plus the first principal
components, whose weights the models predict. The added noise is a recorded difference between two seeds of a recipe
with a similar final accuracy, because good recipes scatter less: by 1.0 points on mini_resnet, the worst by 4.6.

    uv run python analysis/benchmark/surrogates.py      # their cross-validated errors
"""

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import GroupKFold

from cifar_tune.search.encoding import Array, Encoding
from cifar_tune.search.space import Space, load_space
from cifar_tune.search.stand_ins import RandomTrial

HERE = Path(__file__).parent
CURVES = HERE / "curves"
SPACES = ("linear_head", "plateau", "two_phase", "architectures", "resnet9", "mini_resnet")
NUM_COMPONENTS = 6
NUM_SAMPLED = 20_000  # random recipes from which quantiles of a space are estimated
NUM_ALIKE = 10  # recorded recipes with two seeds and similar final accuracies, from which noise is drawn
CHANCE = 0.1

Family = Literal["gp", "trees"]

warnings.simplefilter("ignore", ConvergenceWarning)  # a kernel length at its bound means that a value does not matter


@dataclass(frozen=True)
class Table:
    """The recorded trainings of a space: values, accuracies (n, epochs), seconds per epoch (n,), configs (n,)."""

    space: Space
    params: Sequence[Mapping[str, Any]]
    accuracies: Array
    seconds: Array
    configs: npt.NDArray[np.int64]

    @property
    def epochs(self) -> int:
        return int(self.accuracies.shape[1])

    def points(self) -> Array:
        """The encoded sampled values (n, columns)."""
        return encoding(self.space.path.stem).encode(self.params)

    def noise(self) -> tuple[Array, Array]:
        """The differences between two seeds, scaled to one seed (pairs, epochs), and mean final accuracies (pairs,)."""
        pairs = [rows for rows in pd.Series(self.configs).groupby(self.configs).indices.values() if len(rows) == 2]
        curves = self.accuracies[np.array(pairs)]
        return (curves[:, 0] - curves[:, 1]) / np.sqrt(2), curves[:, :, -1].mean(axis=1)


@dataclass(frozen=True)
class Curve:
    """A simulated training; `value` is the final accuracy of its recipe without the noise of a seed."""

    accuracies: Array
    seconds: float  # per epoch
    value: float


class Surrogate:
    """Learning curves for any recipe of a space."""

    def __init__(self, name: str, family: Family) -> None:
        self.table = read_table(name)
        self.encoding = encoding(name)
        points = self.table.points()
        self._curves = CurveModel(family).fit(points, self.table.accuracies)
        self._seconds = make_model("trees", points.shape[1]).fit(points, np.log(self.table.seconds))
        self._noise, self._ends = self.table.noise()
        self.values = np.sort(self.value(random_params(name)))

    @property
    def epochs(self) -> int:
        return self.table.epochs

    def value(self, params: Sequence[Mapping[str, Any]]) -> Array:
        """The final accuracies of recipes without noise (n,)."""
        return self._curves.predict(self.encoding.encode(params))[:, -1]

    def train(self, params: Mapping[str, Any], rng: np.random.Generator) -> Curve:
        """A simulated training with its own noise."""
        point = self.encoding.encode([params])
        curve = self._curves.predict(point)[0]
        alike = np.argsort(np.abs(self._ends - curve[-1]))[:NUM_ALIKE]
        noise = self._noise[rng.choice(alike)] * rng.choice((-1, 1))
        seconds = float(np.exp(self._seconds.predict(point))[0])
        return Curve(np.clip(curve + noise, 0.01, 0.99), seconds, float(curve[-1]))

    def quantile(self, value: float) -> float:
        """The share of the space with a higher value."""
        return 1 - float(np.searchsorted(self.values, value, side="right")) / len(self.values)

    def threshold(self, share: float) -> float:
        """The value that the best `share` of the space exceeds."""
        return float(np.quantile(self.values, 1 - share))


class CurveModel:
    """Predicts curves from encoded points, by the principal components of the curves."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def fit(self, points: Array, curves: Array) -> "CurveModel":
        self._mean = curves.mean(axis=0)
        self._components = np.linalg.svd(curves - self._mean, full_matrices=False)[2][:NUM_COMPONENTS]
        weights = (curves - self._mean) @ self._components.T
        if self._family == "trees":
            self._models = [make_model("trees", points.shape[1]).fit(points, weights)]
        else:
            self._models = [make_model("gp", points.shape[1]).fit(points, column) for column in weights.T]
        return self

    def predict(self, points: Array) -> Array:
        """The curves (n, epochs) at points (n, columns)."""
        weights = np.column_stack([model.predict(points) for model in self._models])
        curves: Array = self._mean + weights @ self._components
        return np.clip(curves, 0.01, 0.99)


class Trees(ExtraTreesRegressor):  # type: ignore[misc]
    """Extra trees that predict one point in a millisecond; scikit-learn's own method starts threads each time."""

    def predict(self, x: Array) -> Array:
        """The mean prediction of the trees."""
        points = x.astype(np.float32)
        means = np.mean([tree.tree_.predict(points) for tree in self.estimators_], axis=0)
        return np.asarray(means.reshape(len(x), -1) if self.n_outputs_ > 1 else means.ravel())


def make_model(family: Family, num_columns: int) -> Any:  # noqa: ANN401 - scikit-learn has no types
    """An unfitted model."""
    if family == "trees":
        return Trees(100, min_samples_leaf=2, max_features=0.7, random_state=0)
    kernel = ConstantKernel() * Matern(np.ones(num_columns), (0.1, 20), nu=2.5) + WhiteKernel(0.1, (1e-3, 2))
    return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)


@cache
def open_space(name: str) -> Space:
    """A space of the folder beside this file."""
    return load_space(HERE / "spaces" / f"{name}.py")


@cache
def encoding(name: str) -> Encoding:
    """The encoding of the space's values."""
    return Encoding(open_space(name).ranges())


@cache
def random_params(name: str) -> list[dict[str, Any]]:
    """The sampled values of NUM_SAMPLED random recipes, always the same ones."""
    rng = random.Random(0)
    trials = [RandomTrial(rng) for _ in range(NUM_SAMPLED)]
    for trial in trials:
        open_space(name).function(cast(optuna.Trial, trial))
    return [trial.params for trial in trials]


@cache
def read_table(name: str) -> Table:
    """The recorded table of a space; a diverged training has chance accuracy after its last epoch."""
    frame = pd.concat([pd.read_parquet(path) for path in sorted((CURVES / name).glob("*.parquet"))], ignore_index=True)
    epochs = open_space(name).baselines[0].epochs
    accuracies = [np.pad(curve, (0, epochs - len(curve)), constant_values=CHANCE) for curve in frame["val_accuracy"]]
    seconds = frame["seconds"].map(np.mean).to_numpy()
    values = frame.drop(columns=["config", "seed", "val_accuracy", "seconds"]).to_dict("records")
    ranges = open_space(name).ranges()
    rows = [{str(key): value for key, value in row.items() if not pd.isna(value)} for row in values]
    params = [{key: typed(ranges[key], value) for key, value in row.items()} for row in rows]
    return Table(open_space(name), params, np.array(accuracies), seconds, frame["config"].to_numpy())


def typed(distribution: BaseDistribution, value: Any) -> Any:  # noqa: ANN401 - a choice may be of any type
    """A value of a column in its own type: pandas stores integers as floats in a column with gaps."""
    if isinstance(distribution, CategoricalDistribution):
        return next(choice for choice in distribution.choices if choice == value)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def main() -> None:
    """Print the errors of ten-fold cross-validation of the final accuracy, with whole configurations held out."""
    for name in SPACES:
        table = read_table(name)
        noise = table.noise()[0][:, -1]
        spread = 100 * table.accuracies[:, -1].std()
        print(f"{name}: {len(table.params)} trainings; standard deviations of the final accuracy in points:")
        print(f"  {spread:.2f} of all trainings, {100 * noise.std():.2f} of a recipe's seeds")
        for family in get_args(Family):
            truth, predicted = table.accuracies[:, -1], cross_validate(table, family)
            rmse, rank = 100 * np.sqrt(np.mean((truth - predicted) ** 2)), spearmanr(truth, predicted).statistic
            print(f"  {family}: root mean square error {rmse:.2f} points, rank correlation {rank:.2f}")


def cross_validate(table: Table, family: Family) -> Array:
    """The final accuracy of every training, predicted by a model that was fitted without its configuration (n,)."""
    points, predicted = table.points(), np.empty(len(table.params))
    for fitted, held_out in GroupKFold(10, shuffle=True, random_state=0).split(points, groups=table.configs):
        model = CurveModel(family).fit(points[fitted], table.accuracies[fitted])
        predicted[held_out] = model.predict(points[held_out])[:, -1]
    return predicted


if __name__ == "__main__":
    main()
