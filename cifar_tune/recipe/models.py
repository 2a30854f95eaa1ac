"""The architectures: one class each, with its options, which builds the network that they describe.

A new architecture is a class here and its name in `Model`; its blocks are in layers.py. Every `build` returns a network
that takes float images (N, 3, H, W) and gives logits (N, num_classes). Its last child is the head, and all children
before it are the backbone. `describe` prints a row for each child. training/weights.py loads trained weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from cifar_tune.data.images import IMAGE_SIZE
from cifar_tune.recipe.options import UNFINISHED, Options, Positive, Share

if TYPE_CHECKING:
    from torch import nn


def _as_widths(head: Any) -> Any:  # noqa: ANN401 - what a user wrote
    """A list of widths as text, because a choice in a search has to be text."""
    return "-".join(map(str, head)) or "linear" if isinstance(head, list | tuple) else head


def _as_number(size: Any) -> Any:  # noqa: ANN401 - what a user wrote
    """Text as a number, because `--set` gives text, which pydantic does not accept for a choice of numbers."""
    return int(size) if isinstance(size, str) and size.isdecimal() else size


WeightsName = Annotated[str, Field(min_length=1)]
ImageSize = Annotated[Literal[32, 224], BeforeValidator(_as_number)]
Head = Annotated[str, Field(pattern=r"^(linear|[1-9]\d*(-[1-9]\d*)*)$"), BeforeValidator(_as_widths)]


class Architecture(Options):
    """What every architecture has besides `build`.

    `weights` are those that it starts from: `none`, or the path of a checkpoint.
    """

    head_options: ClassVar[frozenset[str]] = frozenset()  # options that do not change the backbone
    has_imagenet: ClassVar[bool] = False

    name: str
    weights: WeightsName = "none"

    @field_validator("weights")
    @classmethod
    def _exist(cls, weights: str, info: ValidationInfo) -> str:
        if weights == "imagenet" and not cls.has_imagenet and info.context != UNFINISHED:
            raise ValueError("imagenet weights exist for resnet50 only; use none, or the path of a checkpoint")
        return weights

    @property
    def evaluation_batch(self) -> int:
        """The size of a batch where no gradient is needed; a larger one would fill a small machine's memory."""
        return 500

    def backbone_options(self) -> dict[str, Any]:
        """The options that decide the backbone's layers, without `weights`, which decide only their values."""
        return self.model_dump(exclude={*self.head_options, "weights"})


def scaled(channels: int, width: float) -> int:
    """The channels times the width, as a whole number, at least one."""
    return max(1, round(channels * width))


def first_layers(whitening: bool) -> tuple[dict[str, nn.Module], int]:
    """What comes before the first convolution, and how many channels that one gets."""
    from cifar_tune.recipe.layers import NUM_WHITENED, whitened

    return ({"whiten": whitened()}, NUM_WHITENED) if whitening else ({}, 3)


class ResNet9(Architecture):
    """The nine-layer network of the ResNet9 one-cycle project, with 6.57 M parameters.

    It comes from David Page's DAWNBench entry. `width` multiplies the channels of every convolution. With `whitening`
    a layer that whitens patches comes first (layers.py).
    """

    head_options = frozenset({"dropout"})

    name: Literal["resnet9"] = "resnet9"
    width: Positive = 1.0
    whitening: bool = False
    dropout: Share = 0.2

    def build(self, num_classes: int) -> nn.Sequential:
        """The layers of the project's table, with its names."""
        from torch import nn

        from cifar_tune.recipe.layers import conv_block, double_conv

        width = scaled(64, self.width)
        first, num_channels = first_layers(self.whitening)
        return nn.Sequential(
            OrderedDict(
                **first,
                conv1=conv_block(num_channels, width),
                conv2=conv_block(width, 2 * width, pool=True),
                res1=double_conv(2 * width),
                conv3=conv_block(2 * width, 4 * width, pool=True),
                conv4=conv_block(4 * width, 8 * width, pool=True),
                res2=double_conv(8 * width),
                pool=nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
                classifier=nn.Sequential(nn.Dropout(self.dropout), nn.Linear(8 * width, num_classes)),
            )
        )


