"""Verdicts: the statistics against scipy's special cases, and how often they are wrong."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from verdicts import Setting, share_of_real

from cifar_tune.evaluation.significance import ALPHA, Difference, judge_gains, paired_difference


def random_hits(seeds: int, images: int, share: float = 0.7, seed: int = 0) -> npt.NDArray[np.bool_]:
    return np.random.default_rng(seed).random((seeds, images)) < share


def as_hits(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    return np.asarray(values, dtype=bool)


def test_with_equal_images_it_is_the_t_test_over_seeds() -> None:
    seeds = as_hits([1, 0, 1, 1, 0, 1])
    difference = paired_difference(np.repeat(seeds[:, None], 40, axis=1), np.zeros((6, 40), dtype=bool))
    expected = stats.ttest_1samp(seeds.astype(float), 0.0)
    assert difference.p_value == pytest.approx(expected.pvalue)
    assert difference.interval(0.05) == pytest.approx(expected.confidence_interval(0.95))


def test_with_equal_seeds_it_is_the_t_test_over_images() -> None:
    ours, theirs = random_hits(1, 300, 0.8), random_hits(1, 300, 0.7, seed=1)
    difference = paired_difference(np.repeat(ours, 5, axis=0), np.repeat(theirs, 5, axis=0))
    expected = stats.ttest_rel(ours[0].astype(float), theirs[0].astype(float))
    assert difference.p_value == pytest.approx(expected.pvalue)


def test_the_variance_is_that_of_the_mean_over_fresh_seeds_and_images() -> None:
    """The mean of the estimated variances against the variance of the means, over 4,000 tables with both effects."""
    rng = np.random.default_rng(0)
    means, variances = [], []
    for _ in range(4_000):
        logits = rng.normal(0, 1.0, (1, 60)) + rng.normal(0, 0.5, (4, 1))
        hits = rng.random((4, 60)) < 1 / (1 + np.exp(-logits))
        difference = paired_difference(hits, np.zeros_like(hits))
        means.append(difference.mean)
        variances.append(difference.seeds + difference.images - difference.rest)
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.1)


def test_equal_recipes_are_tied() -> None:
    hits = random_hits(3, 50)
    difference = paired_difference(hits, hits)
    assert (difference.mean, difference.p_value, difference.interval(0.05)) == (0.0, 1.0, (0.0, 0.0))
    (gain,) = judge_gains([difference])
    assert gain.verdict == "tied"


def test_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more"):
        paired_difference(random_hits(1, 50), random_hits(1, 50))


def with_p_value(p: float) -> Difference:
    return Difference(float(stats.t.isf(p / 2, 10)), 11, 11, seeds=1.0, images=0.0)


@pytest.mark.parametrize(
    ("p_values", "verdicts"),
    [
        ([0.04], ["real"]),
        ([0.06], ["tied"]),
        ([0.04, 0.01], ["real", "real"]),  # the second at 0.05, once the first is real at 0.025
        ([0.03, 0.04], ["tied", "tied"]),  # neither, because the first is not
        ([0.016, 0.024, 0.049], ["real", "real", "real"]),
        ([0.016, 0.026, 0.049], ["real", "tied", "tied"]),
    ],
)
def test_holms_procedure(p_values: list[float], verdicts: list[str]) -> None:
    assert [gain.verdict for gain in judge_gains([with_p_value(p) for p in p_values])] == verdicts


def test_a_recipe_that_is_worse_has_that_verdict() -> None:
    difference = with_p_value(0.001)
    (gain,) = judge_gains([replace(difference, mean=-difference.mean)])
    assert gain.verdict == "worse"


def test_without_finalists_there_are_no_gains() -> None:
    assert judge_gains([]) == []


@pytest.mark.slow
@pytest.mark.parametrize("num_finalists", [1, 3])
def test_among_equals_a_gain_is_judged_real_in_at_most_one_of_twenty_searches(num_finalists: int) -> None:
    """A hundred recipes of equal accuracy; the finalists are chosen by scores on the images that judge them."""
    share, _ = share_of_real(Setting(num_finalists=num_finalists), 10_000)
    assert share <= ALPHA


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
@pytest.mark.parametrize("scatter", [0.1, 0.3, 1.0, 3.0])
def test_intervals_contain_the_truth_at_any_ratio_of_seeds_to_images(num_seeds: int, scatter: float) -> None:
    """Normal effects with the ratio `scatter`; Satterthwaite's interval would miss up to 13 %."""
    rng = np.random.default_rng(0)
    missed = []
    for _ in range(10_000):
        seeds, images = rng.normal(0, scatter, num_seeds), rng.normal(0, 1.0, 40)
        parts = (seeds.var(ddof=1) / num_seeds, images.var(ddof=1) / 40)
        difference = Difference(seeds.mean() + images.mean(), num_seeds, 40, *parts)
        low, high = difference.interval(ALPHA)
        missed.append(not low < 0 < high)
    assert np.mean(missed) <= ALPHA + 0.007  # three standard errors


def test_a_large_enough_gain_is_detected_in_four_of_five_searches() -> None:
    setting = Setting(num_recipes=1, num_finalists=1, luck=0.5, gain=0.45)
    share, points = share_of_real(setting, 1_000)
    assert share >= 0.8
    assert points < 5
