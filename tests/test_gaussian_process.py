"""The model of the search's searcher, against scikit-learn's and by finite differences."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from cifar_tune.search.encoding import Array
from cifar_tune.search.gaussian_process import GaussianProcess


@pytest.fixture
def points() -> Array:
    return np.random.default_rng(0).random((40, 3))


def bumps(points: Array) -> Array:
    """A function of two of the three columns."""
    return 5 + np.sin(6 * points[:, 0]) + points[:, 1] ** 2


def test_it_predicts_what_scikit_learns_does_with_the_same_hyperparameters(points: Array) -> None:
    ours = GaussianProcess(3)
    values = bumps(points)
    ours.fit(points, values)
    lengths, variance, noise = ours._parameters(ours._theta)
    kernel = ConstantKernel(variance) * Matern(lengths, nu=2.5) + WhiteKernel(noise)
    theirs = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True, alpha=1e-6).fit(points, values)
    queries = np.random.default_rng(1).random((20, 3))
    mean, sd = theirs.predict(queries, return_std=True)
    found = ours.predict(queries)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(found.variance + ours.noise, sd**2, rtol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_the_losss(points: Array, seed: int) -> None:
    process = GaussianProcess(3)
    process.fit(points, bumps(points), optimize=False)
    theta = np.random.default_rng(seed).normal(size=5) / 2
    error = check_grad(lambda t: process._loss(t)[0], lambda t: process._loss(t)[1], theta)
    assert error < 1e-4 * np.abs(process._loss(theta)[1]).max()


def test_a_column_that_does_not_matter_gets_a_long_length(points: Array) -> None:
    process = GaussianProcess(3)
    process.fit(points, bumps(points))
    lengths = process._parameters(process._theta)[0]
    assert lengths[2] > 2 * lengths[0]


def test_it_is_sure_where_it_has_seen_and_unsure_elsewhere() -> None:
    process = GaussianProcess(1)
    points = np.linspace(0, 0.5, 12)[:, None]
    process.fit(points, np.sin(9 * points[:, 0]))
    near, far = process.predict(np.array([[0.25], [1.0]])).sd
    assert far > 3 * near


def test_noise_is_found() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((150, 1))
    process = GaussianProcess(1)
    process.fit(points, points[:, 0] + rng.normal(0, 0.2, 150))
    assert process.noise == pytest.approx(0.04, rel=0.3)


@pytest.mark.parametrize("num_points", [1, 2])
def test_one_observation_is_enough_and_equal_ones_do_no_harm(num_points: int) -> None:
    process = GaussianProcess(2)
    process.fit(np.full((num_points, 2), 0.5), np.full(num_points, 0.7))
    assert process.predict(np.array([[0.5, 0.5]])).mean == pytest.approx([0.7], abs=1e-3)
