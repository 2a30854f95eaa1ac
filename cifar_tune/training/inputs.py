"""The inputs of a network, or of its head: images on the training device, augmented and normalized, or features.

`Pixels` and `Features` have the same two methods, so the training loop does not need to know which it trains on.
"""

import hashlib
import warnings
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

VIEWS_SEED = 9_000  # so that an image's views are the same in every trial, whatever the recipe's seed


@dataclass(frozen=True)
class DeviceImages:
    """Images on the training device: uint8 (N, S, S, 3), and their labels, int64 (N,)."""

    images: Tensor
    labels: Tensor

    @classmethod
    def place(cls, images: Images, device: torch.device) -> "DeviceImages":
        """Images on the device, channels last as a network takes them; on a CPU without a copy where they are so."""
        pixels = np.ascontiguousarray(images.images.transpose(0, 2, 3, 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that what Ray's workers share cannot be written to
            return cls(torch.from_numpy(pixels).to(device), torch.from_numpy(np.array(images.labels)).to(device))

    @cached_property
    def mean_and_std(self) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and deviation of each channel, for pixels in [0, 1], measured when they are first needed."""
        return mean_and_std("dataset", self.images)

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the pixels, computed when it is first needed."""
        return hashlib.sha256(self.images.cpu().numpy().data).hexdigest()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DeviceData:
    """TrainingData on the training device; all runs on it share its memory."""

    dataset: str
    train: DeviceImages
    val: DeviceImages
    class_names: Sequence[str]
    device: torch.device

    @property
    def num_classes(self) -> int:
        """Classes of the whole data set."""
        return len(self.class_names)

    @classmethod
    def place(cls, data: TrainingData, device: torch.device) -> "DeviceData":
        """Copy the data to the device."""
        train, val = (DeviceImages.place(images, device) for images in (data.train, data.val))
        return cls(data.dataset, train, val, data.class_names, device)


class Normalization(nn.Module):
    """Pixels (n, 3, H, W) of 0 to 255 as a network's input: float32, minus the channel's mean, over its deviation.

    `mean` and `std` are those of pixels in [0, 1].
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
        """Overwrite float32 pixels; of other types a float32 copy is returned."""
        scale, shift = self.scale, self.shift
        if pixels.is_contiguous(memory_format=torch.channels_last):
            # A value for each pixel of an image, because loops over three neighbours are four times slower.
            scale, shift = (
                values.expand(1, *pixels.shape[1:]).contiguous(memory_format=torch.channels_last)
                for values in (scale, shift)
            )
        return pixels.float().mul_(scale).add_(shift)


class Inputs(Protocol):
    """Where the batches of a run come from."""

    def train(self, indices: Tensor, epoch: int) -> Tensor:
        """The inputs for the training images at `indices` (n,) in epoch `epoch` (from 0) of the run."""

    def plain(self, images: DeviceImages, indices: Tensor) -> Tensor:
        """The inputs for the images at `indices` (n,) in an evaluation, without augmentation."""


class Pixels:
    """Normalized images, float32 (n, 3, H, W), augmented for training with draws of the run's generator."""

    def __init__(self, recipe: Recipe, data: DeviceData, generator: torch.Generator) -> None:
        self._augment = recipe.augment
        self._train = data.train
        self._generator = generator
        is_measured = recipe.scaling == "dataset"
        mean, std = data.train.mean_and_std if is_measured else mean_and_std(recipe.scaling, data.train.images)
        self.mean, self.std = tuple(mean), tuple(std)
        self._normalize = Normalization(mean, std).to(data.device)
        self._views: dict[int, Draws] = {}

    def train(self, indices: Tensor, epoch: int) -> Tensor:
        """The training images, augmented with new draws."""
        return self._normalized(sample(self._train.images, indices, self._augment, self._generator, self.mean))

    def view(self, number: int, indices: Tensor) -> Tensor:
        """The training images at `indices` (n,), in the fixed view of this number."""
        if number not in self._views:
            generator = torch.Generator(indices.device).manual_seed(VIEWS_SEED + number)
            size = self._train.images.shape[1]
            self._views[number] = draw(self._augment, len(self._train), generator, indices.device, size)
        draws = self._views[number].take(indices)
        return self._normalized(apply(self._train.images, indices, self._augment, draws, self.mean))

    def plain(self, images: DeviceImages, indices: Tensor) -> Tensor:
        """The images without augmentation."""
        return self._normalized(sample(images.images, indices, None))

    def _normalized(self, pixels: Tensor) -> Tensor:
        normalized: Tensor = self._normalize(pixels)
        return normalized


class Features:
    """A frozen backbone's features of Pixels: (n, F), without gradients.

    With a cache, features of plain images are computed once and kept, and so are those of training images whose views
    are fixed.
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
        self._cached: dict[str, Tensor] = {}  # what this run has already asked the cache for
        self._key = {
            "backbone": dict(backbone_key),
            "mean and std": [pixels.mean, pixels.std],
            "computed in": f"{recipe.precision} on {data.device.type}",
        }

    def train(self, indices: Tensor, epoch: int) -> Tensor:
        """From the cache where views are fixed, with the next view in each epoch; else computed with new draws."""
        if not self._is_fixed:
            return self._compute(self._pixels.train(indices, epoch))
        return self._look_up(self._train, indices, epoch % (self._num_views or 1), self._num_views)

    def plain(self, images: DeviceImages, indices: Tensor) -> Tensor:
        """The features of the images without augmentation."""
        return self._look_up(images, indices, 0, None)

    def _look_up(self, images: DeviceImages, indices: Tensor, view: int, num_views: int | None) -> Tensor:
        if self._cache is None:
            return self._compute(self._fixed_pixels(images, indices, view, num_views))
        name = f"{images.digest}, {num_views} views"
        if name not in self._cached:
            key = {**self._key, "images": images.digest, "views": num_views and [num_views, self._augment()]}
            with torch.inference_mode(False):  # an evaluation can ask first, and the head is trained on the same tensor
                self._cached[name] = self._cache.get(
                    key, images.images.device, lambda: self._compute_all(images, num_views)
                )
        return self._cached[name][view, indices]

    def _augment(self) -> dict[str, Any]:
        return {"seed": VIEWS_SEED, **self._recipe.augment.model_dump()}

    def _fixed_pixels(self, images: DeviceImages, indices: Tensor, view: int, num_views: int | None) -> Tensor:
        return self._pixels.plain(images, indices) if num_views is None else self._pixels.view(view, indices)

    def _compute_all(self, images: DeviceImages, num_views: int | None) -> Tensor:
        """All features (views, N, F), in the order of the images; in memory only once, as they can be gigabytes."""
        features: Tensor | None = None
        batches = torch.split(torch.arange(len(images), device=images.images.device), self._recipe.evaluation_batch)
        for view, indices in product(range(num_views or 1), batches):
            batch = self._compute(self._fixed_pixels(images, indices, view, num_views))
            if features is None:
                features = batch.new_empty(num_views or 1, len(images), batch.shape[1])
            features[view, indices] = batch
        assert features is not None
        return features

    @torch.no_grad()  # not in inference mode, whose tensors the head could not be trained on
    def _compute(self, pixels: Tensor) -> Tensor:
        self._backbone.eval()  # in training too, because the result can be cached
        with autocast(self._recipe, pixels.device):
            features: Tensor = self._backbone(pixels)
        return features


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """A context of bfloat16 where the recipe has mixed precision and the device is a GPU."""
    mixed = recipe.precision == "mixed" and device.type == "cuda"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed)
