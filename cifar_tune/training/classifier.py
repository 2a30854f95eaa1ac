"""A trained network as its users have it: raw pixels in, logits out, read from the weights file alone."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cifar_tune.data.images import NUM_CLASSES
from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe


class Classifier(nn.Module):
    """uint8 RGB images (n, 3, 32, 32) to logits (n, num_classes); `mean` and `std` are of pixels in [0, 1]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        scale = torch.tensor([1 / (255 * s) for s in std])
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
        self.register_buffer("scale", scale.view(3, 1, 1))
        self.register_buffer("shift", shift.view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """As the network was given its training images, but not augmented."""
        logits: Tensor = self.network(images.float() * self.scale + self.shift)
        return logits


def load_classifier(path: Path) -> tuple[Classifier, Recipe]:
    """The network of a `weights.safetensors` that this program kept, for evaluation, and its recipe."""
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
    return Classifier(network, preprocessing["mean"], preprocessing["std"]).eval(), recipe
