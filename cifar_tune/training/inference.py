"""A trained network for its users: raw pixels in, logits out. The weights file is all that it is read from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cifar_tune.data.images import NUM_CLASSES
from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.training.inputs import Normalization


class Classifier(nn.Module):
    """A network and its normalization: uint8 RGB images (n, 3, 32, 32) to logits (n, num_classes)."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalization = Normalization(mean, std)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes), bit for bit those of `Training.predict` for the same batch on the same machine."""
        pixels = images.to(torch.float32, copy=True)  # which is overwritten; the caller's images are not
        logits: Tensor = self.network(self.normalization(pixels))
        return logits


def load_classifier(path: Path) -> tuple[Classifier, Recipe]:
    """The network of a `weights.safetensors` that this program kept, in evaluation mode, and its recipe."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            metadata: dict[str, Any] = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
        recipe = Recipe.model_validate(metadata["recipe"])
        preprocessing = metadata["preprocessing"]
    except (OSError, SafetensorError, ValueError, KeyError):
        raise UserError(f"{path} holds no network of this program; give a weights.safetensors that it kept.") from None
    network = recipe.model.build(NUM_CLASSES[recipe.dataset])
    network.load_state_dict(tensors)
    # The memory format of training, because another one sums in another order.
    network = network.to(memory_format=torch.channels_last)
    return Classifier(network, preprocessing["mean"], preprocessing["std"]).eval(), recipe