class MiniResNet(Architecture):
    """The small residual network of the Mini-ResNet step-decay project: three stages of two basic blocks.

    `width` multiplies the channels of every convolution. With `whitening` a layer that whitens patches comes first
    (layers.py).
    """

    name: Literal["mini_resnet"] = "mini_resnet"
    width: Positive = 1.0
    whitening: bool = False

    def build(self, num_classes: int) -> nn.Sequential:
        """The layers of the project's list, in its order."""
        from torch import nn

        from cifar_tune.recipe.layers import basic_block, conv_block

        width = scaled(16, self.width)
        first, num_channels = first_layers(self.whitening)
        return nn.Sequential(
            OrderedDict(
                **first,
                conv1=conv_block(num_channels, width),
                res1=basic_block(width),
                res2=basic_block(width),
                down1=conv_block(width, 2 * width, stride=2),
                res3=basic_block(2 * width),
                res4=basic_block(2 * width),
                down2=conv_block(2 * width, 4 * width, stride=2),
                res5=basic_block(4 * width),
                res6=basic_block(4 * width),
                pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                classifier=nn.Linear(4 * width, num_classes),
            )
        )


class AirBench(Architecture):
    """The network of Keller Jordan's airbench94 (arXiv:2404.00498), with 1.97 M parameters for ten classes.

    Patch whitening (layers.py) and three blocks of two convolutions. `width` multiplies their channels. Unlike the
    original's, its batch norms have trained weights, and its head is torch's own linear layer.
    """

    name: Literal["airbench"] = "airbench"
    width: Positive = 1.0

    def build(self, num_classes: int) -> nn.Sequential:
        """The layers of the original, with its names."""
        from torch import nn

        from cifar_tune.recipe.layers import fast_block

        widths = [scaled(channels, self.width) for channels in (64, 256, 256)]
        first, num_channels = first_layers(whitening=True)
        return nn.Sequential(
            OrderedDict(
                **first,
                block1=fast_block(num_channels, widths[0]),
                block2=fast_block(widths[0], widths[1]),
                block3=fast_block(widths[1], widths[2]),
                pool=nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
                head=nn.Linear(widths[2], num_classes),
            )
        )


class ResNet18(Architecture):
    """The ResNet-18 of torchvision in its form for CIFAR: a 3x3 convolution first, without stride and max pool.

    That is the usual one of CIFAR repositories (He et al., arXiv:1512.03385, for images of 32 pixels), with 11.17 M
    parameters for ten classes. `dropout` comes before the last layer.
    """

    head_options = frozenset({"dropout"})

    name: Literal["resnet18"] = "resnet18"
    dropout: Share = 0.0

    def build(self, num_classes: int) -> nn.Sequential:
        """Torchvision's layers by their names, and the head as `fc`."""
        from torch import nn
        from torchvision.models import resnet18

        from cifar_tune.recipe.layers import dense_head

        network = resnet18()
        children = OrderedDict[str, nn.Module](network.named_children())
        children["conv1"] = conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
        del children["maxpool"], children["fc"]
        children["flatten"] = nn.Flatten()
        children["fc"] = dense_head(network.fc.in_features, [], num_classes, self.dropout)
        return nn.Sequential(children)


class ResNet50(Architecture):
    """The ResNet-50 of torchvision, whose children keep its names, so that its published weights fit.

    `weights`: `imagenet` (training/weights.py says which), `none`, or the path of a checkpoint. `head`: `linear`, or
    the widths of hidden layers (`128-64`); `dropout` comes before the last layer. With an `image_size` of 224 the
    network begins with a bilinear resize of its images.
    """

    head_options = frozenset({"head", "dropout"})
    has_imagenet = True

    name: Literal["resnet50"] = "resnet50"
    weights: WeightsName = "imagenet"
    head: Head = "linear"
    dropout: Share = 0.0
    image_size: ImageSize = 32

    @property
    def evaluation_batch(self) -> int:
        """The size of a batch where no gradient is needed; at 224 px the first activations take 3 MB an image."""
        return 500 if self.image_size == IMAGE_SIZE else 100

    def build(self, num_classes: int) -> nn.Sequential:
        """The resize where there is one, torchvision's layers, and the head as `fc`."""
        from torch import nn
        from torchvision.models import resnet50

        from cifar_tune.recipe.layers import Resize, dense_head

        children = OrderedDict[str, nn.Module]()
        if self.image_size != IMAGE_SIZE:
            children["resize"] = Resize(self.image_size)
        network = resnet50()
        children |= network.named_children()
        del children["fc"]
        children["flatten"] = nn.Flatten()
        children["fc"] = dense_head(network.fc.in_features, self._widths(), num_classes, self.dropout)
        return nn.Sequential(children)

    def _widths(self) -> Sequence[int]:
        return [] if self.head == "linear" else [int(width) for width in self.head.split("-")]


Model = Annotated[ResNet9 | MiniResNet | AirBench | ResNet18 | ResNet50, Field(discriminator="name")]
