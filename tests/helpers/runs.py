"""What the tests of training share: a recipe of a small network, and runs whose metrics are compared without times."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from cifar_tune import Recipe
from cifar_tune.recipe.recipe import Value
from cifar_tune.training.checkpoint import load_state
from cifar_tune.training.features import FeatureCache
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import EpochMetrics, Training
from cifar_tune.training.weights import Weights

CPU = torch.device("cpu")
NOT_REPEATABLE = {"seconds", "images_per_second"}
BASE = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet"},
    optimizer={"name": "adam", "lr": 0.003},
    schedule={"name": "cosine"},
    epochs=3,
    batch_size=32,
)
NO_AUGMENT: dict[str, Value] = {"augment/flip": False, "augment/crop_padding": 0}


def variants(group: str) -> list[str]:
    return [member.model_fields["name"].default for member in get_args(Recipe.model_fields[group].annotation)]


def with_settings(settings: dict[str, Value]) -> Recipe:
    return BASE.replace(settings)


def repeatable(metrics: EpochMetrics) -> dict[str, Any]:
    """All metrics but the times."""
    return {name: value for name, value in metrics.as_row().items() if name not in NOT_REPEATABLE}


def train(
    recipe: Recipe, data: DeviceData, weights: Weights | None = None, cache: FeatureCache | None = None
) -> list[dict[str, Any]]:
    return [repeatable(metrics) for metrics in Training(recipe, data, weights, cache).fit()]


def first_epochs(training: Training, num_epochs: int) -> Iterator[EpochMetrics]:
    """Train this many epochs and leave the run as it is then."""
    for _, metrics in zip(range(num_epochs), training.fit(), strict=False):
        yield metrics


def resumed(recipe: Recipe, data: DeviceData, folder: Path) -> Training:
    """A new run that continues from the folder's state, whatever the state of torch's own generator is."""
    torch.manual_seed(123)
    training = Training(recipe, data)
    state = load_state(folder)
    assert state is not None
    training.load_state_dict(state)
    return training


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    """The names of the tensors that are no longer the same bit for bit."""
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def same_tensors(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
