"""TrivialAugment in its wide form (Müller and Hutter, arXiv:2103.10158): one random operation for each image.

The operations, their 31 magnitudes and, but for some values that differ by 1, their results on bytes are those of
torchvision.transforms.v2.TrivialAugmentWide, which takes one image at a time. Here every image of a batch passes
through all of them, with magnitudes that change nothing for those that were not drawn: a GPU then never waits for
Python to know which were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE = range(1, 6)  # 0 leaves the image as it is
BRIGHTNESS, COLOR, CONTRAST, SHARPNESS, POSTERIZE, SOLARIZE, AUTO_CONTRAST, EQUALIZE = range(6, 14)
NUM_OPERATIONS, NUM_MAGNITUDES = 14, 31
MAX_SHARE = 0.99  # of a shear, and of what is added to a factor of 1
MAX_PIXELS = 32.0  # of a translation, whatever the size of the images
MAX_DEGREES = 135.0


def draw_operations(n: int, generator: Generator, device: torch.device) -> Tensor:
    """For each of n images an operation, a magnitude's number, and a sign as 0 or 1: int64 (n, 3)."""
    import torch

    numbers = (NUM_OPERATIONS, NUM_MAGNITUDES, 2)
    return torch.stack([torch.randint(high, (n,), generator=generator, device=device) for high in numbers], dim=1)


def apply_operations(images: Tensor, draws: Tensor) -> Tensor:
    """Images uint8 (n, 3, H, W), each changed by its row of `draws` (n, 3); black comes in from outside."""
    operation, magnitude, is_negative = draws.unbind(1)
    sign = 1 - 2 * is_negative
    images = _moved(images, operation, magnitude, sign)
    images = _blended(images, operation, magnitude, sign)
    images = _with_fewer_levels(images, operation, magnitude)
    return _with_whole_range(images, operation)


def _levels(highest: float, magnitude: Tensor) -> Tensor:
    """The values of magnitudes by their numbers, float32 (n,): equal steps from 0 to the highest."""
    import torch

    return torch.linspace(0.0, highest, NUM_MAGNITUDES, device=magnitude.device)[magnitude]


def _moved(images: Tensor, operation: Tensor, magnitude: Tensor, sign: Tensor) -> Tensor:
    """The images sheared, translated or rotated; pixels are taken from the nearest place."""
    import torch
    import torch.nn.functional as F

    height, width = images.shape[2:]
    zero = torch.zeros(len(images), device=images.device)

    def drawn(number: int, values: Tensor) -> Tensor:
        return torch.where(operation == number, values * sign, zero)

    shear = _levels(MAX_SHARE, magnitude)
    pixels = _levels(MAX_PIXELS, magnitude).trunc()
    shear_x, shear_y = drawn(SHEAR_X, shear), drawn(SHEAR_Y, shear)
    angle = torch.deg2rad(drawn(ROTATE, _levels(MAX_DEGREES, magnitude)))
    # For each pixel, counted from the centre, the place that it is taken from; shears leave the top left corner.
    to_x = [angle.cos(), shear_x - angle.sin(), shear_x * height / 2 - drawn(TRANSLATE_X, pixels)]
    to_y = [shear_y + angle.sin(), angle.cos(), shear_y * width / 2 - drawn(TRANSLATE_Y, pixels)]
    matrix = torch.stack([torch.stack(to_x, dim=1) / (width / 2), torch.stack(to_y, dim=1) / (height / 2)], dim=1)
    rows, columns = (torch.arange(size, device=images.device) - (size - 1) / 2 for size in (height, width))
    places = torch.cartesian_prod(rows, columns, torch.ones(1, device=images.device))[:, [1, 0, 2]]
    grid = (places @ matrix.transpose(1, 2)).view(-1, height, width, 2)
    return F.grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)


def _blended(images: Tensor, operation: Tensor, magnitude: Tensor, sign: Tensor) -> Tensor:
    """The images mixed with black, gray, their mean gray or a blurred image, or moved away from it."""
    import torch

    pixels = images.float()
    red, green, blue = pixels.unbind(1)
    gray = (0.2989 * red + 0.587 * green + 0.114 * blue).floor()[:, None]
    others = {
        BRIGHTNESS: torch.zeros_like(gray),
        COLOR: gray,
        CONTRAST: gray.mean(dim=(1, 2, 3), keepdim=True),
        SHARPNESS: _blurred(pixels),
    }
    for number, other in others.items():
        is_drawn = operation == number
        weight = torch.where(is_drawn, -sign * _levels(MAX_SHARE, magnitude), 0.0).view(-1, 1, 1, 1)
        pixels = (pixels + weight * (other - pixels)).clamp(0, 255)
    return pixels.to(torch.uint8)


def _blurred(pixels: Tensor) -> Tensor:
    """Each pixel as the mean of its neighbours and five times itself, rounded; those of the border stay."""
    import torch
    import torch.nn.functional as F

    kernel = torch.ones(3, 1, 3, 3, device=pixels.device)
    kernel[..., 1, 1] = 5.0
    blurred = pixels.clone()
    blurred[..., 1:-1, 1:-1] = F.conv2d(pixels, kernel / 13, groups=3).round()
    return blurred


def _with_fewer_levels(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """The images with fewer bits for each value, or with their light values inverted."""
    import torch

    bits = torch.where(operation == POSTERIZE, _levels(6.0, magnitude).round(), 0.0).to(torch.uint8)
    images = (images >> bits.view(-1, 1, 1, 1)) << bits.view(-1, 1, 1, 1)
    share = torch.linspace(1.0, 0.0, NUM_MAGNITUDES, device=images.device)[magnitude]
    threshold = torch.where(operation == SOLARIZE, (255 * share.double()).float(), 256.0).view(-1, 1, 1, 1)
    return torch.where(images >= threshold, 255 - images, images)


def _with_whole_range(images: Tensor, operation: Tensor) -> Tensor:
    """The images with each channel stretched to all values, or with its values spread evenly."""
    import torch
    from torchvision.transforms.v2.functional import autocontrast, equalize

    for number, change in ((AUTO_CONTRAST, autocontrast), (EQUALIZE, equalize)):
        images = torch.where((operation == number).view(-1, 1, 1, 1), change(images), images)
    return images
