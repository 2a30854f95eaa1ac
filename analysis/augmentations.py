"""Compares every augmentation of a recipe with torchvision's transforms.v2, given the same random draws.

    uv run python analysis/augmentations.py

Images are random, of pure colours, and gray; draws are from the widest range of each option. The table has the largest
difference of any value, of 255: from v2 on float images, as ours are, and from v2 on uint8 images, which rounds.
"""

from collections.abc import Callable
from functools import partial

import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from cifar_tune.recipe.augment import Augment, Draws, apply, draw

SIZE, NUM_OF_EACH = 32, 300  # pixels, both ways; random images, images of pure colours, and gray ones
Transform = Callable[[Tensor, Tensor], Tensor]  # an image (3, H, W), float of 0..1 or uint8, and its row of the draw


def make_images() -> Tensor:
    """uint8 (n, 32, 32, 3): random values, values of 0 and 255 alone, and gray values."""
    generator = torch.Generator().manual_seed(0)
    shape = (NUM_OF_EACH, SIZE, SIZE, 3)
    noise = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    pure = 255 * torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8)
    return torch.cat([noise, pure, noise[..., :1].expand(shape)])


def crop(image: Tensor, shift: Tensor, padding: int, mode: str) -> Tensor:
    """v2's crop out of the padded image, at the drawn place."""
    padded = tv.pad(image, [padding], padding_mode=mode)
    rows, columns = (shift + padding).tolist()
    cropped: Tensor = tv.crop(padded, rows, columns, SIZE, SIZE)
    return cropped


def comparisons() -> dict[str, tuple[Augment, Transform]]:
    """Each augmentation by name: ours with no other option, and v2's function for one image."""

    def only(**options: object) -> Augment:
        return Augment(**{"flip": False, "crop_padding": 0, **options})

    return {
        "crop, reflect": (only(crop_padding=4), partial(crop, padding=4, mode="reflect")),
        "crop, zero": (only(crop_padding=4, padding_mode="zero"), partial(crop, padding=4, mode="constant")),
        "flip": (only(flip=True), lambda image, flips: tv.horizontal_flip(image) if flips else image),
        "brightness": (only(brightness=1), lambda image, factor: tv.adjust_brightness(image, factor.item())),
        "contrast": (only(contrast=1), lambda image, factor: tv.adjust_contrast(image, factor.item())),
        "saturation": (only(saturation=1), lambda image, factor: tv.adjust_saturation(image, factor.item())),
        "hue": (only(hue=0.5), lambda image, share: tv.adjust_hue(image, share.item())),
        "rotation": (only(rotation=180), partial(rotate, interpolation=tv.InterpolationMode.BILINEAR)),
        "rotation, v2's default": (only(rotation=180), partial(rotate, interpolation=tv.InterpolationMode.NEAREST)),
        "grayscale": (only(grayscale=0.5), lambda image, gray: tv.rgb_to_grayscale(image, 3) if gray else image),
    }


def rotate(image: Tensor, degrees: Tensor, interpolation: tv.InterpolationMode) -> Tensor:
    """v2's rotation about the centre with black outside."""
    rotated: Tensor = tv.rotate(image, degrees.item(), interpolation=interpolation)
    return rotated


def drawn(draws: Draws) -> Tensor:
    """The one draw that is not None, a row for each image."""
    values: dict[str, Tensor | None] = vars(draws)
    (rows,) = (value for value in values.values() if value is not None)
    return rows


def differences(images: Tensor, augment: Augment, transform: Transform) -> tuple[float, float]:
    """The largest difference of a value, of 255: from v2 on float images, and from v2 on uint8 images."""
    draws = draw(augment, len(images), torch.Generator().manual_seed(1), images.device)
    ours = apply(images, torch.arange(len(images)), augment, draws).float()
    rows, theirs = drawn(draws), images.permute(0, 3, 1, 2)
    floats = torch.stack([255 * transform(image.float() / 255, row) for image, row in zip(theirs, rows, strict=True)])
    whole = torch.stack([transform(image, row).float() for image, row in zip(theirs, rows, strict=True)])
    return (ours - floats).abs().max().item(), (ours - whole).abs().max().item()


def main() -> None:
    """Print the table."""
    images = make_images()
    print("| augmentation | v2, float | v2, uint8 |\n|---|---|---|")
    for name, (augment, transform) in comparisons().items():
        floats, whole = differences(images, augment, transform)
        print(f"| {name} | {floats:.4f} | {whole:.4f} |", flush=True)


if __name__ == "__main__":
    main()
