"""Measures what pretraining on one data set gains on another: kept weights against none, on a few CIFAR-10 images.

    uv run cifar-tune run search_spaces/mini_resnet.py --name pretraining --num-trials 1 --set dataset=cifar100
    uv run python analysis/transfer.py cifar_tune_store/searches/pretraining/trials/00000/weights.safetensors

For each fine-tuning policy and seed the same recipe is trained with the weights and without, and both are scored on all
5,000 validation images. Prints mean and standard deviation over the seeds, and the paired differences with a 95 % t
interval.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.images import Images
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.store import open_store
from cifar_tune.training.features import FeatureCache
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import Training
from cifar_tune.training.weights import Weights, read_weights

POLICIES: dict[str, dict[str, str | float]] = {
    "frozen": {"name": "frozen"},
    "two-phase": {"name": "two-phase", "lr": 1e-3},
}


def main() -> None:
    """Train, and print the scores and their differences."""
    options = parse_options()
    weights = read_weights(options.weights)
    origin = Recipe.model_validate(weights.recipe)
    data = load_training_data("cifar10", train_images=None, data_dir=options.data_dir, store=options.store)
    few = Images(data.train.images[: options.train_images], data.train.labels[: options.train_images])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    placed = DeviceData.place(replace(data, train=few), device)
    print(f"{origin.model.name} of {origin.dataset}; cifar10: {len(few)} training, {len(data.val)} validation images")
    cache = FeatureCache(open_store(options.store).features)
    scores = {}
    for policy in POLICIES:
        for start in ("none", str(options.weights)):
            recipes = [make_recipe(origin, policy, start, seed, options.epochs) for seed in range(options.seeds)]
            accuracies = [train(recipe, placed, weights, cache) for recipe in recipes]
            scores[policy, start] = accuracies
            name = "without weights" if start == "none" else "with weights"
            seeds = " ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
            print(f"{policy:10} {name:16} {summarize(accuracies)}  seeds: {seeds}")
    with_weights = str(options.weights)
    for policy in POLICIES:
        gain = describe_difference(scores[policy, with_weights], scores[policy, "none"])
        print(f"{policy}: the weights gain {gain}")
    gain = describe_difference(scores["two-phase", with_weights], scores["frozen", with_weights])
    print(f"with weights, two-phase is better than frozen by {gain}")


def parse_options() -> argparse.Namespace:
    """The command line: what to train on, and how long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="weights.safetensors that a search kept")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--store", type=Path, default=Path("cifar_tune_store"), help="whose cache is used")
    parser.add_argument("--train-images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def make_recipe(origin: Recipe, policy: str, start: str, seed: int, epochs: int) -> Recipe:
    """A recipe with the same values for every start; pixels are scaled as in the training of the weights."""
    finetune = {**POLICIES[policy], **({"head_epochs": epochs // 2} if policy == "two-phase" else {})}
    return Recipe(
        dataset="cifar10",
        model=origin.model.model_copy(update={"weights": start}),
        optimizer={"name": "adam", "lr": 0.003},
        schedule={"name": "cosine"},
        finetune=finetune,
        augment={"flip": True, "crop_padding": 4, "padding_mode": "zero"},
        scaling=origin.scaling,
        epochs=epochs,
        batch_size=50,
        seed=seed,
    )


def train(recipe: Recipe, data: DeviceData, weights: Weights, cache: FeatureCache) -> float:
    """Train the recipe; the last epoch's validation accuracy."""
    training = Training(recipe, data, None if recipe.model.weights == "none" else weights, cache)
    return list(training.fit())[-1].val_accuracy


def summarize(scores: Sequence[float]) -> str:
    """Mean and sample standard deviation, in per cent."""
    return f"{100 * np.mean(scores):.2f} ± {100 * np.std(scores, ddof=1):.2f} % (n={len(scores)})"


def describe_difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The mean difference of scores that are paired by seed, with its interval, in percentage points."""
    points = 100 * (np.array(ours) - np.array(theirs))
    half = stats.t.ppf(0.975, len(points) - 1) * points.std(ddof=1) / len(points) ** 0.5
    return f"{points.mean():.2f} points, 95 % interval {points.mean() - half:.2f} to {points.mean() + half:.2f}"


if __name__ == "__main__":
    main()
