"""The size of a network before it is trained: its parameters, and the multiply-adds of one image's forward pass.

They are counted on the network's own device. On the `meta` device nothing is computed and no memory is taken, but a
process's first forward pass there waits seconds for torch's imports, so workers do not use it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cifar_tune.data.images import IMAGE_SIZE
from cifar_tune.errors import UserError
from cifar_tune.recipe.layers import PatchWhitening
from cifar_tune.recipe.recipe import Recipe


@dataclass
class Layer:
    """A child of a network: the shape (channels, height, width) of its output, and its cost for one image."""

    name: str
    module: nn.Module
    num_parameters: int
    output_shape: tuple[int, ...] = ()
    num_macs: int = 0


def count_layers(network: nn.Sequential, image_size: int = IMAGE_SIZE) -> list[Layer]:
    """The network's children, counted in a forward pass of one image that leaves the network as it was.

    Multiply-adds are those of convolutions and linear layers; everything else is small in comparison.
    """
    layers = [Layer(name, child, count_parameters(child)) for name, child in network.named_children()]
    hooks = [layer.module.register_forward_hook(_note_shape(layer)) for layer in layers]
    for layer in layers:
        counted = [each for each in layer.module.modules() if isinstance(each, nn.Conv2d | nn.Linear | PatchWhitening)]
        hooks += [module.register_forward_hook(_add_macs(layer)) for module in counted]
    modes = [(module, module.training) for module in network.modules()]
    images = torch.zeros(1, 3, image_size, image_size, device=next(network.parameters()).device)
    with torch.no_grad():
        network.eval()(images)
    for module, mode in modes:
        module.training = mode
    for hook in hooks:
        hook.remove()
    return layers


def outline(recipe: Recipe) -> nn.Sequential:
    """The recipe's network without any memory; a UserError where it is larger than any memory."""
    try:
        with torch.device("meta"):
            return recipe.model.build(recipe.num_outputs)
    except RuntimeError as error:
        raise UserError(f"{recipe.model.name} cannot be built with these options ({error}); make it smaller.") from None


def count_parameters(module: nn.Module) -> int:
    """The number of all parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(network: nn.Sequential, image_size: int = IMAGE_SIZE) -> int:
    """The multiply-adds of one image."""
    return sum(layer.num_macs for layer in count_layers(network, image_size))


def _note_shape(layer: Layer) -> Any:  # noqa: ANN401 - torch's hook type is private
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        layer.output_shape = tuple(output.shape[1:])

    return hook


def _add_macs(layer: Layer) -> Any:  # noqa: ANN401 - torch's hook type is private
    def hook(module: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        layer.num_macs += output.numel() * module.weight[0].numel()  # each output is one row of weights by its inputs

    return hook
