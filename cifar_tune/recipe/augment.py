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

from cifar_tune.data.images import IMAGE_SIZE
from cifar_tune.recipe.options import Options
from cifar_tune.recipe.trivial_augment import apply_operations, draw_operations

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

Scaling = Literal["dataset", "imagenet", "symmetric", "unit"]

BLACK = (0.0, 0.0, 0.0)
BLOCK = 10_000  # images that are counted at a time, because each channel is copied
NUM_TRIES = 10  # of rectangles, as torchvision's RandomErasing; its ranges of the area's share and of the ratio follow
ERASED_SHARE = (0.02, 0.33)
ERASED_RATIO = (0.3, 3.3)
IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's weight enums


class Augment(Options):
    """The augmentation of training images; 0 switches an option off.

    Every image has draws of its own, applied in this order: a crop out of the padded image, a horizontal flip of half
    of the images, brightness, contrast and saturation times a factor in [1 - x, 1 + x], hue shifted by [-x, x] of the
    colour circle, rotation by [-x, x] degrees with black outside, and grayscale with probability x. The order is
    fixed, where torchvision's ColorJitter shuffles its four.

    With `trivial_augment` the crop and the flip are followed by one of 14 operations at a random strength
    (trivial_augment.py). Last of all, `cutout` covers a square of that many pixels a side around a random pixel
    (DeVries and Taylor, arXiv:1708.04552), and `erasing` covers a random rectangle with that probability (Zhong et al.,
    arXiv:1708.04896, with torchvision's shares and ratios). Both cover with what the scaling makes 0, the images' mean
    colour.
    """

    flip: bool = True
    crop_padding: int = Field(4, ge=0, le=16)
    padding_mode: Literal["reflect", "zero"] = "reflect"
    trivial_augment: bool = False
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)
    hue: float = Field(0.0, ge=0, le=0.5)
    rotation: float = Field(0.0, ge=0, le=180)
    grayscale: float = Field(0.0, ge=0, le=1)
    cutout: int = Field(0, ge=0, le=224)
    erasing: float = Field(0.0, ge=0, le=1)

    @property
    def changes_nothing(self) -> bool:
        """Whether every option is off."""
        return not any(value for name, value in self if name != "padding_mode")


@dataclass(frozen=True)
class Draws:
    """The random parameters of n images, a row for each; None for an option that is off."""

    flip: Tensor | None = None  # bool (n,)
    shift: Tensor | None = None  # int64 (n, 2): rows and columns
    trivial_augment: Tensor | None = None  # int64 (n, 3): operation, magnitude, sign
    brightness: Tensor | None = None  # float32 (n,), as the next two: the factor
    contrast: Tensor | None = None
    saturation: Tensor | None = None
    hue: Tensor | None = None  # float32 (n,): share of the colour circle
    rotation: Tensor | None = None  # float32 (n,): degrees, counterclockwise
    grayscale: Tensor | None = None  # bool (n,)
    cutout: Tensor | None = None  # int64 (n, 4), as the next one: top, left, bottom and right of what is covered
    erasing: Tensor | None = None

    @property
    def keep_bytes(self) -> bool:
        """Whether nothing makes a value that is no byte."""
        keeping = ("flip", "shift", "trivial_augment", "cutout", "erasing")
        return all(drawn is None for name, drawn in vars(self).items() if name not in keeping)

    def take(self, indices: Tensor) -> Draws:
        """The rows at `indices`."""
        return Draws(**{name: None if drawn is None else drawn[indices] for name, drawn in vars(self).items()})


def draw(augment: Augment, n: int, generator: Generator, device: torch.device, image_size: int = IMAGE_SIZE) -> Draws:
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
        trivial_augment=draw_operations(n, generator, device) if augment.trivial_augment else None,
        brightness=uniform(1.0, augment.brightness),
        contrast=uniform(1.0, augment.contrast),
        saturation=uniform(1.0, augment.saturation),
        hue=uniform(0.0, augment.hue),
        rotation=uniform(0.0, augment.rotation),
        grayscale=chance(augment.grayscale),
        cutout=_draw_squares(augment.cutout, n, image_size, generator, device) if augment.cutout else None,
        erasing=_draw_rectangles(augment.erasing, n, image_size, generator, device) if augment.erasing else None,
    )


