"""Augmentation and input scaling, as batch operations on the training device.

Every random draw comes from the run's own generator, one per image. Images are uint8 (N, 32, 32, 3) as they lie in
memory; what the network sees is float (N, 3, 32, 32) in channels-last memory, so that a batch is one gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cifar_tune.options import Options

if TYPE_CHECKING:
    from torch import Generator, Tensor

Scaling = Literal["dataset", "imagenet", "symmetric", "unit"]

IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's weight enums


class Augment(Options):
    """What is done to training images: a horizontal flip of every second one, and a crop out of the padded image."""

    flip: bool = True
    crop_padding: int = Field(4, ge=0, le=16)
    padding_mode: Literal["reflect", "zero"] = "reflect"


def sample(images: Tensor, indices: Tensor, augment: Augment | None, generator: Generator | None = None) -> Tensor:
    """The images at `indices` (n,), cropped and flipped where `augment` is given: uint8 (n, 3, H, W).

    Crop and flip only choose which pixel goes where, so both are one gather of source rows and columns.
    """
    if augment is None or not (augment.flip or augment.crop_padding):
        return images[indices].permute(0, 3, 1, 2)
    import torch

    n, size, device = len(indices), images.shape[1], images.device
    grid = torch.arange(size, device=device).expand(n, size)
    rows, columns = grid, grid
    if augment.flip:
        flipped = torch.rand(n, 1, generator=generator, device=device) < 0.5
        columns = torch.where(flipped, size - 1 - grid, grid)
    if augment.crop_padding:
        bound = augment.crop_padding
        shift = torch.randint(-bound, bound + 1, (2, n, 1), generator=generator, device=device)
        rows, columns = rows + shift[0], columns + shift[1]
    batch = images[indices[:, None, None], _inside(rows, size)[:, :, None], _inside(columns, size)[:, None, :]]
    if augment.crop_padding and augment.padding_mode == "zero":
        padded = _is_outside(rows, size)[:, :, None] | _is_outside(columns, size)[:, None, :]
        batch = batch.masked_fill(padded[..., None], 0)
    return batch.permute(0, 3, 1, 2)


def _inside(position: Tensor, size: int) -> Tensor:
    """Positions beyond an edge, mirrored at it without repeating the edge pixel."""
    return (size - 1) - ((size - 1) - position.abs()).abs()


def _is_outside(position: Tensor, size: int) -> Tensor:
    return (position < 0) | (position >= size)


def mean_and_std(scaling: Scaling, images: Tensor) -> tuple[Sequence[float], Sequence[float]]:
    """Per channel, of pixels in [0, 1]; `dataset` measures the given images (N, H, W, 3), the others are constants."""
    if scaling == "imagenet":
        return IMAGENET_MEAN_STD
    if scaling == "symmetric":
        return (0.5,) * 3, (0.5,) * 3
    if scaling == "unit":
        return (0.0,) * 3, (1.0,) * 3
    return _measure(images)


def _measure(images: Tensor) -> tuple[list[float], list[float]]:
    """Exact: counts of the 256 values of every channel, summed in float64."""
    import torch

    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(images[..., c].flatten(), minlength=256) for c in range(3)]).cpu()
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    mean = (shares * values).sum(dim=1)
    variance = (shares * (values - mean[:, None]) ** 2).sum(dim=1)
    return mean.tolist(), variance.sqrt().tolist()
