"""A Gaussian process over the unit cube that is observed at several levels, of which the last is what is asked for.

Each level is a multiple of the one before and a difference of its own (Kennedy and O'Hagan, Biometrika 87:1, 2000), and
all share one Matérn 5/2 kernel with a length for each column, so it is an intrinsic model of coregionalization (Bonilla
et al., NIPS 2007). All levels are conditioned on together: a line that is fitted first through the noisy scores of the
few trials that were good enough to get on comes out much too flat.

Hyperparameters are the posterior mode's. The prior on the lengths grows with the number of columns, which makes few
observations of many values useful (Hvarfner et al., arXiv:2402.02229). scikit-learn's processes have neither.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from cifar_tune.search.encoding import Array

SQRT5 = math.sqrt(5)
# Medians of the hyperparameters' log-normal priors, where the first level's scores have a variance of 1.
FIRST_VARIANCE, LATER_VARIANCE, NOISE, RATIO = 1.0, 0.3, 0.2, 1.0
SPREAD, RATIO_SPREAD = 1.0, 0.3  # standard deviations of the logarithms
NUM_SPREADS = 3.5  # from the median at most
# Variances of the mean at the first level, and of what each later one adds to it. That scores rise further than the
# second says makes the process count on larger differences between recipes, and look about more: measured to be better.
FIRST_OFFSET, LATER_OFFSET = 1.0, 0.1
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


@dataclass(frozen=True)
class Observations:
    """Of a process: where, (n, columns), at which level, (n,), and what, (n,), as its first level is scaled."""

    points: Tensor
    levels: Tensor
    values: Tensor


@dataclass(frozen=True)
class Parameters:
    """The kernel's lengths (columns,); the covariances between levels, and of their means, (levels, levels); noises."""

    lengths: Tensor
    covariance: Tensor
    offset: Tensor
    noise: Tensor


class GaussianProcess:
    """Fitted to observations by `fit`; `predict` then knows the last level's function, without an observation's noise.

    Deviates from Kennedy and O'Hagan in that all levels share the lengths: those that get to the last are few.
    """

    def __init__(self, num_columns: int, num_levels: int = 1) -> None:
        later = num_levels - 1
        length = math.sqrt(max(1, num_columns)) / 2
        variances = [FIRST_VARIANCE] + [LATER_VARIANCE] * later
        medians = [length] * num_columns + variances + [NOISE] * num_levels + [RATIO] * later
        self._prior = torch.tensor(medians, dtype=torch.float64).log()
        self._spread = torch.full_like(self._prior, SPREAD)
        self._spread[len(self._prior) - later :] = RATIO_SPREAD
        self._offsets = torch.tensor([FIRST_OFFSET] + [LATER_OFFSET] * later, dtype=torch.float64)
        self._sizes = [num_columns, num_levels, num_levels, later]
        self._theta = self._prior.numpy()

    def fit(self, points: Array, scores: Array, *, optimize: bool = True) -> None:
        """Take (n, columns) and (n, levels) as all that was observed, NaN where nothing was.

        Without `optimize` the hyperparameters stay.
        """
        first = scores[~np.isnan(scores[:, 0]), 0]
        self._mean, self._scale = float(first.mean()), max(float(first.std()), 1e-3)
        rows, levels = np.nonzero(~np.isnan(scores))
        self._seen = self._observed(points[rows], levels, scores[rows, levels])
        if optimize:
            reach = NUM_SPREADS * self._spread
            self._theta = minimize(
                self._loss,
                self._theta,
                jac=True,
                method="L-BFGS-B",
                bounds=torch.stack([self._prior - reach, self._prior + reach], dim=1).numpy(),
                options={"maxiter": NUM_STEPS},
            ).x
        self._condition()

    def believe(self, points: Array) -> None:
        """Take what is predicted at (m, columns) for observed there: less is unknown then, and nothing else changes."""
        level = np.full(len(points), self._sizes[1] - 1)
        believed, seen = self._observed(points, level, self.predict(points).mean), self._seen
        self._seen = Observations(
            torch.cat([seen.points, believed.points]),
            torch.cat([seen.levels, believed.levels]),
            torch.cat([seen.values, believed.values]),
        )
        self._condition()

    def predict(self, points: Array) -> Normal:
        """The last level's function at (m, columns)."""
        at = torch.from_numpy(points)
        level = torch.full((len(points),), self._sizes[1] - 1)
        cross = _covariance(self._parameters, at, level, self._seen.points, self._seen.levels)
        explained = torch.linalg.solve_triangular(self._factor, cross.T, upper=False).square().sum(0)
        prior = self._parameters.covariance[-1, -1] + self._parameters.offset[-1, -1]
        mean = self._mean + self._scale * (cross @ self._weights)
        return Normal(mean.numpy(), self._scale**2 * (prior - explained).clamp(min=JITTER).numpy())

    @property
    def noise(self) -> float:
        """The variance of an observation at the last level around the function."""
        return self._scale**2 * float(self._parameters.noise[-1])

    def _observed(self, points: Array, levels: npt.NDArray[np.intp], scores: Array) -> Observations:
        values = (scores - self._mean) / self._scale
        return Observations(torch.from_numpy(points), torch.from_numpy(levels), torch.from_numpy(values))

    def _condition(self) -> None:
        self._parameters = self._unpacked(torch.from_numpy(self._theta))
        self._factor = torch.linalg.cholesky(_noisy(self._parameters, self._seen))
        self._weights = torch.cholesky_solve(self._seen.values[:, None], self._factor)[:, 0]

    def _loss(self, theta: Array) -> tuple[float, Array]:
        """The negative log posterior of the hyperparameters, and its gradient."""
        at = torch.tensor(theta, requires_grad=True)
        factor, failed = torch.linalg.cholesky_ex(_noisy(self._unpacked(at), self._seen))
        if failed:
            return 1e10, np.zeros_like(theta)  # turns the line search back
        rest = torch.linalg.solve_triangular(factor, self._seen.values[:, None], upper=False)
        z = (at - self._prior) / self._spread
        loss = rest.square().sum() / 2 + factor.diagonal().log().sum() + z.square().sum() / 2
        (gradient,) = torch.autograd.grad(loss, at)
        return loss.item(), gradient.numpy()

    def _unpacked(self, theta: Tensor) -> Parameters:
        *logarithms, ratios = torch.split(theta, self._sizes)
        lengths, variances, noise = (part.exp() for part in logarithms)
        steps = torch.cat([theta.new_zeros(1), ratios.cumsum(0)])
        share = (steps[:, None] - steps).exp().tril()  # of what each level adds, in each level
        return Parameters(lengths, share * variances @ share.T, share * self._offsets @ share.T, noise)


def _noisy(parameters: Parameters, seen: Observations) -> Tensor:
    """(n, n), of the observations."""
    covariance = _covariance(parameters, seen.points, seen.levels, seen.points, seen.levels)
    return covariance + torch.diag(parameters.noise[seen.levels] + JITTER)


def _covariance(parameters: Parameters, a: Tensor, levels_a: Tensor, b: Tensor, levels_b: Tensor) -> Tensor:
    """(n, m), of the functions."""
    pairs = levels_a[:, None], levels_b
    return (
        parameters.covariance[pairs] * _matern(a / parameters.lengths, b / parameters.lengths)
        + parameters.offset[pairs]
    )


def _matern(a: Tensor, b: Tensor) -> Tensor:
    squares = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=1e-12)
    distances = squares.sqrt()  # whose slope at 0 would be infinite
    return (1 + SQRT5 * distances + 5 / 3 * squares) * (-SQRT5 * distances).exp()
