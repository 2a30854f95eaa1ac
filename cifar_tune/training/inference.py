"""A trained network for its users: raw pixels in, logits out. The weights file is all that it is read from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from cifar_tune.data.images import CLASS_NAMES, IMAGE_SIZE
from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.training.inputs import Normalization
from cifar_tune.training.network_size import outline


class Classifier(nn.Module):
    """A network and its normalization: uint8 RGB images (n, 3, image_size, image_size) to logits (n, num_classes)."""

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        class_names: Sequence[str],
        image_size: int = IMAGE_SIZE,
    ) -> None:
        super().__init__()
        self.class_names = list(class_names)
        self.image_size = image_size
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
        mean, std = (
            [float(metadata["preprocessing"][name][channel]) for channel in range(3)] for name in ("mean", "std")
        )
        class_names = metadata.get("class_names") or CLASS_NAMES[recipe.dataset]  # which 0.1.0 did not write
        network = _build(recipe, tensors)
    except Exception:  # a file of another program, or a damaged one, can raise anything here
        raise UserError(f"{path} holds no network of this program; give a weights.safetensors that it kept.") from None
    # The memory format of training, because another one sums in another order.
    network = network.to(memory_format=torch.channels_last)
    return Classifier(network, mean, std, class_names, recipe.image_size).eval(), recipe


def _build(recipe: Recipe, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The recipe's network with the tensors; a ValueError for other tensors, before the network takes any memory."""
    shapes = {name: tensor.shape for name, tensor in outline(recipe).state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
        raise ValueError("The tensors are not those of the recipe's network.")
    network = recipe.model.build(recipe.num_outputs)
    network.load_state_dict(dict(tensors))
    return network
