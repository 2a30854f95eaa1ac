"""Measures what the cache of a frozen backbone's features saves: trials of a head with it and without it.

    uv run python analysis/features.py [--model resnet50] [--images 10000] [--epochs 10]

Weights are random and images are those of the built-in data set, which cost as much as others. In one process on all
cores it times one forward pass of all images, a trial that fills the cache, a trial that reads the filled cache, and
one epoch without a cache, which is multiplied by the number of epochs.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.images import Images, TrainingData
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.training.features import FeatureCache
from cifar_tune.training.inputs import DeviceData, DeviceImages, autocast
from cifar_tune.training.loop import Training


def main() -> None:
    """Measure, and print each time and the ratios between them."""
    options = parse_options()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        data = DeviceData.place(make_data(options.images, Path(folder)), device)
        recipe = make_recipe(options.model, options.epochs)
        print(f"{options.model}, {len(data.train):,} + {len(data.val):,} images, {options.epochs} epochs, on {device}")
        forward = seconds_of_forward(Training(recipe, data), data.train, data.val)
        print(f"one forward pass of all images     {forward:8.2f} s")
        filling = seconds_of_trial(recipe, data, FeatureCache(Path(folder) / "features"))
        reading = seconds_of_trial(recipe, data, FeatureCache(Path(folder) / "features"))
        print(f"trial that fills the cache         {filling:8.2f} s")
        print(f"trial that reads the filled cache  {reading:8.2f} s")
        print(f"filling costs {(filling - reading) / forward:.2f} forward passes")
        epoch = seconds_of_trial(make_recipe(options.model, 1), data, None)
        print(f"one epoch without a cache          {epoch:8.2f} s")
        print(f"without a cache the trial takes {options.epochs * epoch / reading:,.0f} times as long")


def parse_options() -> argparse.Namespace:
    """The command line: how much to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    return parser.parse_args()


def make_data(num_images: int, folder: Path) -> TrainingData:
    """The built-in training images, repeated up to `num_images`, and a ninth as many for validation."""
    data = load_training_data("shapes", train_images=None, data_dir=None, store=folder)
    train, val = (np.arange(n) % len(data.train) for n in (num_images, num_images // 9))
    return replace(
        data,
        train=Images(data.train.images[train], data.train.labels[train]),
        val=Images(data.train.images[val], data.train.labels[val]),
    )


def make_recipe(model: str, epochs: int) -> Recipe:
    """A recipe like that of search_spaces/resnet50_linear.py, with random weights."""
    return Recipe(
        dataset="shapes",
        model={"name": model, "weights": "none"},
        optimizer={"name": "adam", "lr": 0.001},
        schedule={"name": "constant"},
        finetune={"name": "frozen"},
        augment={"flip": False, "crop_padding": 0},
        epochs=epochs,
        batch_size=128,
    )


@torch.no_grad()
def seconds_of_forward(training: Training, *parts: DeviceImages) -> float:
    """The wall-clock time of the backbone over all images, in evaluation mode."""
    backbone = training.backbone.eval()
    wait_for(training.data.device)
    start = time.perf_counter()
    for images in parts:
        every = torch.arange(len(images), device=images.images.device)
        for indices in torch.split(every, training.recipe.evaluation_batch):
            with autocast(training.recipe, images.images.device):
                backbone(training.pixels.plain(images, indices))
    wait_for(training.data.device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of_trial(recipe: Recipe, data: DeviceData, cache: FeatureCache | None) -> float:
    """The wall-clock time from the recipe to the last epoch's metrics."""
    start = time.perf_counter()
    list(Training(recipe, data, cache=cache).fit())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