def _draw_squares(side: int, n: int, image_size: int, generator: Generator, device: torch.device) -> Tensor:
    """Squares around random pixels; what lies outside the image is not covered."""
    import torch

    corner = torch.randint(0, image_size, (n, 2), generator=generator, device=device) - side // 2
    return torch.cat([corner, corner + side], dim=1)


def _draw_rectangles(probability: float, n: int, image_size: int, generator: Generator, device: torch.device) -> Tensor:
    """Rectangles of 2 to 33 % of the image, of which the first of NUM_TRIES that fits is taken; empty where none is."""
    import torch

    share, ratio, top, left = torch.rand(4, NUM_TRIES, n, generator=generator, device=device)
    area = (ERASED_SHARE[0] + (ERASED_SHARE[1] - ERASED_SHARE[0]) * share) * image_size**2
    low, high = map(math.log, ERASED_RATIO)
    ratio = torch.exp(low + (high - low) * ratio)
    height, width = torch.round(torch.sqrt(area * ratio)), torch.round(torch.sqrt(area / ratio))
    fits = (height < image_size) & (width < image_size)
    first = fits.int().argmax(dim=0, keepdim=True)  # of equals the first
    is_covered = fits.any(dim=0) & (torch.rand(n, generator=generator, device=device) < probability)
    top, left = (torch.floor(place * (image_size - size + 1)) for place, size in ((top, height), (left, width)))
    sides = torch.stack([top, left, top + height, left + width]).gather(1, first.expand(4, 1, n))[:, 0]
    return (sides * is_covered).long().T


def sample(
    images: Tensor,
    indices: Tensor,
    augment: Augment | None,
    generator: Generator | None = None,
    cover: Sequence[float] = BLACK,
) -> Tensor:
    """The images at `indices` (n,), with new draws where there is an `augment`; all else is as in `apply`."""
    if augment is None or augment.changes_nothing:
        return images.index_select(0, indices).permute(0, 3, 1, 2)
    assert generator is not None, "augmentation draws from the run's generator"
    draws = draw(augment, len(indices), generator, images.device, images.shape[1])
    return apply(images, indices, augment, draws, cover)


def apply(images: Tensor, indices: Tensor, augment: Augment, draws: Draws, cover: Sequence[float] = BLACK) -> Tensor:
    """The images at `indices` (n,), each augmented by its row of `draws`: (n, 3, H, W) of 0 to 255, a new tensor.

    It is unrounded float32 where a colour or a rotation was drawn, uint8 otherwise. What is covered has the colour
    `cover`, of channels in [0, 1].
    """
    batch = _flip_and_crop(images, indices, augment, draws).permute(0, 3, 1, 2)
    if draws.trivial_augment is not None:
        batch = apply_operations(batch, draws.trivial_augment)
    batch = batch if draws.keep_bytes else _colour_and_rotate(batch, draws)
    for sides in (draws.cutout, draws.erasing):
        if sides is not None:
            batch = _covered(batch, sides, cover)
    return batch


def _covered(batch: Tensor, sides: Tensor, colour: Sequence[float]) -> Tensor:
    """Images (n, 3, H, W) with one rectangle each in the colour; rounded where the images are bytes."""
    import torch

    top, left, bottom, right = sides.view(-1, 4, 1).unbind(1)
    rows, columns = (torch.arange(size, device=batch.device) for size in batch.shape[2:])
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    inside = in_rows[:, :, None] & in_columns[:, None, :]
    values = 255 * torch.tensor(colour, device=batch.device)
    values = values if batch.is_floating_point() else values.round().to(batch.dtype)
    return torch.where(inside[:, None], values.view(3, 1, 1), batch)


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


def _counts(images: Tensor) -> Tensor:
    """How often each channel has each value: int64 (3, 256)."""
    import torch

    return torch.stack([torch.bincount(images[..., c].flatten(), minlength=256) for c in range(3)])


def _measure(images: Tensor) -> tuple[list[float], list[float]]:
    """Exact mean and deviation of each channel, from the counts of its 256 values, summed in float64.

    The deviation of a channel with one value alone is taken for 1, as scikit-learn does.
    """
    import torch

    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([_counts(block) for block in torch.split(images, BLOCK)]).sum(dim=0).cpu()
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    mean = (shares * values).sum(dim=1)
    variance = (shares * (values - mean[:, None]) ** 2).sum(dim=1)
    return mean.tolist(), [deviation if deviation > 1e-9 else 1.0 for deviation in variance.sqrt().tolist()]
