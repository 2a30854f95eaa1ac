"""The blocks that the networks of models.py are made of.

A layer with options of its own shows them in `extra_repr`, because the cached features of a frozen backbone are looked
up by the network's repr. If you change a `forward` and the repr stays the same, raise VERSION in training/features.py.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH_SIZE = 2  # pixels, both ways
NUM_WHITENED = 2 * 3 * PATCH_SIZE**2  # channels: every component of a patch, and its negative
WHITENING_EPS = 5e-4  # airbench's, added to the variances


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


class PatchWhitening(nn.Module):
    """The patches of 2x2 pixels, decorrelated and with equal variances: a convolution that is fitted, not trained.

    It is the first layer of David Page's and of Keller Jordan's fast networks (arXiv:2404.00498), with a trained bias.
    """

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        pixels = torch.eye(NUM_WHITENED // 2).view(-1, 3, PATCH_SIZE, PATCH_SIZE)
        self.register_buffer("weight", torch.cat([pixels, -pixels]))
        self.bias = nn.Parameter(torch.zeros(NUM_WHITENED))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, NUM_WHITENED, H - 1, W - 1)."""
        return F.conv2d(x, self.weight, self.bias)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take the principal components of all patches of normalized images, batches (n, 3, H, W) of any size."""
        products, num_patches = torch.zeros(NUM_WHITENED // 2, NUM_WHITENED // 2, dtype=torch.float64), 0
        for images in batches:
            patches = F.unfold(images, PATCH_SIZE).transpose(1, 2).flatten(0, 1)
            products += (patches.T @ patches).double().cpu()
            num_patches += len(patches)
        variances, components = torch.linalg.eigh(products / num_patches)
        filters = (components / (variances + WHITENING_EPS).sqrt()).T.reshape(-1, 3, PATCH_SIZE, PATCH_SIZE)
        self.weight.copy_(torch.cat([filters, -filters]))


def whitened() -> nn.Sequential:
    """Patch whitening and GELU, as airbench has them."""
    return nn.Sequential(PatchWhitening(), nn.GELU())


def fast_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """A block of airbench: two convolutions that begin as the identity, batch norms with short memory, GELU."""

    def conv(channels: int) -> nn.Conv2d:
        layer = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
        nn.init.dirac_(layer.weight[: layer.in_channels].detach())
        return layer

    def norm() -> nn.BatchNorm2d:
        return nn.BatchNorm2d(out_channels, eps=1e-12, momentum=0.4)

    first = [conv(in_channels), nn.MaxPool2d(2), norm(), nn.GELU()]
    return nn.Sequential(*first, conv(out_channels), norm(), nn.GELU())


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
