"""Augmentation changes images as torch's pad, slice and flip and as torchvision's transforms do, one image at a time.

Every image has its own draw, and the given generator alone decides.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from itertools import product
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tv
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import v2

from cifar_tune.recipe.augment import Augment, Draws, apply, draw, mean_and_std, sample

SIZE = 32
CPU = torch.device("cpu")
NONE = Augment(flip=False, crop_padding=0)
FLIP = Augment(flip=True, crop_padding=0)
MOVES = [
    FLIP,
    Augment(),
    Augment(flip=False, crop_padding=3),
    Augment(crop_padding=2, padding_mode="zero"),
    Augment(crop_padding=16),
]

# In the order of their application: the widest range, and torchvision's own for one image (3, H, W) of 0..1.
REFERENCES: dict[str, tuple[float, Callable[[Tensor, float], Tensor]]] = {
    "brightness": (1.0, tv.adjust_brightness),
    "contrast": (1.0, tv.adjust_contrast),
    "saturation": (1.0, tv.adjust_saturation),
    "hue": (0.5, tv.adjust_hue),
    "rotation": (180.0, partial(tv.rotate, interpolation=tv.InterpolationMode.BILINEAR)),
    "grayscale": (0.5, lambda image, gray: tv.rgb_to_grayscale(image, 3) if gray else image),
}
# Of 255. torchvision's gray weighs red with 0.2989, kornia's with 0.299, which makes 0.026; the rest is for rounding.
TOLERANCE = 0.05
RANGES = {name: widest for name, (widest, _) in REFERENCES.items()}
COLOURS = [Augment(flip=False, crop_padding=0, **{name: x}) for name, x in RANGES.items()]
EVERYTHING = Augment(**RANGES)
COVERS = [Augment(flip=False, crop_padding=0, **each) for each in ({"cutout": 9}, {"erasing": 0.7})]
every_option = pytest.mark.parametrize("name", REFERENCES)
every_augmentation = pytest.mark.parametrize("augment", [None, NONE, *MOVES, *COVERS, *COLOURS, EVERYTHING], ids=str)
every_change = pytest.mark.parametrize("augment", [*MOVES, *COLOURS, EVERYTHING], ids=str)


def only(name: str) -> Augment:
    """One option of REFERENCES at its widest range, and nothing else."""
    return COLOURS[list(REFERENCES).index(name)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(n: int) -> Tensor:
    """uint8 (n, 32, 32, 3), as images lie in memory; no pixel is 0, which marks the zero padding."""
    return torch.randint(1, 256, (n, SIZE, SIZE, 3), generator=seeded(99), dtype=torch.uint8)


def saturated_images(n: int) -> Tensor:
    """The same, of black, white and the six pure colours alone, where clamping and hue have their corner cases."""
    return 255 * torch.randint(0, 2, (n, SIZE, SIZE, 3), generator=seeded(98), dtype=torch.uint8)


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
    sources = [
        (y, x, flipped)
        for flipped in ((False, True) if flip else (False,))
        for (y, x), crop in crops(image, padding, mode).items()
        if torch.equal(result, crop.flip(2) if flipped else crop)
    ]
    assert len(sources) == 1
    return sources[0]


def step_by_step(image: Tensor, draws: Draws, row: int) -> Tensor:
    """One image (3, H, W) of 0..255 through torchvision's transforms, in their documented order."""
    pixels = image.float() / 255
    for name, (_, reference) in REFERENCES.items():
        drawn = getattr(draws, name)
        if drawn is not None:
            pixels = reference(pixels, drawn[row].item())
    return 255 * pixels


@every_augmentation
@pytest.mark.parametrize("indices", [[7, 0, 7], [3]], ids=str)
def test_a_batch_is_of_the_images_asked_for_in_memory_of_its_own(augment: Augment | None, indices: list[int]) -> None:
    images = random_images(10)
    before = images.clone()
    batch = sample(images, torch.tensor(indices), augment, seeded())
    assert batch.shape == (len(indices), 3, SIZE, SIZE)
    assert batch.dtype == (torch.float32 if augment in [*COLOURS, EVERYTHING] else torch.uint8)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    batch.zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize("augment", [None, NONE], ids=str)
def test_no_augmentation_gives_the_images_as_they_are(augment: Augment | None) -> None:
    images, indices = random_images(10), torch.tensor([3, 1, 9, 1])
    assert torch.equal(sample(images, indices, augment, seeded()), seen(images)[indices])


def test_where_every_option_is_off_nothing_is_drawn_or_changed() -> None:
    images, indices, generator = random_images(10), torch.tensor([3, 1, 9, 1]), seeded()
    draws = draw(NONE, 4, generator, CPU)
    assert NONE.changes_nothing
    assert draws == Draws()
    assert torch.equal(generator.get_state(), seeded().get_state())
    assert torch.equal(apply(images, indices, NONE, draws), seen(images)[indices])


