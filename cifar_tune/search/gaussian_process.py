"""The surrogate model: a multi-fidelity Gaussian process over the unit cube, which predicts the last of several levels.

Each level is a multiple of the level before plus a difference (Kennedy and O'Hagan, Biometrika 87:1, 2000). All levels
share one Matérn 5/2 kernel with a length for each column, so this is an intrinsic model of coregionalization (Bonilla
et al., NIPS 2007). It is conditioned on all levels at once: few trials reach the later levels, and they are selected by
noisy scores, so a regression from level to level would come out much too flat.

The hyperparameters are the mode of their posterior. The prior of the lengths grows with the number of columns, so that
few observations are of use even in many columns (Hvarfner et al., arXiv:2402.02229). scikit-learn's processes have no
levels and no priors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from cifar_tune.search.encoding import Array

Indices = npt.NDArray[np.intp]

torch.set_num_threads(1)  # the matrices are small, and the other cores train: threads would wait for each other there

SQRT5 = math.sqrt(5)
# Medians of the log-normal priors of the hyperparameters; scores are scaled to a variance of 1 at the first level.
FIRST_VARIANCE, LATER_VARIANCE, NOISE, RATIO = 1.0, 0.3, 0.2, 1.0
SPREAD, RATIO_SPREAD = 1.0, 0.3  # standard deviations of the logarithms
NUM_SPREADS = 3.5  # the largest distance from the median, in standard deviations
# Variances of the mean at the first level, and of the difference that each later level adds. The second is smaller than
# scores really rise, so the process expects larger differences between recipes and explores more: better in benchmarks.
FIRST_OFFSET, LATER_OFFSET = 1.0, 0.1
JITTER = 1e-6
NUM_STEPS = 30  # of the optimizer, which starts from the hyperparameters of the last fit


@dataclass(frozen=True)
class Normal:
    """Independent normal distributions, one for each point: mean and variance (n,)."""

    mean: Array
    variance: Array

    @property
    def sd(self) -> Array:
        """Standard deviations (n,)."""
        return np.sqrt(self.variance)


@dataclass(frozen=True)
class Foresight:
    """What is known of the last level at points, and what a score at the level after theirs would add: each (n,).

    `mean` and `sd` are of the last level's function. `resolved` is the standard deviation of the mean after that score,
    as it is seen now: the part of `sd` that the score resolves.
    """

    mean: Array
    sd: Array
    resolved: Array


@dataclass(frozen=True)
class Observations:
    """Points (n, columns), their levels (n,), and the scaled scores observed there (n,)."""

    points: Tensor
    levels: Tensor
    values: Tensor

    def joined(self, other: "Observations") -> "Observations":
        """These and others after them."""
        pairs = [(self.points, other.points), (self.levels, other.levels), (self.values, other.values)]
        return Observations(*map(torch.cat, pairs))


@dataclass(frozen=True)
class Parameters:
    """Hyperparameters: the kernel's lengths (columns,), covariances, and the noise variances (levels,).

    `covariance` is between the levels and `offset` between their means, both (levels, levels).
    """

    lengths: Tensor
    covariance: Tensor
    offset: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Scale:
    """How scores are scaled: to a mean of 0 and a variance of 1 at the first level."""

    mean: float
    sd: float

    def scaled(self, scores: Array) -> Tensor:
        """The scores (n,) as the process sees them."""
        return torch.from_numpy((scores - self.mean) / self.sd)


@dataclass(frozen=True)
class Posterior:
    """A fitted process. It never changes: new observations give another one, so threads may share it.

    `factor` is the Cholesky factor of the covariance of its observations.
    """

    parameters: Parameters
    scale: Scale
    observations: Observations
    factor: Tensor

    @cached_property
    def _weights(self) -> Tensor:
        return torch.cholesky_solve(self.observations.values[:, None], self.factor)[:, 0]

    def predict(self, points: Array) -> Normal:
        """The last level's function at points (m, columns)."""
        last = self._last_level(len(points))
        past, parameters = self.observations, self.parameters
        cross = _covariance(parameters, torch.from_numpy(points), last, past.points, past.levels)
        explained = torch.linalg.solve_triangular(self.factor, cross.T, upper=False).square().sum(0)
        prior = parameters.covariance[-1, -1] + parameters.offset[-1, -1]
        mean = self.scale.mean + self.scale.sd * (cross @ self._weights)
        return Normal(mean.numpy(), self.scale.sd**2 * (prior - explained).clamp(min=JITTER).numpy())

    def foresee(self, points: Array, levels: Indices) -> Foresight:
        """The last level at points (m, columns), and what a score at `levels` (m,) would tell of it."""
        past, parameters, asked = self.observations, self.parameters, torch.from_numpy(levels)
        near = _matern(torch.from_numpy(points) / parameters.lengths, past.points / parameters.lengths)

        def cross(levels: Tensor) -> Tensor:
            pairs = levels[:, None], past.levels
            return parameters.covariance[pairs] * near + parameters.offset[pairs]

        ends = cross(self._last_level(len(points)))
        end, next_one = (
            torch.linalg.solve_triangular(self.factor, each.T, upper=False) for each in (ends, cross(asked))
        )
        prior = parameters.covariance + parameters.offset
        variance = (prior[-1, -1] - end.square().sum(0)).clamp(min=JITTER)
        shared = prior[asked, -1] - (end * next_one).sum(0)
        observed = (prior[asked, asked] - next_one.square().sum(0)).clamp(min=JITTER) + parameters.noise[asked]
        resolved = torch.minimum(shared.square() / observed, variance)
        mean = self.scale.mean + self.scale.sd * (ends @ self._weights)
        return Foresight(mean.numpy(), self.scale.sd * variance.sqrt().numpy(), self.scale.sd * resolved.sqrt().numpy())

    def given(self, points: Array, levels: Indices, scores: Array) -> "Posterior":
        """The process after more observations: points (m, columns), their levels (m,) and scores (m,).

        The hyperparameters stay as they are. Costs the square of the number of observations, and not its cube.
        """
        new = Observations(torch.from_numpy(points), torch.from_numpy(levels), self.scale.scaled(scores))
        past = self.observations
        cross = _covariance(self.parameters, past.points, past.levels, new.points, new.levels)
        below = torch.linalg.solve_triangular(self.factor, cross, upper=False)
        corner = torch.linalg.cholesky(_noisy(self.parameters, new) - below.T @ below)
        size = len(past.values)
        factor = self.factor.new_zeros(size + len(scores), size + len(scores))
        factor[:size, :size], factor[size:, :size], factor[size:, size:] = self.factor, below.T, corner
        return replace(self, observations=past.joined(new), factor=factor)

    def believing(self, points: Array) -> "Posterior":
        """The process as if its predictions at points (m, columns) were observed, as the Kriging believer does.

        The variance near these points falls; no mean changes.
        """
        return self.given(points, self._last_level(len(points)).numpy(), self.predict(points).mean)

    @property
    def noise(self) -> float:
        """The noise variance of an observation at the last level."""
        return self.scale.sd**2 * float(self.parameters.noise[-1])

    def _last_level(self, size: int) -> Tensor:
        return torch.full((size,), len(self.parameters.noise) - 1)


