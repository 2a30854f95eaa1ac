"""What an epoch is worth: expected improvement, and the reservation value of a training that can be given up.

A trial is a box with a hidden prize, its final score, that costs epochs to open (Weitzman, Econometrica 47:3, 1979; as
an acquisition function Xie et al., arXiv:2406.20062). Its reservation value is the score at which going on with it
would just pay at a price for an epoch. It needs no best score so far, and boxes are compared by it, whatever each one
costs. Here a box has two lids: after the next score the trial may be given up.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from cifar_tune.search.encoding import Array

if TYPE_CHECKING:
    from cifar_tune.search.gaussian_process import Foresight, Normal

# Points and weights of the next score's distribution: a Gauss-Hermite rule.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
NUM_BISECTIONS = 20
REACH = 6.0  # standard deviations from the mean at which the bisection begins


@dataclass(frozen=True)
class Costs:
    """Epochs until the next score, and from there to the end: each (n,)."""

    next_score: Array
    rest: Array


def expected_improvement(scores: "Normal", best: float) -> Array:
    """The expectation of max(score - best, 0) for each of the normal distributions: (n,)."""
    return _improvement(scores.mean, scores.sd, best)


def reservation_values(foresight: "Foresight", costs: Costs, price: float) -> Array:
    """The score at which each of n trials would just be worth its epochs, at a price in score for one epoch: (n,).

    Either the trial is trained to its end, or to its next score, and then on only if that still pays.
    """
    mean, sd, resolved = foresight.mean, foresight.sd, foresight.resolved
    later_means = mean[:, None] + resolved[:, None] * NODES
    later_sd = np.sqrt(np.maximum(sd**2 - resolved**2, 1e-12))[:, None]
    whole, rest = price * (costs.next_score + costs.rest), price * costs.rest[:, None]
    low, high = mean - REACH * sd - whole, mean + REACH * sd
    for _ in range(NUM_BISECTIONS):
        middle = (low + high) / 2
        to_end = _improvement(mean, sd, middle) - whole
        gains = np.maximum(_improvement(later_means, later_sd, middle[:, None]) - rest, 0)
        pays = np.maximum(to_end, gains @ WEIGHTS - price * costs.next_score) > 0
        low, high = np.where(pays, middle, low), np.where(pays, high, middle)
    return np.asarray((low + high) / 2)


def _improvement(mean: Array, sd: Array, best: Array | float) -> Array:
    z = (mean - best) / sd
    return np.asarray(sd * (z * ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)))