@every_change
def test_any_option_that_is_on_changes_something(augment: Augment) -> None:
    images = random_images(10)
    assert not augment.changes_nothing
    assert not torch.equal(sample(images, torch.arange(10), augment, seeded()), seen(images))


def test_every_option_of_colour_and_rotation_has_its_reference() -> None:
    others = ("flip", "crop_padding", "padding_mode", "trivial_augment", "cutout", "erasing")
    options = [name for name in Augment.model_fields if name not in others]
    assert options == list(REFERENCES) == [field.name for field in fields(Draws)][3:-2]


@pytest.mark.parametrize("augment", COVERS, ids=str)
def test_what_is_covered_is_what_torchvision_erases(augment: Augment) -> None:
    images, indices = random_images(40), torch.arange(40)
    draws = draw(augment, 40, seeded(), CPU)
    result = apply(images, indices, augment, draws, (0.1, 0.5, 0.9))
    colour = (255 * torch.tensor([0.1, 0.5, 0.9])).round().to(torch.uint8).view(3, 1, 1)
    sides = draws.cutout if draws.cutout is not None else draws.erasing
    assert sides is not None
    for image, ours, (top, left, bottom, right) in zip(
        seen(images), result, sides.clamp(0, SIZE).tolist(), strict=True
    ):
        assert torch.equal(ours, tv.erase(image, top, left, bottom - top, right - left, colour))


def test_coloured_images_are_covered_last_and_not_rounded() -> None:
    images = random_images(4)
    batch = sample(images, torch.arange(4), Augment(brightness=0.5, cutout=32), seeded(), (0.1, 0.5, 0.9))
    corners = (batch == 255 * torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1)).all(dim=1)
    assert (corners.flatten(1).sum(dim=1) >= 16 * 16).all()


def test_a_square_of_cutout_is_around_any_pixel_and_cut_at_the_edge() -> None:
    sides = draw(Augment(cutout=8), 5_000, seeded(), CPU).cutout
    assert sides is not None
    assert (sides[:, 2:] - sides[:, :2] == 8).all()
    assert sorted(set(sides[:, 0].tolist())) == sorted(set(sides[:, 1].tolist())) == list(range(-4, SIZE - 4))


def test_rectangles_of_random_erasing_have_torchvisions_shares_and_ratios() -> None:
    """A sample of torchvision's own has the same quantiles of the area and of the ratio of the sides."""
    draws = draw(Augment(erasing=0.3), 20_000, seeded(), CPU).erasing
    assert draws is not None
    height, width = (draws[:, 2:] - draws[:, :2]).T
    covered = height > 0
    assert float(covered.float().mean()) == pytest.approx(0.3, abs=0.015)
    assert (draws >= 0).all()
    assert (draws <= SIZE).all()
    torch.manual_seed(0)
    params = [v2.RandomErasing.make_params(v2.RandomErasing(p=1), [torch.zeros(3, SIZE, SIZE)]) for _ in range(4_000)]
    theirs = torch.tensor([[each["h"], each["w"]] for each in params]).float()
    ours = torch.stack([height[covered], width[covered]], dim=1).float()
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    for signs in ([1.0, 1.0], [1.0, -1.0]):  # logarithms of the area and of the ratio
        measured = [(sides.log() @ torch.tensor(signs)).quantile(levels) for sides in (ours, theirs)]
        torch.testing.assert_close(*measured, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [*product(["brightness", "contrast", "saturation", "grayscale"], [-0.1, 1.1]), ("hue", 0.6), ("rotation", 181)],
)
def test_a_range_beyond_the_widest_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        Augment(**{name: value})


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


@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_flips_are_drawn_before_the_shifts_of_rows_and_columns(mode: Literal["reflect", "zero"]) -> None:
    """The order of the first draws is fixed, so that a recipe of flip and crop keeps its metrics bit for bit."""
    images, generator = random_images(20), seeded(3)
    flipped = torch.rand(20, 1, generator=generator) < 0.5
    shift = 4 + torch.randint(-4, 5, (2, 20, 1), generator=generator)
    batch = sample(images, torch.arange(20), Augment(padding_mode=mode), seeded(3))
    for i, image in enumerate(seen(images)):
        crop = crops(image, 4, mode)[int(shift[0, i]), int(shift[1, i])]
        assert torch.equal(batch[i], crop.flip(2) if flipped[i] else crop)


