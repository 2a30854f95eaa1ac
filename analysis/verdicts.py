"""Estimates how often `confirm` is wrong and which gains it detects, by simulated searches with known true gains.

    uv run python analysis/verdicts.py

The recipes of a search have the same true accuracy, but each suits some images better than others. Every recipe is
scored once, the best are the finalists, and these and the baseline are run again with fresh seeds. A run classifies an
image correctly with a probability whose logit is the sum of the image's difficulty, the recipe's luck with the image
and the run's luck.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from cifar_tune.evaluation.significance import Gain, judge_gains, paired_difference

Array = npt.NDArray[np.float32]

DIFFICULTY = (2.6, 2.0)  # mean and standard deviation of the logits: mean accuracies of 82 to 84 %
POWER = 0.8


@dataclass(frozen=True)
class Setting:
    """A search and its confirmation; `luck` and `run_luck` are standard deviations of logits, `gain` shifts them."""

    num_recipes: int = 100
    num_finalists: int = 3
    num_seeds: int = 5
    num_images: int = 500
    luck: float = 1.0
    run_luck: float = 0.05
    gain: float = 0.0


def confirm(setting: Setting, rng: np.random.Generator) -> tuple[list[Gain], float]:
    """Simulate one search with its confirmation; the judged gains of the finalists, and the true gain as a share."""
    difficulty = rng.normal(*DIFFICULTY, setting.num_images).astype(np.float32)
    luck = rng.standard_normal((1 + setting.num_recipes, setting.num_images), dtype=np.float32)
    logits = difficulty + setting.luck * luck
    logits[1:] += setting.gain
    scores = _train(logits, setting, rng).mean(axis=1)
    finalists = 1 + np.argsort(-scores[1:])[: setting.num_finalists]
    runs = [_train(logits[[0, *finalists]], setting, rng) for _ in range(setting.num_seeds)]
    baseline, *others = np.stack(runs, axis=1)
    truth = float(expit(logits[1:]).mean() - expit(logits[1:] - setting.gain).mean())
    return judge_gains([paired_difference(hits, baseline) for hits in others]), truth


def _train(logits: Array, setting: Setting, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Whether a run of each recipe is right (recipes, images)."""
    run_luck = setting.run_luck * rng.standard_normal((len(logits), 1), dtype=np.float32)
    hits: npt.NDArray[np.bool_] = rng.random(logits.shape, dtype=np.float32) < expit(logits + run_luck)
    return hits


def share_of_real(setting: Setting, num_repetitions: int, seed: int = 0) -> tuple[float, float]:
    """The share of repetitions in which any finalist's gain is judged real, and the true gain in points."""
    rng = np.random.default_rng(seed)
    confirmations = [confirm(setting, rng) for _ in range(num_repetitions)]
    any_real = np.mean([any(gain.verdict == "real" for gain in gains) for gains, _ in confirmations])
    return float(any_real), 100 * float(np.mean([truth for _, truth in confirmations]))


def smallest_gain(setting: Setting, num_repetitions: int) -> float:
    """The true gain in points that is judged real in 80 % of the repetitions, by bisection over the logit."""
    low, high = 0.0, 2.0
    for _ in range(8):
        middle = (low + high) / 2
        share, truth = share_of_real(replace(setting, gain=middle), num_repetitions)
        low, high = (low, middle) if share >= POWER else (middle, high)
    return truth


def main() -> None:
    """Print the shares of false verdicts and the smallest gains that are detected."""
    settings = (
        Setting(),
        Setting(num_finalists=1),
        Setting(luck=0.5),
        Setting(luck=0.0),
        Setting(run_luck=0.3),
        Setting(run_luck=0.3, num_seeds=2),
    )
    for setting in settings:
        share, _ = share_of_real(setting, 10_000)
        print(f"{setting}: any false 'real' in {100 * share:.1f} % of 10,000 repetitions", flush=True)
    for num_images in (500, 5_000):
        for num_seeds in (3, 5):
            # One recipe, which is the finalist: the question is which true gain is detected, not what a search finds.
            setting = Setting(num_recipes=1, num_finalists=1, num_images=num_images, num_seeds=num_seeds, luck=0.5)
            gain = smallest_gain(setting, 400)
            print(
                f"{num_images} images, {num_seeds} seeds: 80 % of gains of {gain:.2f} points are judged real",
                flush=True,
            )


if __name__ == "__main__":
    main()
