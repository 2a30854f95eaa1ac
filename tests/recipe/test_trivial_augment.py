"""Each operation changes bytes as torchvision's TrivialAugmentWide does, and each image has a draw of its own."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, TrivialAugmentWide

from cifar_tune.recipe.augment import Augment, apply, draw
from cifar_tune.recipe.trivial_augment import NUM_MAGNITUDES, NUM_OPERATIONS, apply_operations, draw_operations

CPU = torch.device("cpu")
SPACE = TrivialAugmentWide._AUGMENTATION_SPACE
NAMES = list(SPACE)
EXACT = {"Identity", "Posterize", "Solarize", "AutoContrast", "Equalize", "TranslateX", "TranslateY"}
ROUNDED = {"Brightness", "Color", "Contrast", "Sharpness"}  # down, so that a hair below a whole number makes 1


def images_of(size: int) -> Tensor:
    """uint8 (9, 3, size, size): random values, a smooth image, and one of a single colour."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randint(0, 256, (7, 3, size, size), generator=generator, dtype=torch.uint8)
    ramp = torch.linspace(40, 200, size * size).view(1, 1, size, size).expand(1, 3, size, size).to(torch.uint8)
    return torch.cat([noise, ramp, torch.full((1, 3, size, size), 77, dtype=torch.uint8)])


def by_torchvision(image: Tensor, name: str, number: int, sign: int) -> Tensor:
    """What torchvision makes of one image (3, H, W) with the operation of that name."""
    magnitudes, is_signed = SPACE[name]
    levels = magnitudes(NUM_MAGNITUDES, *image.shape[1:])
    magnitude = 0.0 if levels is None else float(levels[number]) * (sign if is_signed else 1)
    transform = TrivialAugmentWide()
    changed: Tensor = transform._apply_image_or_video_transform(
        image, name, magnitude, interpolation=InterpolationMode.NEAREST, fill={}
    )
    return changed


@pytest.mark.parametrize("size", [32, 47])
@pytest.mark.parametrize("name", NAMES)
def test_is_torchvisions(name: str, size: int) -> None:
    images, (differ, most) = images_of(size), (0, 0)
    numbers = range(0, NUM_MAGNITUDES, 3)
    for number in numbers:
        for negative in (0, 1):
            draws = torch.tensor([[NAMES.index(name), number, negative]]).expand(len(images), 3)
            ours = apply_operations(images, draws)
            theirs = torch.stack([by_torchvision(image, name, number, 1 - 2 * negative) for image in images])
            difference = (ours.int() - theirs.int()).abs()
            differ, most = differ + int((difference > 0).sum()), max(most, int(difference.max()))
    share = differ / (images.numel() * len(numbers) * 2)
    if name in EXACT:
        assert most == 0
    elif name in ROUNDED:
        assert most <= 1
        assert share < 0.01
    else:  # the nearest of two places that are equally far
        assert share < 0.01


def test_an_image_has_its_own_operation_whatever_is_beside_it() -> None:
    images = images_of(32)
    draws = draw_operations(len(images), torch.Generator().manual_seed(1), CPU)
    together = apply_operations(images, draws)
    alone = torch.cat([apply_operations(images[i : i + 1], draws[i : i + 1]) for i in range(len(images))])
    assert torch.equal(together, alone)


def test_every_operation_and_magnitude_is_drawn_equally_often() -> None:
    draws = draw_operations(100_000, torch.Generator().manual_seed(1), CPU)
    for column, number in enumerate((NUM_OPERATIONS, NUM_MAGNITUDES, 2)):
        shares = torch.bincount(draws[:, column], minlength=number) / len(draws)
        assert len(shares) == number
        assert torch.allclose(shares, torch.tensor(1 / number), atol=0.005)


def test_augment_applies_it_after_the_flip_and_keeps_bytes() -> None:
    images = images_of(32).permute(0, 2, 3, 1).contiguous()
    generator = torch.Generator().manual_seed(3)
    augment = Augment(flip=True, crop_padding=0, trivial_augment=True)
    draws = draw(augment, len(images), generator, CPU)
    seen = apply(images, torch.arange(len(images)), augment, draws)
    assert draws.flip is not None
    assert draws.trivial_augment is not None
    flipped = torch.where(draws.flip.view(-1, 1, 1, 1), images_of(32).flip(-1), images_of(32))
    assert seen.dtype == torch.uint8
    assert torch.equal(seen, apply_operations(flipped, draws.trivial_augment))
