"""The blocks that the networks of models.py are made of."""

from torch import Tensor, nn


def conv_block(in_channels: int, out_channels: int, *, stride: int = 1, pool: bool = False) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU, and a 2x2 max pool where asked; the norm's shift is the only bias."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
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
        """Shape in, shape out: (N, C, H, W)."""
        y: Tensor = self.activation(x + self.block(x))
        return y


def double_conv(channels: int) -> Residual:
    """ResNet9's residual block: two whole conv blocks around the shortcut, nothing after the sum."""
    return Residual(nn.Sequential(conv_block(channels, channels), conv_block(channels, channels)), nn.Identity())


def basic_block(channels: int) -> Residual:
    """He et al.'s basic block (arXiv:1512.03385): the second ReLU comes after the sum."""
    block = nn.Sequential(
        conv_block(channels, channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )
    return Residual(block, nn.ReLU())
