"""Whether a gain is real: the paired difference of two recipes with its interval, from runs with the same seeds.

Every run is scored on the same validation images, so the difference between two recipes is a table with a row for each
seed and a column for each image: 1 where only the first is right, -1 where only the second is, 0 elsewhere. Its mean is
the gain. Of a score that is no accuracy it holds the differences of the images' values (training/scores.py), whose mean
is the gain too. Both seeds and images are samples: other seeds would give other rows, and other images other columns.
They are crossed random effects, and the variance of the mean is

    var(row means) / seeds + var(column means) / images - var(rest) / (seeds * images),

where the last part is contained in both of the first ones (Searle, Casella and McCulloch, Variance Components, 1992).
Without the columns, a recipe that happens to suit these images, which may be why the search picked it, would count as
better. Seeds are few and images many, so in the interval each part has the t quantile of its own degrees of freedom;
with a common number of degrees of freedom (Satterthwaite's), intervals from two seeds would miss in up to 13 % of the
cases. Holm's step-down procedure (Scandinavian Journal of Statistics 6:65, 1979) keeps the chance of any false verdict
among the finalists at 5 %.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtrit  # quantiles of the normal and of the t distribution

from cifar_tune.training.scores import Values

Verdict = Literal["real", "tied", "worse"]

ALPHA = 0.05  # the highest chance of any false verdict among the finalists
MIN_OF_A_CLASS = 10  # images, where classes count alike: in simulations fewer gave false verdicts in 8 to 45 % of cases
LEAST_P = 1e-9  # smaller p-values are set to this


@dataclass(frozen=True)
class Difference:
    """The difference between two recipes' scores: its estimate, and the parts of the estimate's variance.

    `seeds` and `images` are the first two parts in the formula above; both contain `rest`, the third.
    """

    mean: float
    num_seeds: int
    num_images: int
    seeds: float
    images: float
    rest: float = 0.0

    @property
    def p_value(self) -> float:
        """The two-sided p-value of no difference: the level at which the interval just contains zero."""
        if self.mean == 0:
            return 1.0
        if self.margin(LEAST_P) < abs(self.mean):
            return LEAST_P
        from scipy.optimize import brentq  # a third of a second that most reports need not wait for

        return float(brentq(lambda p: self.margin(p) - abs(self.mean), LEAST_P, 1.0, xtol=LEAST_P))

    def margin(self, alpha: float) -> float:
        """Half the width of the interval at level 1 - alpha."""
        by_seeds, by_images = (float(stdtrit(n - 1, alpha / 2)) ** 2 for n in (self.num_seeds, self.num_images))
        seeds, images = by_seeds * self.seeds, by_images * self.images
        return math.sqrt(max(seeds + images - by_images * self.rest, seeds, images))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The interval that covers the true difference with probability 1 - alpha."""
        margin = self.margin(alpha)
        return self.mean - margin, self.mean + margin


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval, as shares of the images."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Gain(Estimate):
    """The gain of a finalist over the baseline; its interval decides the verdict."""

    @property
    def verdict(self) -> Verdict:
        """`real` or `worse` if the interval excludes zero, otherwise `tied`."""
        if self.low > 0:
            return "real"
        return "worse" if self.high < 0 else "tied"


def paired_difference(ours: Values, theirs: Values) -> Difference:
    """The difference of two recipes from their tables (seeds, images) of values, at least two seeds and two images.

    A value is whether a run classifies an image correctly, or that of another score.
    """
    table = ours.astype(np.float64) - theirs.astype(np.float64)
    num_seeds, num_images = table.shape
    if num_seeds < 2:
        raise ValueError("One seed does not show how much seeds differ; give two or more.")
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    mean = float(table.mean())
    rest = table - rows - columns + mean
    freedoms = np.array([num_seeds - 1, num_images - 1, (num_seeds - 1) * (num_images - 1)])
    squares = np.array(
        [num_images * ((rows - mean) ** 2).sum(), num_seeds * ((columns - mean) ** 2).sum(), (rest**2).sum()]
    )
    parts = squares / freedoms / (num_seeds * num_images)
    return Difference(mean, num_seeds, num_images, *parts.tolist())


def estimate_score(values: Values) -> Estimate:
    """The score of a recipe with its 95 % interval, from a table as above."""
    score = paired_difference(values, np.zeros_like(values))
    low, high = score.interval(ALPHA)
    return Estimate(score.mean, max(low, 0.0), min(high, 1.0))


def sampling_margin(first: float, second: float) -> float:
    """Half the width of the 95 % interval of the difference of two runs' scores, from their standard errors.

    These are of the sampling of images alone. It is computed as if each run had images of its own: on the same images
    runs tend to be right together, and the interval is narrower.
    """
    return -float(ndtri(ALPHA / 2)) * math.hypot(first, second)


def estimate_mean(values: Sequence[float]) -> Estimate:
    """The mean of two or more independent values, with its 95 % interval by the t distribution."""
    mean, number = statistics.mean(values), len(values)
    margin = -float(stdtrit(number - 1, ALPHA / 2)) * statistics.stdev(values) / math.sqrt(number)
    return Estimate(mean, mean - margin, mean + margin)


def judge_gains(differences: Sequence[Difference]) -> list[Gain]:
    """The finalists' gains, each with its interval at the level at which Holm's step-down procedure tests it.

    In the order of the p-values, the level stays the same from the first tied gain on, so that intervals agree with
    verdicts.
    """
    order = sorted(range(len(differences)), key=lambda i: differences[i].p_value)
    levels, is_open = {}, True
    level = ALPHA
    for place, i in enumerate(order):
        if is_open:
            level = ALPHA / (len(differences) - place)
            is_open = differences[i].p_value <= level
        levels[i] = level
    return [Gain(each.mean, *each.interval(levels[i])) for i, each in enumerate(differences)]
