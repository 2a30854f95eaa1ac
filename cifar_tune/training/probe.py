"""Tries and times recipes in this process, on real images: a few steps each, whose results are thrown away.

On a GPU a step takes a whole batch. On a CPU a timed step takes as many images as fill half a second, and a step that
only shows whether a recipe works takes a few. Seconds and memory are scaled to the whole batch.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from cifar_tune.data.images import TrainingData
from cifar_tune.recipe.finetune import Phase
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.training.features import FeatureCache
from cifar_tune.training.inputs import DeviceData, DeviceImages
from cifar_tune.training.loop import Training
from cifar_tune.training.memory import keep_freed_memory, measure_activations, peak_memory, reset_peak_memory
from cifar_tune.training.weights import open_weights

NUM_TRIED_STEPS = 2
NUM_TIMED_STEPS = 3
NUM_IMAGES_ON_A_CPU = 4  # in a step that is tried, and in the first one that is timed
GROWTH = 4  # factor on the number of images in a timed step, until the step takes ENOUGH_SECONDS
ENOUGH_SECONDS = 0.5


@dataclass(frozen=True)
class Attempt:
    """The result of a recipe's first steps: whether losses were finite, and the memory that a whole batch needs."""

    is_finite: bool
    memory_bytes: int


@dataclass(frozen=True)
class PhasePrice:
    """The cost of one phase of a recipe; `*_seconds` and `features_bytes` are those of one image.

    `features_*` are for features that are computed once and kept. Steps were timed on `num_images`.
    """

    train_seconds: float
    val_seconds: float
    features_seconds: float
    features_bytes: float
    memory_bytes: int
    state_bytes: int
    weights_bytes: int
    num_parameters: int
    num_images: int


@dataclass(frozen=True)
class Price:
    """The cost of a recipe on this machine.

    `start_seconds` and `features_bytes` are for features that are computed once and kept for all trials that share
    them. `state_bytes` is the size of a checkpoint. Steps were timed on `num_images`.
    """

    recipe: Recipe
    num_parameters: int
    epoch_seconds: float
    start_seconds: float
    features_bytes: int
    memory_bytes: int
    state_bytes: int
    weights_bytes: int
    num_images: int


