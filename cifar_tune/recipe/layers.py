"""The blocks that the networks of models.py are made of.

A layer with options of its own shows them in `extra_repr`, because the cached features of a frozen backbone are looked
up by the network's repr. If you change a `forward` and the repr stays the same, raise VERSION in training/features.py.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def conv_block(in_channels: int, out_channels: int, *, stride: int = 1, pool: bool = False) -> nn.Sequential:
    """A 3x3 convolution without a bias, batch norm, ReLU, and with `pool` a 2x2 max pool."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]
    if pool:
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """`activation(x + block(x))`."""

    def __init__(self, block: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        y: Tensor = self.activation(x + self.block(x))
        return y


def double_conv(channels: int) -> Residual:
    """ResNet9's residual block: two whole conv blocks beside the shortcut, and no activation after the sum."""
    return Residual(nn.Sequential(conv_block(channels, channels), conv_block(channels, channels)), nn.Identity())


def basic_block(channels: int) -> Residual:
    """He et al.'s basic block (arXiv:1512.03385): the second ReLU comes after the sum."""
    block = nn.Sequential(
        conv_block(channels, channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )
    return Residual(block, nn.ReLU(inplace=True))


class Resize(nn.Module):
    """Resizes square images to `size` x `size` pixels: bilinear, antialiased, the whole batch on its device."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def extra_repr(self) -> str:
        """The options, as torch's own layers show theirs."""
        return f"size={self.size}"

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, size, size)."""
        return F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)


def dense_head(num_features: int, widths: Sequence[int], num_classes: int, dropout: float) -> nn.Module:
    """Hidden layers of these widths with ReLUs, then dropout and the linear classifier.

    Without hidden layers and dropout it is a bare `Linear`, so that its parameters have torchvision's names.
    """
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(num_features, width), nn.ReLU()]
        num_features = width
    classifier = nn.Linear(num_features, num_classes)
    if not layers and not dropout:
        return classifier
    return nn.Sequential(*layers, nn.Dropout(dropout), classifier)
