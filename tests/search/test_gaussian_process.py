"""The Gaussian process, against scikit-learn's and by finite differences."""

from dataclasses import replace

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


def test_predictions_equal_scikit_learns_with_the_same_hyperparameters(points: Array) -> None:
    values = bumps(points)
    ours = GaussianProcess(3).fit(points, values[:, None])
    fitted = ours.parameters
    kernel = ConstantKernel(fitted.covariance.item()) * Matern(fitted.lengths.numpy(), nu=2.5)
    kernel += ConstantKernel(fitted.offset.item()) + WhiteKernel(fitted.noise.item())
    theirs = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True, alpha=1e-6).fit(points, values)
    queries = np.random.default_rng(1).random((20, 3))
    mean, sd = theirs.predict(queries, return_std=True)
    ends = ours.predict(queries)
    np.testing.assert_allclose(ends.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(ends.variance + ours.noise, sd**2, rtol=1e-3)


def second(points: Array) -> Array:
    return 0.8 * bumps(points) + 0.3 * points[:, 2]


def two_levels(num_ends: int, seed: int = 0) -> tuple[Array, Array]:
    """Points, and noisy scores at both levels: the second is 0.8 times the first plus an effect of the third column."""
    rng = np.random.default_rng(seed)
    points = rng.random((60, 3))
    first = bumps(points)
    scores = np.column_stack([first, second(points)]) + rng.normal(0, 0.1, (60, 2))
    scores[num_ends:, 1] = np.nan
    return points, scores


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_the_loss(seed: int) -> None:
    process = GaussianProcess(3, 2)
    observations = process.fit(*two_levels(20), optimize=False).observations
    theta = np.random.default_rng(seed).normal(size=8) / 2

    def loss(theta: Array) -> tuple[float, Array]:
        return process._loss(theta, observations)

    error = check_grad(lambda t: loss(t)[0], lambda t: loss(t)[1], theta)
    assert error < 1e-4 * np.abs(loss(theta)[1]).max()


def test_many_scores_at_the_first_level_improve_predictions_of_the_second(points: Array) -> None:
    truth = second(points)
    observed, scores = two_levels(12)
    both, alone = GaussianProcess(3, 2).fit(observed, scores), GaussianProcess(3).fit(observed[:12], scores[:12, 1:])
    errors = [np.square(process.predict(points).mean - truth).mean() for process in (both, alone)]
    assert errors[0] < errors[1] / 2


def test_selection_by_a_noisy_score_does_not_flatten_the_slope() -> None:
    """Of a hundred noisy scores only the best ten reach the second level; a line through these has half the slope."""
    rng = np.random.default_rng(1)
    points = rng.random((100, 1))
    first = points[:, 0] + rng.normal(0, 0.3, 100)
    scores = np.column_stack([first, points[:, 0] + rng.normal(0, 0.1, 100)])
    is_stopped = first < np.sort(first)[-10]
    first_level, second_level = scores[~is_stopped].T
    assert np.polyfit(first_level, second_level, 1)[0] < 0.5
    scores[is_stopped, 1] = np.nan
    process = GaussianProcess(1, 2).fit(points, scores)
    low, high = process.predict(np.array([[0.1], [0.9]])).mean
    assert high - low == pytest.approx(0.8, abs=0.25)


def test_a_column_without_effect_gets_a_long_length(points: Array) -> None:
    process = GaussianProcess(3).fit(points, bumps(points)[:, None])
    lengths = process.parameters.lengths
    assert lengths[2] > 2 * lengths[0]


def test_uncertainty_grows_with_the_distance_from_observations() -> None:
    points = np.linspace(0, 0.5, 12)[:, None]
    process = GaussianProcess(1).fit(points, np.sin(9 * points))
    near, far = process.predict(np.array([[0.25], [1.0]])).sd
    assert far > 3 * near


def test_the_noise_is_estimated() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((150, 1))
    process = GaussianProcess(1).fit(points, points + rng.normal(0, 0.2, (150, 1)))
    assert process.noise == pytest.approx(0.04, rel=0.3)


@pytest.mark.parametrize("num_points", [1, 2])
def test_one_observation_is_enough_and_equal_ones_are_harmless(num_points: int) -> None:
    process = GaussianProcess(2).fit(np.full((num_points, 2), 0.5), np.full((num_points, 1), 0.7))
    assert process.predict(np.array([[0.5, 0.5]])).mean == pytest.approx([0.7], abs=1e-3)


def test_observations_that_are_added_count_as_those_that_were_there_before() -> None:
    """`given` extends the factor; a fit of all of them with the same hyperparameters computes it anew."""
    points, scores = two_levels(30)
    process = GaussianProcess(3, 2)
    process.fit(points, scores)
    whole = process.fit(points, scores, optimize=False)
    rows, levels = np.nonzero(~np.isnan(scores[50:]))
    first = replace(process.fit(points[:50], scores[:50], optimize=False), scale=whole.scale)
    first = replace(first, observations=replace(first.observations, values=whole.scale.scaled(observed(scores[:50]))))
    both = first.given(points[50:][rows], levels, scores[50:][rows, levels])
    queries = np.random.default_rng(1).random((20, 3))
    np.testing.assert_allclose(both.predict(queries).mean, whole.predict(queries).mean, rtol=1e-9)
    np.testing.assert_allclose(both.predict(queries).variance, whole.predict(queries).variance, rtol=1e-6)


def observed(scores: Array) -> Array:
    rows, levels = np.nonzero(~np.isnan(scores))
    return scores[rows, levels]


def test_believing_a_prediction_changes_no_mean_and_lowers_the_variance_there() -> None:
    process = GaussianProcess(3, 2).fit(*two_levels(30))
    queries = np.random.default_rng(1).random((5, 3))
    believing = process.believing(queries[:1])
    np.testing.assert_allclose(believing.predict(queries).mean, process.predict(queries).mean, atol=1e-4)
    assert believing.predict(queries[:1]).variance < process.predict(queries[:1]).variance


def test_what_a_score_would_resolve_is_what_it_does_resolve(points: Array) -> None:
    scores = np.column_stack([bumps(points), second(points)])
    scores[20:, 1] = np.nan
    posterior = GaussianProcess(3, 2).fit(points, scores)
    queries, levels = np.random.default_rng(1).random((6, 3)), np.array([0, 1, 0, 1, 0, 1])
    seen = posterior.foresee(queries, levels)
    before = posterior.predict(queries)
    np.testing.assert_allclose(seen.mean, before.mean, rtol=1e-9)
    np.testing.assert_allclose(seen.sd, before.sd, rtol=1e-6)
    for i, level in enumerate(levels):
        told = posterior.given(queries[[i]], np.array([level]), np.array([5.0]))
        after = told.predict(queries[[i]]).variance[0]
        assert before.variance[i] - after == pytest.approx(seen.resolved[i] ** 2, rel=1e-3, abs=1e-7)