class Probe:
    """Tries recipes on one data set and one device, with as many threads on a CPU as a trial would have."""

    def __init__(self, data: TrainingData, device: torch.device, num_threads: int) -> None:
        self._data = DeviceData.place(data, device)
        self._device = device
        self._num_threads = num_threads
        self._weights = lru_cache(open_weights)
        keep_freed_memory()  # as a worker does

    def attempt(self, recipe: Recipe) -> Attempt:
        """Build the network, take two steps of every phase, and evaluate; every error is passed on."""
        num_images = self._batch(recipe)
        if self._device.type == "cpu":
            num_images = min(num_images, NUM_IMAGES_ON_A_CPU)
        losses: list[float] = []
        memory = 0
        with _threads(self._num_threads):
            training = self._training(recipe, self._data, None)
            for phase in recipe.phases():
                reset_peak_memory(self._device)
                losses += training.rehearse(phase, num_images, NUM_TRIED_STEPS)
                memory = max(memory, self._memory(training, phase, num_images))
            losses.append(training.evaluate(_first(self._data.val, num_images))[0])
        return Attempt(bool(np.isfinite(losses).all()), memory)

    def price(self, recipe: Recipe) -> Price:
        """Time each phase of the recipe and add up what the recipe costs."""
        phases = recipe.phases()
        with _threads(self._num_threads):
            prices = [self._price_phase(recipe, phase) for phase in phases]
        num_train, num_val = len(self._data.train), len(self._data.val)
        seconds = [num_train * price.train_seconds + num_val * price.val_seconds for price in prices]
        num_features = num_train * (recipe.num_views or 1) + num_val if recipe.has_fixed_features else 0
        return Price(
            recipe,
            num_parameters=prices[-1].num_parameters,
            epoch_seconds=sum(phase.epochs * each for phase, each in zip(phases, seconds, strict=True)) / recipe.epochs,
            start_seconds=num_features * prices[0].features_seconds,
            features_bytes=int(num_features * prices[0].features_bytes),
            memory_bytes=max(price.memory_bytes for price in prices),
            state_bytes=max(price.state_bytes for price in prices),
            weights_bytes=prices[-1].weights_bytes,
            num_images=min(price.num_images for price in prices),
        )

    def _price_phase(self, recipe: Recipe, phase: Phase) -> PhasePrice:
        """Time a phase, after a step and an evaluation that load libraries and compute cached features."""
        num_images = self._enough_images(recipe, phase)
        data = self._cut(num_images, recipe.evaluation_batch)
        with TemporaryDirectory() as folder:
            training = self._training(recipe, data, FeatureCache(Path(folder)))
            reset_peak_memory(self._device)
            training.rehearse(phase, num_images, 1)
            features_seconds = _seconds(lambda: training.evaluate(data.val))
            memory = self._memory(training, phase, num_images)
            num_kept = num_images * (recipe.num_views or 1) + len(data.val)
            return PhasePrice(
                train_seconds=_step_seconds(training, phase, num_images) / num_images,
                val_seconds=_seconds(lambda: training.evaluate(data.val)) / len(data.val),
                features_seconds=features_seconds / len(data.val),
                features_bytes=sum(file.stat().st_size for file in Path(folder).glob("*.safetensors")) / num_kept,
                memory_bytes=memory,
                state_bytes=_num_bytes(training.state_dict()) + self._best_bytes(training),
                weights_bytes=_num_bytes(training.model.state_dict()),
                num_parameters=training.num_parameters,
                num_images=num_images,
            )

    def _best_bytes(self, training: Training) -> int:
        """The size of the best epoch's network, which a checkpoint also holds with early stopping."""
        is_kept = training.recipe.early_stopping.name != "none"
        return _num_bytes(training.state_dict()["model"]) if is_kept else 0

    def _enough_images(self, recipe: Recipe, phase: Phase) -> int:
        """The number of images in a timed step: on a GPU the whole batch, on a CPU enough for a reliable time."""
        batch = self._batch(recipe)
        if self._device.type != "cpu":
            return batch
        training = self._training(recipe, self._cut(batch, 1), None)
        num_images = min(batch, NUM_IMAGES_ON_A_CPU)
        while num_images < batch and _step_seconds(training, phase, num_images) < ENOUGH_SECONDS:
            num_images = min(batch, GROWTH * num_images)
        return num_images

    def _training(self, recipe: Recipe, data: DeviceData, cache: FeatureCache | None) -> Training:
        return Training(recipe, data, self._weights(recipe.model.weights), cache)

    def _batch(self, recipe: Recipe) -> int:
        return min(recipe.batch_size, len(self._data.train))

    def _cut(self, num_train: int, num_val: int) -> DeviceData:
        return replace(self._data, train=_first(self._data.train, num_train), val=_first(self._data.val, num_val))

    def _memory(self, training: Training, phase: Phase, num_images: int) -> int:
        """The memory of a step on a whole batch: the peak so far, and the activations of images left out of it."""
        missing = self._batch(training.recipe) - num_images
        peak = peak_memory(self._device)
        if not missing:
            return peak
        with measure_activations(training.model) as sizes:
            training.rehearse(phase, num_images, 1)
        return peak + sum(sizes.values()) * missing // num_images


@contextmanager
def _threads(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(call: Callable[[], object]) -> float:
    """The wall-clock time of a call. All calls here end with results on the CPU, so a GPU has finished by then."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _step_seconds(training: Training, phase: Phase, num_images: int) -> float:
    """The shortest of a few steps: the first one also loads and prepares, and a busy machine only adds time."""
    return min(_seconds(lambda: training.rehearse(phase, num_images, 1)) for _ in range(NUM_TIMED_STEPS))


def _first(images: DeviceImages, num_images: int) -> DeviceImages:
    return DeviceImages(images.images[:num_images], images.labels[:num_images])


def _num_bytes(state: object) -> int:
    """The size of all tensors in a nested state."""
    if isinstance(state, Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, Mapping) else state if isinstance(state, list) else ()
    return sum(_num_bytes(part) for part in parts)
