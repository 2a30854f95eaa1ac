"""The built-in data set `shapes`: ten classes of 32×32 colour images, drawn by a fixed program.

The program uses integer arithmetic and numpy's frozen legacy generator only, so the bytes are the same on every
machine. Any change to what is drawn makes another data set and needs another `VERSION`.

A class looks the same mirrored, because training flips images. An image shows one shape at a random place, size,
stretch and contrast (lighter than the background three times in four) on a sloped, blotched and noisy background, with
small blobs behind it and thin bars before it. The background has a tint of the class, as the sky has for CIFAR's
ships. Without it, training stays at chance through its first epoch and a pruning rule would judge noise.

Mini-ResNet with Adam at 1e-3 reaches 78.6, 81.8 and 82.1 % (three seeds) after 5 epochs of 9,000 images, and 80 to
89 % in epochs 6 to 15; after 5 epochs at 1e-5 it is 15 %, after 2 at 0.3 it is 11 %; a linear classifier 18 %.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

VERSION = "1"
SIZE = 32
SEEDS = {"train": 20_001, "test": 20_002}
IMAGES_PER_CLASS = {"train": 1_000, "test": 200}

Ints = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

# Whether a pixel is inside a class's shape, by its offsets (u to the right, v down) from the centre and the radius.
CLASSES: dict[str, Callable[[Ints, Ints, Ints], Mask]] = {
    "disc": lambda u, v, r: u * u + v * v <= r * r,
    "ring": lambda u, v, r: (u * u + v * v <= r * r) & (4 * (u * u + v * v) >= r * r),
    "square": lambda u, v, r: 8 * np.maximum(abs(u), abs(v)) <= 7 * r,
    "frame": lambda u, v, r: (8 * np.maximum(abs(u), abs(v)) <= 7 * r) & (2 * np.maximum(abs(u), abs(v)) >= r),
    "diamond": lambda u, v, r: 5 * (abs(u) + abs(v)) <= 6 * r,
    "plus": lambda u, v, r: (np.maximum(abs(u), abs(v)) <= r) & (3 * np.minimum(abs(u), abs(v)) <= r),
    "cross": lambda u, v, r: (np.maximum(abs(u), abs(v)) <= r) & (5 * abs(abs(u) - abs(v)) <= 2 * r),
    "triangle up": lambda u, v, r: (abs(v) <= r) & (2 * abs(u) <= v + r),
    "triangle down": lambda u, v, r: (abs(v) <= r) & (2 * abs(u) <= r - v),
    "bars": lambda u, v, r: (abs(u) <= r) & (abs(v) <= r) & (3 * abs(v) >= r),
}


def generate(part: Literal["train", "test"]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All images (uint8, N×3×32×32) and labels (int64) of a part, in a fixed shuffled order."""
    random = np.random.RandomState(SEEDS[part])
    count = IMAGES_PER_CLASS[part]
    images = np.concatenate([_draw(label, count, random) for label in range(len(CLASSES))])
    labels = np.repeat(np.arange(len(CLASSES), dtype=np.int64), count)
    order = random.permutation(len(labels))
    return images[order], labels[order]


def _draw(label: int, count: int, random: np.random.RandomState) -> npt.NDArray[np.uint8]:
    canvas, foreground = _colours(label, count, random)
    _paint(canvas, _blobs(count, random), _any_colour(count, random))
    _paint(canvas, _blobs(count, random), _any_colour(count, random))
    _paint(canvas, _shape(list(CLASSES.values())[label], count, random), foreground)
    _paint(canvas, _bar(count, random), _any_colour(count, random))
    _paint(canvas, _bar(count, random), _any_colour(count, random))
    canvas += _blotches(count, random) + _noise(count, random)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _integers(random: np.random.RandomState, low: int, high: int, *shape: int) -> Ints:
    """Uniform integers from low to high, both included; the explicit type gives the same ones on every platform."""
    return random.randint(low, high + 1, size=shape, dtype=np.int32)


def _colours(label: int, count: int, random: np.random.RandomState) -> tuple[Ints, Ints]:
    """The sloped background of each image, and a colour that is lighter or darker by a random contrast."""
    base = _integers(random, 70, 185, count, 3, 1, 1) + _tint(label)
    slope_x, slope_y = _integers(random, -2, 2, 2, count, 3, 1, 1)
    x = np.arange(SIZE, dtype=np.int32) - SIZE // 2
    background = base + slope_x * x + slope_y * x[:, None]
    lighter = _integers(random, 0, 3, count, 1, 1, 1) > 0
    contrast = _integers(random, 12, 100, count, 3, 1, 1)
    return background, base + np.where(lighter, contrast, -contrast)


def _tint(label: int) -> Ints:
    """The class's tint: the digits of its label to base three, less one, times 16."""
    return 16 * np.array([label % 3 - 1, label // 3 % 3 - 1, label // 9 - 1], np.int32)[:, None, None]


def _offsets(count: int, margin: int, random: np.random.RandomState) -> tuple[Ints, Ints]:
    """Offsets (to the right, down) of every pixel from a random centre, in half pixels.

    The centre is at least `margin` pixels from the border.
    """
    grid = 2 * np.arange(SIZE, dtype=np.int32)
    centre_x, centre_y = _integers(random, 2 * margin, 2 * (SIZE - 1 - margin), 2, count, 1, 1)
    return grid - centre_x, grid[:, None] - centre_y


def _shape(inside: Callable[[Ints, Ints, Ints], Mask], count: int, random: np.random.RandomState) -> Mask:
    u, v = _offsets(count, 10, random)
    stretch_x, stretch_y = _integers(random, 7, 9, 2, count, 1, 1)
    radius = _integers(random, 8, 20, count, 1, 1)
    return inside(u * stretch_x, v * stretch_y, 8 * radius)


def _blobs(count: int, random: np.random.RandomState) -> Mask:
    u, v = _offsets(count, 2, random)
    radius = _integers(random, 3, 8, count, 1, 1)
    return u * u + v * v <= radius * radius


def _bar(count: int, random: np.random.RandomState) -> Mask:
    """A bar across the image, one or two pixels wide, horizontal or vertical."""
    u, v = _offsets(count, 4, random)
    upright = _integers(random, 0, 1, count, 1, 1) == 1
    width = _integers(random, 1, 3, count, 1, 1)
    return abs(np.where(upright, u, v)) < width


def _any_colour(count: int, random: np.random.RandomState) -> Ints:
    return _integers(random, 40, 215, count, 3, 1, 1)


def _blotches(count: int, random: np.random.RandomState) -> Ints:
    """Coarse texture: one random offset for each 4×4 square and channel."""
    coarse = _integers(random, -12, 12, count, 3, SIZE // 4, SIZE // 4)
    return coarse.repeat(4, axis=2).repeat(4, axis=3)


def _noise(count: int, random: np.random.RandomState) -> Ints:
    """Noise of every pixel and channel, with a strength drawn for each image."""
    strength = _integers(random, 0, 5, count, 1, 1, 1)
    return _integers(random, -16, 16, count, 3, SIZE, SIZE) * strength // 2


def _paint(canvas: Ints, mask: Mask, colour: Ints) -> None:
    np.copyto(canvas, colour, where=mask[:, None])