def test_colour_and_rotation_leave_the_draws_of_flip_and_crop_as_they_are() -> None:
    plain, coloured = (vars(draw(augment, 20, seeded(), CPU)) for augment in (Augment(), EVERYTHING))
    assert all(torch.equal(plain[name], coloured[name]) for name in ("flip", "shift"))


@every_option
@pytest.mark.parametrize("make_images", [random_images, saturated_images])
def test_an_option_is_torchvisions(name: str, make_images: Callable[[int], Tensor]) -> None:
    images, draws = make_images(24), draw(only(name), 24, seeded(), CPU)
    batch = apply(images, torch.arange(24), only(name), draws)
    expected = torch.stack([step_by_step(image, draws, i) for i, image in enumerate(seen(images))])
    torch.testing.assert_close(batch, expected, rtol=0, atol=TOLERANCE, check_stride=False)


def test_all_of_them_are_applied_in_their_documented_order() -> None:
    augment = Augment(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.3, rotation=40, grayscale=0.2)
    images, indices, draws = random_images(24), torch.arange(24), draw(augment, 24, seeded(), CPU)
    moved = apply(images, indices, augment, Draws(flip=draws.flip, shift=draws.shift))
    expected = torch.stack([step_by_step(image, draws, i) for i, image in enumerate(moved)])
    batch = apply(images, indices, augment, draws)
    torch.testing.assert_close(batch, expected, rtol=0, atol=3 * TOLERANCE, check_stride=False)


@pytest.mark.parametrize("quarters", [-1, 1, 2])
def test_quarter_turns_move_every_pixel_to_its_place(quarters: int) -> None:
    images, draws = random_images(1), Draws(rotation=torch.tensor([90.0 * quarters]))
    batch = apply(images, torch.tensor([0]), only("rotation"), draws)
    turned = seen(images).rot90(quarters, (2, 3)).float()
    # The cosine is not quite 0 in float32: a little of the neighbours is blended in.
    torch.testing.assert_close(batch, turned, rtol=0, atol=TOLERANCE, check_stride=False)


@every_option
def test_every_image_gets_a_value_of_its_own(name: str) -> None:
    batch = sample(random_images(1), torch.zeros(40, dtype=torch.int64), only(name), seeded())
    assert len({image.numpy().tobytes() for image in batch}) == (2 if name == "grayscale" else 40)


@pytest.mark.parametrize(
    ("name", "middle"), [("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0), ("rotation", 0)]
)
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_values_fill_their_range_evenly(name: str, middle: float, share: float) -> None:
    bound = share * RANGES[name]
    drawn = getattr(draw(Augment(**{name: bound}), 4000, seeded(), CPU), name)
    tenths = torch.histc((drawn - middle) / bound, bins=10, min=-1.00001, max=1.00001)
    assert tenths.sum() == 4000
    assert 320 < int(tenths.min()) <= int(tenths.max()) < 480  # four standard deviations around 400


@pytest.mark.parametrize(("probability", "low", "high"), [(0.1, 62, 138), (0.5, 437, 563), (1.0, 1000, 1000)])
def test_grayscale_comes_up_with_its_probability(probability: float, low: int, high: int) -> None:
    augment = Augment(flip=False, crop_padding=0, grayscale=probability)
    batch = sample(random_images(1), torch.zeros(1000, dtype=torch.int64), augment, seeded())
    gray = (batch == batch[:, :1]).flatten(1).all(dim=1)
    assert low <= int(gray.sum()) <= high  # four standard deviations


@pytest.mark.parametrize("augment", [*COLOURS, EVERYTHING], ids=str)
def test_the_widest_ranges_stay_between_black_and_white(augment: Augment) -> None:
    images = torch.cat([random_images(50), saturated_images(50)])
    batch = sample(images, torch.arange(100), augment, seeded())
    assert batch.isfinite().all()
    assert 0 <= float(batch.min()) < 1
    assert 254 < float(batch.max()) <= 255


@every_change
def test_some_of_the_views_are_those_of_all(augment: Augment) -> None:
    """Views that were drawn once can be asked for in any batch."""
    images, indices, draws = random_images(20), torch.tensor([11, 3, 3, 19]), draw(augment, 20, seeded(), CPU)
    views = apply(images, torch.arange(20), augment, draws)
    some = apply(images, indices, augment, draws.take(indices))
    # Bytes are equal; a vector instruction may round a float otherwise than the loop's last elements.
    torch.testing.assert_close(some, views[indices], rtol=0, atol=1e-3)


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


def test_a_channel_with_one_value_alone_is_only_shifted() -> None:
    images = random_images(4)
    images[..., 1] = 70
    mean, std = mean_and_std("dataset", images)
    assert mean[1] == pytest.approx(70 / 255)
    assert std[1] == 1.0
    assert std[0] < 0.5
