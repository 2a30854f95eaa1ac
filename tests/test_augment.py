"""Augmentation moves pixels as torch's pad, slice and flip do, image by image, with the given generator alone."""

from collections.abc import Iterator
from itertools import product
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_tune.augment import Augment, mean_and_std, sample

SIZE = 32
NONE = Augment(flip=False, crop_padding=0)
FLIP = Augment(flip=True, crop_padding=0)
every_augmentation = pytest.mark.parametrize(
    "augment",
    [
        None,
        NONE,
        FLIP,
        Augment(),
        Augment(flip=False, crop_padding=3),
        Augment(crop_padding=2, padding_mode="zero"),
        Augment(crop_padding=16),
    ],
    ids=str,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(n: int) -> Tensor:
    """uint8 (n, 32, 32, 3), as images lie in memory; no pixel is 0, which marks the zero padding."""
    return torch.randint(1, 256, (n, SIZE, SIZE, 3), generator=seeded(99), dtype=torch.uint8)


def seen(images: Tensor) -> Tensor:
    """The same images as the network sees them."""
    return images.permute(0, 3, 1, 2)


def crops(image: Tensor, padding: int, mode: Literal["reflect", "zero"]) -> dict[tuple[int, int], Tensor]:
    """Every crop of one image (3, 32, 32) by its corner, from torch's own padding."""
    how = "reflect" if mode == "reflect" else "constant"
    padded = F.pad(image[None].float(), (padding,) * 4, mode=how)[0].to(torch.uint8)
    corners = product(range(2 * padding + 1), repeat=2)
    return {(y, x): padded[:, y : y + SIZE, x : x + SIZE] for y, x in corners}


def origin(
    result: Tensor, image: Tensor, padding: int, mode: Literal["reflect", "zero"], flip: bool
) -> tuple[int, int, bool]:
    """The crop's corner and whether it was flipped; fails unless there is exactly one."""
    found = [
        (y, x, flipped)
        for flipped in ((False, True) if flip else (False,))
        for (y, x), crop in crops(image, padding, mode).items()
        if torch.equal(result, crop.flip(2) if flipped else crop)
    ]
    assert len(found) == 1
    return found[0]


@every_augmentation
def test_a_batch_is_bytes_of_the_images_asked_for(augment: Augment | None) -> None:
    images = random_images(10)
    before = images.clone()
    batch = sample(images, torch.tensor([7, 0, 7]), augment, seeded())
    assert (batch.shape, batch.dtype) == ((3, 3, SIZE, SIZE), torch.uint8)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


@pytest.mark.parametrize("augment", [None, NONE], ids=str)
def test_no_augmentation_gives_the_images_as_they_are(augment: Augment | None) -> None:
    images, indices = random_images(10), torch.tensor([3, 1, 9, 1])
    assert torch.equal(sample(images, indices, augment, seeded()), seen(images)[indices])


def test_an_evaluation_batch_needs_no_generator_and_draws_nothing() -> None:
    state = torch.get_rng_state()
    images = random_images(4)
    assert torch.equal(sample(images, torch.arange(4), None), seen(images))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_flip_turns_about_half_of_the_images_and_each_as_a_whole() -> None:
    images = random_images(400)
    batch = sample(images, torch.arange(400), FLIP, seeded())
    same = (batch == seen(images)).flatten(1).all(dim=1)
    turned = (batch == seen(images).flip(3)).flatten(1).all(dim=1)
    assert (same ^ turned).all()
    assert 160 < int(turned.sum()) < 240  # four standard deviations around 200


@pytest.mark.parametrize("mode", ["reflect", "zero"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [1, 4])
def test_a_crop_is_one_of_torchs(padding: int, flip: bool, mode: Literal["reflect", "zero"]) -> None:
    images = random_images(30)
    batch = sample(images, torch.arange(30), Augment(flip=flip, crop_padding=padding, padding_mode=mode), seeded())
    origins = [origin(batch[i], seen(images)[i], padding, mode, flip) for i in range(30)]
    assert len({(y, x) for y, x, _ in origins}) > 4
    assert {flipped for _, _, flipped in origins} == ({False, True} if flip else {False})


@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_the_widest_crop_is_one_of_torchs(mode: Literal["reflect", "zero"]) -> None:
    images = random_images(3)
    batch = sample(images, torch.arange(3), Augment(crop_padding=16, padding_mode=mode), seeded())
    assert len({origin(batch[i], seen(images)[i], 16, mode, flip=True) for i in range(3)}) == 3


def test_every_shift_comes_up_equally_often() -> None:
    """Of one image with no two pixels alike, the pixel in the middle tells the shift."""
    image = torch.arange(SIZE * SIZE).view(1, SIZE, SIZE, 1)
    coded = torch.cat([image // 256, image % 256, torch.zeros_like(image)], dim=3).to(torch.uint8)
    batch = sample(coded, torch.zeros(2500, dtype=torch.int64), Augment(flip=False, crop_padding=2), seeded()).long()
    middle = batch[:, 0, 16, 16] * 256 + batch[:, 1, 16, 16]
    counts = torch.bincount((middle // SIZE - 14) * 5 + middle % SIZE - 14, minlength=25)
    assert len(counts) == 25
    assert 60 < int(counts.min()) <= int(counts.max()) < 140  # four standard deviations around 100


def test_every_image_of_a_batch_is_drawn_for_itself() -> None:
    images = random_images(1)
    batch = sample(images, torch.zeros(40, dtype=torch.int64), Augment(crop_padding=2), seeded())
    assert len({origin(result, seen(images)[0], 2, "reflect", flip=True) for result in batch}) > 15


@every_augmentation
def test_the_generator_alone_decides(augment: Augment | None) -> None:
    images, indices = random_images(20), torch.arange(20)
    state = torch.get_rng_state()
    first = sample(images, indices, augment, seeded(5))
    torch.manual_seed(1)
    again = sample(images, indices, augment, seeded(5))
    torch.set_rng_state(state)
    other = sample(images, indices, augment, seeded(6))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (augment is None or augment == NONE)


def test_batches_that_follow_each_other_differ() -> None:
    images, generator = random_images(20), seeded()
    first, second = (sample(images, torch.arange(20), Augment(), generator) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("n", [1, 50])
def test_the_data_sets_mean_and_deviation_are_exact(n: int) -> None:
    images = random_images(n)
    pixels = images.numpy().astype(np.float64) / 255
    mean, std = mean_and_std("dataset", images)
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize(
    ("scaling", "low", "high"),
    [("unit", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), ("symmetric", (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))],
)
def test_the_fixed_scalings_map_black_and_white_to_their_ends(
    scaling: Literal["unit", "symmetric"], low: tuple[float, ...], high: tuple[float, ...]
) -> None:
    mean, std = mean_and_std(scaling, random_images(1))
    assert tuple((0 - m) / s for m, s in zip(mean, std, strict=True)) == low
    assert tuple((1 - m) / s for m, s in zip(mean, std, strict=True)) == high


def test_the_imagenet_scaling_is_the_published_one() -> None:
    mean, std = mean_and_std("imagenet", random_images(1))
    assert (tuple(mean), tuple(std)) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
