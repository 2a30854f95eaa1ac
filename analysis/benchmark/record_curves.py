"""Records learning curves of random recipes on CIFAR: the tables on which search methods are compared.

    uv run python analysis/benchmark/record_curves.py --data-dir DIR

For each space in spaces/ it trains configurations 0, 1, 2, ... to their last epoch, without pruning, and appends them
to curves/SPACE/part-NN.parquet. Run it again to continue after an interruption. Configuration 0 is the baseline, and
each other one is determined by its number; every fifth is trained with a second seed. Some spaces fine-tune a
network that is trained on CIFAR-100 first.

A row is one training: `config`, `seed`, a column for each sampled value (null where the recipe has none), and two lists
over the epochs: `val_accuracy` (a share of 2,000 images; shorter where the training diverged), and `seconds` of
processor time on one core, which other load on the machine does not change.
"""

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd
import torch

from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.images import DatasetName, Images
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.space import Space, load_space
from cifar_tune.store import WEIGHTS, open_store
from cifar_tune.training.checkpoint import save_weights
from cifar_tune.training.features import FeatureCache
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import DivergenceError, Training
from cifar_tune.training.weights import open_weights

HERE = Path(__file__).parent
CURVES = HERE / "curves"
# Training images of each space, the cheapest first.
NUM_TRAIN = {
    "linear_head": 5_000,
    "plateau": 1_500,
    "two_phase": 1_500,
    "architectures": 2_000,
    "resnet9": 4_000,
    "mini_resnet": 3_000,
}
NUM_VAL = 2_000
PRETRAINED = HERE / "pretrained"  # holds the weights that the spaces name
PRETRAINING = Recipe(
    dataset="cifar100",
    model={"name": "mini_resnet", "width": 0.5},
    optimizer={"name": "adam", "lr": 0.01},
    schedule={"name": "one-cycle"},
    augment={"flip": True, "crop_padding": 2},
    epochs=15,
    batch_size=100,
)
NUM_PRETRAINING = 15_000  # images
PART = 20  # configurations in a file
SECOND_SEED_EVERY = 5


@dataclass(frozen=True)
class Part:
    """The configurations of a space from `number * PART` on, in a file that one process writes."""

    space: str
    number: int

    @property
    def path(self) -> Path:
        return CURVES / self.space / f"part-{self.number:02d}.parquet"

    def runs(self) -> Iterator[tuple[int, int]]:
        """The configurations and seeds that belong in the file."""
        for config in range(self.number * PART, (self.number + 1) * PART):
            for seed in range(2 if config % SECOND_SEED_EVERY == 0 else 1):
                yield config, seed


def main() -> None:
    """Record the parts of all spaces in turn, several at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--store", type=Path, default=Path("cifar_tune_store"), help="store with cached images")
    parser.add_argument("--num-configs", type=int, default=240, help="configurations of each space")
    parser.add_argument("--spaces", nargs="+", choices=NUM_TRAIN, default=list(NUM_TRAIN))
    parser.add_argument("--num-workers", type=int, default=2)
    options = parser.parse_args()
    pretrain(options.data_dir, options.store)
    parts = [Part(space, number) for number in range(-(-options.num_configs // PART)) for space in options.spaces]
    record = partial(record_part, data_dir=options.data_dir, store=options.store)
    with ProcessPoolExecutor(options.num_workers, get_context("spawn")) as pool:
        for part, num_runs in zip(parts, pool.map(record, parts), strict=True):
            print(f"{part.path}: {num_runs} trainings", flush=True)


def pretrain(data_dir: Path | None, store: Path) -> None:
    """Train the network that the spaces fine-tune, unless it is there."""
    if not (PRETRAINED / WEIGHTS).exists():
        torch.set_num_threads(1)
        training = Training(PRETRAINING, small_data("cifar100", NUM_PRETRAINING, data_dir, store))
        for metrics in training.fit():
            print(f"pretraining, epoch {metrics.epoch}: {metrics.val_accuracy:.3f}", flush=True)
        save_weights(PRETRAINED, training.model, {"recipe": PRETRAINING.model_dump(mode="json")})


def record_part(part: Part, data_dir: Path | None, store: Path) -> int:
    """Train the runs that the part's file lacks; the number of trainings in the file."""
    torch.set_num_threads(1)
    recorded = pd.read_parquet(part.path).to_dict("records") if part.path.exists() else []
    rows = [{str(name): value for name, value in row.items()} for row in recorded]
    done = {(row["config"], row["seed"]) for row in rows}
    for config, seed in part.runs():
        if (config, seed) not in done:
            rows.append(train(part.space, config, seed, data_dir, store))
            write(rows, part.path)
    return len(rows)


def train(name: str, config: int, seed: int, data_dir: Path | None, store: Path) -> dict[str, Any]:
    """Train a configuration of the space `name`; its row of the table."""
    params, recipe = draw(open_space(name), config)
    training = Training(
        recipe.model_copy(update={"seed": seed}),
        small_data(recipe.dataset, NUM_TRAIN[name], data_dir, store),
        open_weights(recipe.model.weights),
        FeatureCache(open_store(store).features),
    )
    accuracies, seconds = [], []
    start = time.process_time()
    try:
        for metrics in training.fit():
            accuracies.append(metrics.val_accuracy)
            seconds.append(time.process_time() - start)
            start = time.process_time()
    except DivergenceError:
        pass  # a diverged training is known by its short curve
    return {"config": config, "seed": seed, **params, "val_accuracy": accuracies, "seconds": seconds}


def draw(space: Space, config: int) -> tuple[dict[str, Any], Recipe]:
    """The sampled values and the recipe of a configuration: the baseline, or random values determined by its number."""
    if config == 0:
        return space.baseline_trial(space.baselines[0]).params, space.baselines[0]
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=config)).ask()
    recipe = space.sample(trial)
    return trial.params, recipe


@cache
def open_space(name: str) -> Space:
    """A space of the folder beside this file."""
    return load_space(HERE / "spaces" / f"{name}.py")


@cache
def small_data(dataset: DatasetName, num_train: int, data_dir: Path | None, store: Path) -> DeviceData:
    """The first images of the stratified training and validation parts, at half their size."""
    data = load_training_data(dataset, train_images=None, data_dir=data_dir, store=open_store(store).root)
    train, val = first(data.train, num_train), first(data.val, NUM_VAL)
    return DeviceData.place(replace(data, train=train, val=val), torch.device("cpu"))


def first(images: Images, num_images: int) -> Images:
    """The first images at half their size: each pixel is the mean of four."""
    return Images(halve(images.images[:num_images]), images.labels[:num_images])


def halve(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(N, 3, H, W) to (N, 3, H/2, W/2)."""
    n, channels, height, width = images.shape
    blocks = images.reshape(n, channels, height // 2, 2, width // 2, 2)
    means: npt.NDArray[np.float64] = blocks.mean(axis=(3, 5))
    return means.round().astype(np.uint8)


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a whole file, or nothing if the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    pd.DataFrame(rows).to_parquet(unfinished, index=False)
    unfinished.replace(path)


if __name__ == "__main__":
    main()