class GaussianProcess:
    """The hyperparameters of a process over `num_columns` and their priors; `fit` conditions it on observations.

    `lengths` (columns,) are factors by which the columns' lengths are expected to differ from the usual one. Unlike in
    Kennedy and O'Hagan, all levels share the lengths, because few trials reach the last level.
    """

    def __init__(self, num_columns: int, num_levels: int = 1, *, lengths: Sequence[float] | None = None) -> None:
        later = num_levels - 1
        length = math.sqrt(max(1, num_columns)) / 2
        usual = [length] * num_columns if lengths is None else [length * factor for factor in lengths]
        variances = [FIRST_VARIANCE] + [LATER_VARIANCE] * later
        medians = usual + variances + [NOISE] * num_levels + [RATIO] * later
        self._prior = torch.tensor(medians, dtype=torch.float64).log()
        self._spread = torch.full_like(self._prior, SPREAD)
        self._spread[len(self._prior) - later :] = RATIO_SPREAD
        self._offsets = torch.tensor([FIRST_OFFSET] + [LATER_OFFSET] * later, dtype=torch.float64)
        self._sizes = [num_columns, num_levels, num_levels, later]
        self._theta = self._prior.numpy()

    def fit(self, points: Array, scores: Array, *, optimize: bool = True) -> Posterior:
        """The process given points (n, columns) and their scores (n, levels), NaN where there is none.

        Without `optimize` the hyperparameters stay those of the last fit.
        """
        first = scores[~np.isnan(scores[:, 0]), 0]
        scale = Scale(float(first.mean()), max(float(first.std()), 1e-3))
        rows, levels = np.nonzero(~np.isnan(scores))
        observations = Observations(
            torch.from_numpy(points[rows]), torch.from_numpy(levels), scale.scaled(scores[rows, levels])
        )
        if optimize:
            reach = NUM_SPREADS * self._spread
            self._theta = minimize(
                self._loss,
                self._theta,
                args=(observations,),
                jac=True,
                method="L-BFGS-B",
                bounds=torch.stack([self._prior - reach, self._prior + reach], dim=1).numpy(),
                options={"maxiter": NUM_STEPS},
            ).x
        parameters = self._unpacked(torch.from_numpy(self._theta))
        return Posterior(parameters, scale, observations, torch.linalg.cholesky(_noisy(parameters, observations)))

    def _loss(self, theta: Array, observations: Observations) -> tuple[float, Array]:
        """The negative log posterior of the hyperparameters, and its gradient."""
        at = torch.tensor(theta, requires_grad=True)
        factor, failed = torch.linalg.cholesky_ex(_noisy(self._unpacked(at), observations))
        if failed:
            return 1e10, np.zeros_like(theta)  # the line search turns back
        rest = torch.linalg.solve_triangular(factor, observations.values[:, None], upper=False)
        z = (at - self._prior) / self._spread
        loss = rest.square().sum() / 2 + factor.diagonal().log().sum() + z.square().sum() / 2
        (gradient,) = torch.autograd.grad(loss, at)
        return loss.item(), gradient.numpy()

    def _unpacked(self, theta: Tensor) -> Parameters:
        *logarithms, ratios = torch.split(theta, self._sizes)
        lengths, variances, noise = (part.exp() for part in logarithms)
        steps = torch.cat([theta.new_zeros(1), ratios.cumsum(0)])
        share = (steps[:, None] - steps).exp().tril()  # (levels, levels): of each level's difference, in each level
        return Parameters(lengths, share * variances @ share.T, share * self._offsets @ share.T, noise)


def _noisy(parameters: Parameters, observations: Observations) -> Tensor:
    """The covariance matrix (n, n) of the observations."""
    points, levels = observations.points, observations.levels
    covariance = _covariance(parameters, points, levels, points, levels)
    return covariance + torch.diag(parameters.noise[levels] + JITTER)


def _covariance(parameters: Parameters, a: Tensor, levels_a: Tensor, b: Tensor, levels_b: Tensor) -> Tensor:
    """The covariance matrix (n, m) of the functions' values at points `a` and `b`."""
    pairs = levels_a[:, None], levels_b
    return (
        parameters.covariance[pairs] * _matern(a / parameters.lengths, b / parameters.lengths)
        + parameters.offset[pairs]
    )


def _matern(a: Tensor, b: Tensor) -> Tensor:
    squares = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=1e-12)
    distances = squares.sqrt()  # clamped above, because its slope at 0 is infinite
    return (1 + SQRT5 * distances + 5 / 3 * squares) * (-SQRT5 * distances).exp()
