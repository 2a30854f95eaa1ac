"""A Gaussian process over the unit cube: Matérn 5/2, a length for each column, hyperparameters by their posterior mode.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), equations 2.25, 2.26 and 5.9. The prior on the
lengths grows with the number of columns, which is what makes few observations of many values useful (Hvarfner et al.,
arXiv:2402.02229). scikit-learn's has no priors, and takes seconds where this takes a tenth of one.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

from cifar_tune.search.encoding import Array

SQRT5 = math.sqrt(5)
LENGTH_SPREAD, VARIANCE_SPREAD, NOISE_SPREAD = 1.0, 1.0, 1.0  # standard deviations of the logarithms' normal priors
NOISE = 0.1  # the prior's median, of a variance of 1
BOUNDS = {"length": (-3.0, 3.0), "variance": (-3.0, 3.0), "noise": (-7.0, 1.0)}  # of the logarithms
JITTER = 1e-6
NUM_STEPS = 30  # of the optimizer; it starts where the last fit ended


@dataclass(frozen=True)
class Normal:
    """Independent normal distributions, one for each point."""

    mean: Array
    variance: Array

    @property
    def sd(self) -> Array:
        """Standard deviations."""
        return np.sqrt(self.variance)


class GaussianProcess:
    """Fitted to observations by `fit`; `predict` then knows the function, and `noise` is that of an observation."""

    def __init__(self, num_columns: int) -> None:
        self._prior = np.array([math.log(math.sqrt(max(1, num_columns)) / 2)] * num_columns + [0.0, math.log(NOISE)])
        self._spread = np.array([LENGTH_SPREAD] * num_columns + [VARIANCE_SPREAD, NOISE_SPREAD])
        self._bounds = [BOUNDS["length"]] * num_columns + [BOUNDS["variance"], BOUNDS["noise"]]
        self._theta = self._prior  # logarithms of the lengths, the variance, the noise's variance

    def fit(self, points: Array, values: Array, *, optimize: bool = True) -> None:
        """Take (n, columns) and (n,) as all that was observed; without `optimize` the hyperparameters stay."""
        self._points = points
        self._offset, self._scale = float(values.mean()), max(float(values.std()), 1e-3)
        self._values = (values - self._offset) / self._scale
        if optimize:
            self._theta = minimize(
                self._loss,
                self._theta,
                jac=True,
                method="L-BFGS-B",
                bounds=self._bounds,
                options={"maxiter": NUM_STEPS},
            ).x
        self._condition()

    def believe(self, points: Array) -> None:
        """Take what is predicted at (m, columns) for observed there: less is unknown then, and nothing else changes."""
        values = (self.predict(points).mean - self._offset) / self._scale
        self._points, self._values = np.vstack([self._points, points]), np.concatenate([self._values, values])
        self._condition()

    def _condition(self) -> None:
        lengths, variance, noise = self._parameters(self._theta)
        kernel = _matern(_distances(self._points, self._points, lengths))
        self._factor = np.linalg.cholesky(variance * kernel + (noise + JITTER) * np.eye(len(self._points)))
        self._weights = cho_solve((self._factor, True), self._values)

    @property
    def noise(self) -> float:
        """The variance of an observation around the function."""
        return self._scale**2 * self._parameters(self._theta)[2]

    def predict(self, points: Array) -> Normal:
        """The function at (m, columns)."""
        lengths, variance, _ = self._parameters(self._theta)
        cross = variance * _matern(_distances(points, self._points, lengths))
        explained = (solve_triangular(self._factor, cross.T, lower=True) ** 2).sum(axis=0)
        mean = self._offset + self._scale * (cross @ self._weights)
        return Normal(mean, self._scale**2 * np.maximum(variance - explained, JITTER))

    def _parameters(self, theta: Array) -> tuple[Array, float, float]:
        values = np.exp(theta)
        return values[:-2], float(values[-2]), float(values[-1])

    def _loss(self, theta: Array) -> tuple[float, Array]:
        """The negative log posterior of the hyperparameters, and its gradient."""
        lengths, variance, noise = self._parameters(theta)
        n = len(self._values)
        distances = _distances(self._points, self._points, lengths)
        kernel = _matern(distances)
        try:
            factor = np.linalg.cholesky(variance * kernel + (noise + JITTER) * np.eye(n))
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)  # turns the line search back
        inverse = cho_solve((factor, True), np.eye(n))
        weights = inverse @ self._values
        z = (theta - self._prior) / self._spread
        loss = self._values @ weights / 2 + np.log(np.diag(factor)).sum() + z @ z / 2
        slope = (inverse - np.outer(weights, weights)) / 2  # by the covariance
        along = slope * (variance * 5 / 3) * (1 + SQRT5 * distances) * np.exp(-SQRT5 * distances)
        scaled = self._points / lengths
        by_length = 2 * (along.sum(axis=1) @ scaled**2 - np.einsum("ik,ij,jk->k", scaled, along, scaled, optimize=True))
        by_rest = [variance * (slope * kernel).sum(), noise * np.trace(slope)]
        return float(loss), np.concatenate([by_length, by_rest]) + z / self._spread


def _distances(a: Array, b: Array, lengths: Array) -> Array:
    """(n, m), in lengths."""
    a, b = a / lengths, b / lengths
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    distances: Array = np.sqrt(np.maximum(squares, 0))
    return distances


def _matern(distances: Array) -> Array:
    kernel: Array = (1 + SQRT5 * distances + 5 / 3 * distances**2) * np.exp(-SQRT5 * distances)
    return kernel
