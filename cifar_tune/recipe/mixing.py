"""Mixing: each training image is blended with another of its batch, and so is its label.

Each kind is a class with its own options. What a step draws depends on the recipe's seed and the step's number alone,
so that a resumed run goes on as if nothing had happened. The partner of an image is the one before it in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from cifar_tune.recipe.options import Options, Positive

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass(frozen=True)
class Mix:
    """How a step mixes: its own image and label have the weight `share`, the partner's the rest.

    With a `box`, the partner's pixels are taken inside it, and the own ones outside; without one, all are blended.
    """

    share: float
    box: Box | None = None

    def partners(self, values: Tensor) -> Tensor:
        """What belongs to the partners, of images or labels (n, ...)."""
        return values.roll(1, 0)

    def inputs(self, inputs: Tensor) -> Tensor:
        """Images (n, 3, H, W), mixed."""
        partners = self.partners(inputs)
        if self.box is None:
            return inputs.lerp(partners, 1 - self.share)
        top, left, bottom, right = self.box
        mixed = inputs.clone()
        mixed[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
        return mixed


class NoMixing(Options):
    """Images stay as they are."""

    name: Literal["none"] = "none"

    def draw(self, seed: int, step: int, image_size: int) -> Mix | None:
        """No mix."""
        return None


class MixUp(Options):
    """Blends whole images (Zhang et al., arXiv:1710.09412); the share of each step is drawn from Beta(alpha, alpha)."""

    name: Literal["mixup"] = "mixup"
    alpha: Positive = 0.2

    def draw(self, seed: int, step: int, image_size: int) -> Mix | None:
        """One share for the whole batch, as in torchvision's."""
        return Mix(float(np.random.default_rng([seed, step]).beta(self.alpha, self.alpha)))


class CutMix(Options):
    """Pastes a box of one image into another (Yun et al., arXiv:1905.04899), of a share from Beta(alpha, alpha).

    The box may reach over the image's edge; then the labels' share is that of the pixels that are left.
    """

    name: Literal["cutmix"] = "cutmix"
    alpha: Positive = 1.0

    def draw(self, seed: int, step: int, image_size: int) -> Mix | None:
        """One box for the whole batch, as in torchvision's."""
        random = np.random.default_rng([seed, step])
        half = int(0.5 * np.sqrt(1 - random.beta(self.alpha, self.alpha)) * image_size)
        (row, column) = random.integers(0, image_size, 2)
        return boxed(int(row), int(column), half, image_size)


def boxed(row: int, column: int, half: int, image_size: int) -> Mix:
    """The mix with a box around a pixel, `half` to each side as far as the image goes."""
    top, left = max(0, row - half), max(0, column - half)
    bottom, right = min(image_size, row + half), min(image_size, column + half)
    return Mix(1 - (bottom - top) * (right - left) / image_size**2, (top, left, bottom, right))


Mixing = Annotated[NoMixing | MixUp | CutMix, Field(discriminator="name")]
