"""Whether a gain is real: the paired difference of two recipes, with its interval, from runs with the same seeds.

Every run is scored on the same validation images, so the difference between two recipes is a table with a row for each
seed and a column for each image: 1 where only the first is right, -1 where only the second is, 0 elsewhere. Its mean is
the gain. Both its margins are samples: other seeds would have given other rows, other images other columns. Seeds and
images are crossed random effects, and the mean's variance is

    var(row means) / seeds + var(column means) / images - var(rest) / (seeds * images),

of which the last part is in both of the first ones (Searle, Casella and McCulloch, Variance Components, 1992). Without
the columns a recipe that suits these images, which is why a search picked it, would pass for one that is better. Seeds
are few and images many, so in the interval each part has the t quantile of its own degrees of freedom; with a common
number of them, Satterthwaite's, intervals from two seeds would be wrong in up to 13 % of the cases. Holm's step-down
procedure (Scandinavian Journal of Statistics 6:65, 1979) keeps the chance of any false verdict among the finalists at
5 %.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit  # quantiles of the normal and of the t distribution

Hits = npt.NDArray[np.bool_]  # (seeds, images): whether a recipe's run was right
Verdict = Literal["real", "tied", "worse"]

ALPHA = 0.05  # the chance of any false verdict among the finalists, at most
LEAST_P = 1e-9  # smaller ones are all the same


@dataclass(frozen=True)
class Difference:
    """Between two recipes' accuracies: its estimate, and the parts of the variance of that.

    `seeds` and `images` are those of the margins, each with what belongs to the cells, `rest`.
    """

    mean: float
    num_seeds: int
    num_images: int
    seeds: float
    images: float
    rest: float = 0.0

    @property
    def p_value(self) -> float:
        """Of no difference, two-sided: the chance at which the interval just holds zero."""
        if self.mean == 0:
            return 1.0
        if self.margin(LEAST_P) < abs(self.mean):
            return LEAST_P
        from scipy.optimize import brentq  # a third of a second that most reports need not wait for

        return float(brentq(lambda p: self.margin(p) - abs(self.mean), LEAST_P, 1.0, xtol=LEAST_P))

    def margin(self, alpha: float) -> float:
        """Half the width of the interval."""
        by_seeds, by_images = (float(stdtrit(n - 1, alpha / 2)) ** 2 for n in (self.num_seeds, self.num_images))
        seeds, images = by_seeds * self.seeds, by_images * self.images
        return math.sqrt(max(seeds + images - by_images * self.rest, seeds, images))

    def interval(self, alpha: float) -> tuple[float, float]:
        """That covers the truth but for a chance of `alpha`."""
        margin = self.margin(alpha)
        return self.mean - margin, self.mean + margin


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval, as fractions of the images."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Gain(Estimate):
    """Of a finalist over the baseline; the interval decides."""

    @property
    def verdict(self) -> Verdict:
        """Tied where the interval holds zero."""
        if self.low > 0:
            return "real"
        return "worse" if self.high < 0 else "tied"


def paired_difference(ours: Hits, theirs: Hits) -> Difference:
    """Of two recipes, from at least two seeds and two images, which are the same for both."""
    table = ours.astype(np.float64) - theirs.astype(np.float64)
    num_seeds, num_images = table.shape
    if num_seeds < 2:
        raise ValueError("One seed says nothing of the scatter between seeds; give two or more.")
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    mean = float(table.mean())
    rest = table - rows - columns + mean
    freedoms = np.array([num_seeds - 1, num_images - 1, (num_seeds - 1) * (num_images - 1)])
    squares = np.array(
        [num_images * ((rows - mean) ** 2).sum(), num_seeds * ((columns - mean) ** 2).sum(), (rest**2).sum()]
    )
    parts = squares / freedoms / (num_seeds * num_images)
    return Difference(mean, num_seeds, num_images, *parts.tolist())


def estimate_accuracy(hits: Hits) -> Estimate:
    """Of a recipe, with its 95 % interval."""
    found = paired_difference(hits, np.zeros_like(hits))
    low, high = found.interval(ALPHA)
    return Estimate(found.mean, max(low, 0.0), min(high, 1.0))


def sampling_margin(first: float, second: float, num_images: int) -> float:
    """Half the 95 % interval of the difference of two runs' accuracies, as far as the choice of the images goes.

    As if each had images of its own: runs on the same ones tend to be right together, so theirs is narrower.
    """
    variance = (first * (1 - first) + second * (1 - second)) / num_images
    return -float(ndtri(ALPHA / 2)) * math.sqrt(variance)


def estimate_mean(values: Sequence[float]) -> Estimate:
    """Of two or more independent ones, with its 95 % interval by the t distribution."""
    mean, number = statistics.mean(values), len(values)
    margin = -float(stdtrit(number - 1, ALPHA / 2)) * statistics.stdev(values) / math.sqrt(number)
    return Estimate(mean, mean - margin, mean + margin)


def judge_gains(differences: Sequence[Difference]) -> list[Gain]:
    """The finalists' gains, each with its interval at the level at which Holm's step-down tests it.

    From the first that is tied, in the order of the p-values, the level stays, so that interval and verdict agree.
    """
    order = sorted(range(len(differences)), key=lambda i: differences[i].p_value)
    levels, is_open = {}, True
    level = ALPHA
    for place, i in enumerate(order):
        if is_open:
            level = ALPHA / (len(differences) - place)
            is_open = differences[i].p_value <= level
        levels[i] = level
    return [Gain(found.mean, *found.interval(levels[i])) for i, found in enumerate(differences)]
