"""Augmentation and input scaling, as batch operations on the training device.

Every image has random draws of its own, from the run's generator. Drawing and applying are separate, so that a view of
an image can be fixed. Images lie in memory as uint8 (N, 32, 32, 3); the network takes float (N, 3, 32, 32) in
channels-last memory, so that a batch is a copy of whole images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cifar_tune.recipe.options import Options

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

Scaling = Literal["dataset", "imagenet", "symmetric", "unit"]

IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's weight enums


class Augment(Options):
    """The augmentation of training images; 0 switches an option off.

    Every image has draws of its own, applied in this order: a crop out of the padded image, a horizontal flip of half
    of the images, brightness, contrast and saturation times a factor in [1 - x, 1 + x], hue shifted by [-x, x] of the
    colour circle, rotation by [-x, x] degrees with black outside, and grayscale with probability x. The order is
    fixed, where torchvision's ColorJitter shuffles its four.
    """

    flip: bool = True
    crop_padding: int = Field(4, ge=0, le=16)
    padding_mode: Literal["reflect", "zero"] = "reflect"
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)
    hue: float = Field(0.0, ge=0, le=0.5)
    rotation: float = Field(0.0, ge=0, le=180)
    grayscale: float = Field(0.0, ge=0, le=1)

    @property
    def changes_nothing(self) -> bool:
        """Whether every option is off."""
        return not any(value for name, value in self if name != "padding_mode")


@dataclass(frozen=True)
class Draws:
    """The random parameters of n images, a row for each; None for an option that is off."""

    flip: Tensor | None = None  # bool (n,)
    shift: Tensor | None = None  # int64 (n, 2): rows and columns
    brightness: Tensor | None = None  # float32 (n,), as the next two: the factor
    contrast: Tensor | None = None
    saturation: Tensor | None = None
    hue: Tensor | None = None  # float32 (n,): share of the colour circle
    rotation: Tensor | None = None  # float32 (n,): degrees, counterclockwise
    grayscale: Tensor | None = None  # bool (n,)

    @property
    def only_move_pixels(self) -> bool:
        """Whether there are flips and crops at most, so that every value stays a byte."""
        return all(drawn is None for name, drawn in vars(self).items() if name not in ("flip", "shift"))

    def take(self, indices: Tensor) -> Draws:
        """The rows at `indices`."""
        return Draws(**{name: None if drawn is None else drawn[indices] for name, drawn in vars(self).items()})


def draw(augment: Augment, n: int, generator: Generator, device: torch.device) -> Draws:
    """Draw the parameters of n images, in the order of their application; an option that is off draws nothing."""
    import torch

    def uniform(middle: float, bound: float) -> Tensor | None:
        low, high = middle - bound, middle + bound
        return torch.empty(n, device=device).uniform_(low, high, generator=generator) if bound else None

    def chance(probability: float) -> Tensor | None:
        return torch.rand(n, generator=generator, device=device) < probability if probability else None

    def shift(bound: int) -> Tensor | None:
        return torch.randint(-bound, bound + 1, (2, n), generator=generator, device=device).T if bound else None

    return Draws(
        flip=chance(0.5 if augment.flip else 0.0),
        shift=shift(augment.crop_padding),
        brightness=uniform(1.0, augment.brightness),
        contrast=uniform(1.0, augment.contrast),
        saturation=uniform(1.0, augment.saturation),
        hue=uniform(0.0, augment.hue),
        rotation=uniform(0.0, augment.rotation),
        grayscale=chance(augment.grayscale),
    )


def sample(images: Tensor, indices: Tensor, augment: Augment | None, generator: Generator | None = None) -> Tensor:
    """The images at `indices` (n,), with new draws where there is an `augment`; shape and type are those of `apply`."""
    if augment is None or augment.changes_nothing:
        return images.index_select(0, indices).permute(0, 3, 1, 2)
    assert generator is not None, "augmentation draws from the run's generator"
    return apply(images, indices, augment, draw(augment, len(indices), generator, images.device))


def apply(images: Tensor, indices: Tensor, augment: Augment, draws: Draws) -> Tensor:
    """The images at `indices` (n,), each augmented by its row of `draws`: (n, 3, H, W) of 0 to 255, a new tensor.

    It is uint8 where pixels only moved, unrounded float32 where a colour or a rotation was drawn.
    """
    batch = _flip_and_crop(images, indices, augment, draws).permute(0, 3, 1, 2)
    return batch if draws.only_move_pixels else _colour_and_rotate(batch, draws)


def _flip_and_crop(images: Tensor, indices: Tensor, augment: Augment, draws: Draws) -> Tensor:
    """Crop out of the padded images, then flip: (n, H, W, 3), by copies of rows, which are faster than of pixels."""
    import torch

    batch = images.index_select(0, indices)
    numbers = torch.arange(len(indices), device=images.device)
    if draws.shift is not None:
        size = images.shape[1]
        windows = _pad(batch, augment.crop_padding, augment.padding_mode).unfold(1, size, 1).unfold(2, size, 1)
        rows, columns = (draws.shift + augment.crop_padding).unbind(1)
        batch = windows.permute(0, 1, 2, 4, 5, 3)[numbers, rows, columns]
    if draws.flip is not None:
        batch = torch.cat([batch, batch.flip(2)]).index_select(0, numbers + len(indices) * draws.flip)
    return batch


def _pad(batch: Tensor, padding: int, mode: str) -> Tensor:
    """Images (n, H, W, 3) with a border that is black or mirrors them; the edge's own pixel is not repeated."""
    n, height, width, channels = batch.shape
    padded = batch.new_zeros(n, height + 2 * padding, width + 2 * padding, channels)
    padded[:, padding:-padding, padding:-padding] = batch
    if mode == "reflect":
        for border in (padded, padded.transpose(1, 2)):  # rows, then columns
            border[:, :padding] = border[:, padding + 1 : 2 * padding + 1].flip(1)
            border[:, -padding:] = border[:, -2 * padding - 1 : -padding - 1].flip(1)
    return padded


