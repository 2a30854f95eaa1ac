"""What a network, or its head, is given: images that lie on the training device, augmented and scaled, or features.

`Pixels` and `Features` answer the same two questions, so that the training loop need not know which it trains on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cifar_tune.data.images import Images, TrainingData
from cifar_tune.recipe.augment import Draws, apply, draw, mean_and_std, sample
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.training.features import FeatureCache

VIEWS_SEED = 9_000  # the views of an image are the same in every trial, whatever its seed


@dataclass(frozen=True)
class DeviceImages:
    """Images as they lie on the training device: uint8 (N, 32, 32, 3), labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    @classmethod
    def place(cls, images: Images, device: torch.device) -> "DeviceImages":
        """Channels last, so that one pixel is three neighbouring bytes and a crop is a gather."""
        pixels = np.ascontiguousarray(images.images.transpose(0, 2, 3, 1))
        return cls(torch.from_numpy(pixels).to(device), torch.from_numpy(np.array(images.labels)).to(device))

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the pixels, computed when features are first kept under it."""
        return hashlib.sha256(self.images.cpu().numpy().data).hexdigest()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DeviceData:
    """TrainingData on the training device; every run on it shares the same memory."""

    dataset: str
    train: DeviceImages
    val: DeviceImages
    num_classes: int
    device: torch.device

    @classmethod
    def place(cls, data: TrainingData, device: torch.device) -> "DeviceData":
        """One copy to the device."""
        train, val = (DeviceImages.place(images, device) for images in (data.train, data.val))
        return cls(data.dataset, train, val, data.num_classes, device)


class Normalization(nn.Module):
    """Pixels (n, 3, H, W) of 0 to 255 as a network sees them: float32, less the channel's mean, over its deviation.

    `mean` and `std` are of pixels in [0, 1].
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        scale = torch.tensor([1 / (255 * s) for s in std])
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
        self.register_buffer("scale", scale.view(3, 1, 1))
        self.register_buffer("shift", shift.view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """A new tensor; pixels that are float32 already are overwritten."""
        return pixels.float().mul_(self.scale).add_(self.shift)


class Inputs(Protocol):
    """The batches of a run."""

    def train(self, indices: Tensor, epoch: int) -> Tensor:
        """The training images at `indices` (n,) as epoch `epoch` (from 0) of the run sees them."""

    def plain(self, images: DeviceImages, indices: Tensor) -> Tensor:
        """Images as they are evaluated."""


class Pixels:
    """Scaled float images (n, 3, H, W), augmented for training with draws of the run's generator."""

    def __init__(self, recipe: Recipe, data: DeviceData, generator: torch.Generator) -> None:
        self._augment = recipe.augment
        self._train = data.train
        self._generator = generator
        mean, std = mean_and_std(recipe.scaling, data.train.images)
        self.mean, self.std = tuple(mean), tuple(std)
        self._normalize = Normalization(mean, std).to(data.device)
        self._views: dict[int, Draws] = {}

    def train(self, indices: Tensor, epoch: int) -> Tensor:
        """With new draws."""
        return self._normalized(sample(self._train.images, indices, self._augment, self._generator))

    def view(self, number: int, indices: Tensor) -> Tensor:
        """Training images in one of their fixed views."""
        if number not in self._views:
            generator = torch.Generator(indices.device).manual_seed(VIEWS_SEED + number)
            self._views[number] = draw(self._augment, len(self._train), generator, indices.device)
        draws = self._views[number].take(indices)
        return self._normalized(apply(self._train.images, indices, self._augment, draws))

    def plain(self, images: DeviceImages, indices: Tensor) -> Tensor:
        """Not augmented."""
        return self._normalized(sample(images.images, indices, None))

    def _normalized(self, pixels: Tensor) -> Tensor:
        normalized: Tensor = self._normalize(pixels)
        return normalized


class Features:
    """What a frozen backbone makes of Pixels: (n, F), without gradients.

    With a cache they are computed once and kept: of plain images always, of training images where they are fixed.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DeviceData,
        pixels: Pixels,
        backbone: nn.Module,
        backbone_key: Mapping[str, Any],
        cache: FeatureCache | None,
    ) -> None:
        self._recipe = recipe
        self._is_fixed, self._num_views = recipe.has_fixed_features, recipe.num_views
        self._train = data.train
        self._pixels = pixels
        self._backbone = backbone
        self._cache = cache
        self._known: dict[str, Tensor] = {}
        self._key = {
            "backbone": dict(backbone_key),
            "mean and std": [pixels.mean, pixels.std],
            "computed in": f"{recipe.precision} on {data.device.type}",
        }

    def train(self, indices: Tensor, epoch: int) -> Tensor:
        """Of fixed images from the cache, the next view in each epoch; of newly augmented ones computed now."""
        if not self._is_fixed:
            return self._compute(self._pixels.train(indices, epoch))
        return self._of(self._train, indices, epoch % (self._num_views or 1), self._num_views)

    def plain(self, images: DeviceImages, indices: Tensor) -> Tensor:
        """Of images as they are evaluated."""
        return self._of(images, indices, 0, None)

    def _of(self, images: DeviceImages, indices: Tensor, view: int, num_views: int | None) -> Tensor:
        if self._cache is None:
            return self._compute(self._fixed_pixels(images, indices, view, num_views))
        name = f"{images.digest}, {num_views} views"
        if name not in self._known:
            key = {**self._key, "images": images.digest, "views": num_views and [num_views, self._augment()]}
            with torch.inference_mode(False):  # an evaluation may ask first; the head is trained on the same tensor
                self._known[name] = self._cache.get(
                    key, images.images.device, lambda: self._compute_all(images, num_views)
                )
        return self._known[name][view, indices]

    def _augment(self) -> dict[str, Any]:
        return {"seed": VIEWS_SEED, **self._recipe.augment.model_dump()}

    def _fixed_pixels(self, images: DeviceImages, indices: Tensor, view: int, num_views: int | None) -> Tensor:
        return self._pixels.plain(images, indices) if num_views is None else self._pixels.view(view, indices)

    def _compute_all(self, images: DeviceImages, num_views: int | None) -> Tensor:
        """(views, N, F), in the order of the images, in memory once: they may be gigabytes."""
        features: Tensor | None = None
        batches = torch.split(
            torch.arange(len(images), device=images.images.device), self._recipe.model.evaluation_batch
        )
        for view, indices in product(range(num_views or 1), batches):
            found = self._compute(self._fixed_pixels(images, indices, view, num_views))
            if features is None:
                features = found.new_empty(num_views or 1, len(images), found.shape[1])
            features[view, indices] = found
        assert features is not None
        return features

    @torch.no_grad()  # not in inference mode, whose tensors the head could not be trained on
    def _compute(self, pixels: Tensor) -> Tensor:
        self._backbone.eval()  # whoever asks: what is computed may be kept
        with autocast(self._recipe, pixels.device):
            features: Tensor = self._backbone(pixels)
        return features


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """bfloat16 where the recipe wants mixed precision and the device is a GPU."""
    mixed = recipe.precision == "mixed" and device.type == "cuda"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed)
