"""The architectures: one class each, with its own options and the network that they describe.

A new architecture is a class here and its name in `Model`; what it is built from lives in layers.py.
Every `build` returns a network that takes float images (N, 3, H, W) and gives logits (N, num_classes); its
children are the rows that `describe` prints.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cifar_tune.options import Options, Share

if TYPE_CHECKING:
    from torch import nn


class ResNet9(Options):
    """The nine-layer network of document 3; 6.57 M parameters. Source: David Page's DAWNBench entry."""

    name: Literal["resnet9"] = "resnet9"
    dropout: Share = 0.2

    def build(self, num_classes: int) -> nn.Module:
        """The layers of the document's table, by the document's names."""
        from torch import nn

        from cifar_tune.layers import conv_block, double_conv

        classifier = nn.Sequential(
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(512, num_classes)
        )
        return nn.Sequential(
            OrderedDict(
                conv1=conv_block(3, 64),
                conv2=conv_block(64, 128, pool=True),
                res1=double_conv(128),
                conv3=conv_block(128, 256, pool=True),
                conv4=conv_block(256, 512, pool=True),
                res2=double_conv(512),
                classifier=classifier,
            )
        )


class MiniResNet(Options):
    """The scaled-down residual network of document 5: three stages of two basic blocks."""

    name: Literal["mini_resnet"] = "mini_resnet"

    def build(self, num_classes: int) -> nn.Module:
        """The layers of the document's list, in its order."""
        from torch import nn

        from cifar_tune.layers import basic_block, conv_block

        classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
        return nn.Sequential(
            OrderedDict(
                conv1=conv_block(3, 16),
                res1=basic_block(16),
                res2=basic_block(16),
                down1=conv_block(16, 32, stride=2),
                res3=basic_block(32),
                res4=basic_block(32),
                down2=conv_block(32, 64, stride=2),
                res5=basic_block(64),
                res6=basic_block(64),
                classifier=classifier,
            )
        )


Model = Annotated[ResNet9 | MiniResNet, Field(discriminator="name")]