def _colour_and_rotate(batch: Tensor, draws: Draws) -> Tensor:
    """Apply all other draws: float32 (n, 3, H, W) of 0 to 255.

    Kornia's functions take a value for each image, where torchvision's take one for the whole batch.
    """
    import torch
    from kornia.color import rgb_to_grayscale
    from kornia.enhance import (
        adjust_brightness_accumulative,
        adjust_contrast_with_mean_subtraction,
        adjust_hue,
        adjust_saturation_with_gray_subtraction,
    )
    from kornia.geometry.transform import rotate

    steps: list[tuple[Tensor | None, Callable[[Tensor, Tensor], Tensor]]] = [
        (draws.brightness, adjust_brightness_accumulative),
        (draws.contrast, adjust_contrast_with_mean_subtraction),
        (draws.saturation, adjust_saturation_with_gray_subtraction),
        (draws.hue, lambda pixels, share: adjust_hue(pixels, 2 * math.pi * share)),
        (draws.rotation, rotate),
        (draws.grayscale, lambda pixels, gray: torch.where(gray.view(-1, 1, 1, 1), rgb_to_grayscale(pixels), pixels)),
    ]
    pixels = batch.float().div_(255)
    for drawn, step in steps:
        if drawn is not None:
            pixels = step(pixels, drawn)
    # Hue and rotation do not clamp, and interpolation can leave the range by a rounding error.
    return pixels.clamp(0, 1).mul_(255).contiguous(memory_format=torch.channels_last)


def mean_and_std(scaling: Scaling, images: Tensor) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of each channel, for pixels in [0, 1].

    `dataset` measures them on the images, uint8 (N, H, W, 3); the other scalings are constants.
    """
    if scaling == "imagenet":
        return IMAGENET_MEAN_STD
    if scaling == "symmetric":
        return (0.5,) * 3, (0.5,) * 3
    if scaling == "unit":
        return (0.0,) * 3, (1.0,) * 3
    return _measure(images)


def _measure(images: Tensor) -> tuple[list[float], list[float]]:
    """Exact mean and deviation of each channel, from the counts of its 256 values, summed in float64."""
    import torch

    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(images[..., c].flatten(), minlength=256) for c in range(3)]).cpu()
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    mean = (shares * values).sum(dim=1)
    variance = (shares * (values - mean[:, None]) ** 2).sum(dim=1)
    return mean.tolist(), variance.sqrt().tolist()
