"""What a Ray worker runs: one function for every Recipe.

A worker stays warm between trials; it keeps the data on its device. The last `report` of a trial is the last thing it
does, because Ray never runs what follows it in a trial that is stopped: what must be kept is written before.
"""

import os
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

import torch
from ray import tune

from cifar_tune.data.images import TrainingData
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.store import HITS, Keepsake
from cifar_tune.training.checkpoint import load_state, save_array, save_state, save_weights
from cifar_tune.training.features import FeatureCache
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import DivergenceError, EpochMetrics, Training, is_out_of_memory, peak_memory
from cifar_tune.training.network_size import count_macs
from cifar_tune.training.weights import Weights, open_weights
from cifar_tune.trials.facts import (
    CHECKPOINT,
    DATA,
    DEVICE,
    DIVERGED_AT,
    ENDED_AT,
    FIRST_EPOCH,
    NUM_MACS,
    NUM_PARAMETERS,
    NUM_THREADS,
    PEAK_MEMORY,
    QUEUED,
    REPLAYS,
    STARTUP,
    TAKEN_AT,
    WORKER,
    timed,
)

SECONDS_BETWEEN_STATES = 10.0  # what an interruption may cost, besides the epoch that runs


class Assignment(TypedDict):
    """What a worker is told of a trial: Ray's `config`."""

    number: int
    recipe: dict[str, Any]
    folder: str  # of the trial, in the store
    num_epochs_recorded: int
    features: str  # the store's folder of cached features
    weights: str  # `model/weights`, a path made absolute
    weights_digest: str | None  # hex SHA-256 of the file, as the driver checked it
    num_threads: int
    use_gpu: bool
    keeps: Keepsake
    watched: Sequence[tuple[float, float]] | None  # the validation of another run, by epoch, for one that has none
    handed_at: float  # by the driver, in seconds since 1970


def train_trial(config: Assignment, data: TrainingData, taken_at: float) -> None:
    """Train one trial, from its saved state if there is one; report each epoch, and how it ended if not well.

    `taken_at` is when the worker took it, in seconds since 1970.
    """
    torch.set_num_threads(config["num_threads"])
    device = torch.device("cuda" if config["use_gpu"] else "cpu")
    facts: dict[str, Any] = {
        NUM_THREADS: config["num_threads"],
        DEVICE: device.type,
        WORKER: f"{socket.gethostname()}:{os.getpid()}",
        TAKEN_AT: taken_at,
        QUEUED: max(0.0, taken_at - config["handed_at"]),
        STARTUP: time.time() - taken_at,
        FIRST_EPOCH: config["num_epochs_recorded"],
    }
    try:
        facts[DEVICE] = prepare(device)
        recipe = Recipe.model_validate(config["recipe"])
        with timed(facts, DATA):
            placed = _place(data, device)
        with timed(facts, STARTUP):
            cache = _feature_cache(Path(config["features"]))
            weights = _weights(config["weights"], config["weights_digest"])
            training = Training(recipe, placed, weights, cache, config["watched"])
            facts |= {NUM_PARAMETERS: training.num_parameters, NUM_MACS: count_macs(training.model)}
        facts |= training.facts
        if config["watched"]:
            facts[REPLAYS] = "the validation losses and accuracies of the trial that it trains again"
        for metrics in _epochs(training, config, facts):
            tune.report({"metrics": asdict(metrics), "facts": facts})
    except DivergenceError as error:
        facts |= {ENDED_AT: time.time(), DIVERGED_AT: error.step}
        tune.report({"state": "diverged", "facts": facts})
    except Exception as error:  # reported, so that what Ray sees fail is a worker that died, which is tried again
        if "CUDA error" in str(error):
            raise  # the process cannot use its GPU any more: a new worker tries again
        facts[ENDED_AT] = time.time()
        if is_out_of_memory(error):
            tune.report({"state": "out of memory", "facts": {**facts, PEAK_MEMORY: peak_memory(device)}})
        else:
            tune.report({"state": "failed", "facts": facts, "error": traceback.format_exc()})


def _epochs(training: Training, config: Assignment, facts: dict[str, Any]) -> Iterator[EpochMetrics]:
    """The epochs that the record lacks; whatever has to survive each is on disk before it is yielded."""
    folder = Path(config["folder"])
    with timed(facts, CHECKPOINT):
        state = load_state(folder)
        if state is not None and state["recipe"] == training.recipe.model_dump(mode="json"):
            training.load_state_dict(state)
    facts[FIRST_EPOCH] = training.epoch
    # Saved, and perhaps cut off before the driver had written them down, or had judged the last that it wrote.
    yield from training.history[max(0, config["num_epochs_recorded"] - 1) :]
    last_save = time.monotonic()
    for metrics in training.fit():
        if training.is_over:
            with timed(facts, CHECKPOINT):
                _keep(training, folder, config["keeps"])
        elif time.monotonic() - last_save > SECONDS_BETWEEN_STATES:
            with timed(facts, CHECKPOINT):
                save_state(folder, training.state_dict())
            last_save = time.monotonic()
        yield metrics


def _keep(training: Training, folder: Path, keeps: Keepsake) -> None:
    if keeps == "weights":
        save_weights(folder, training.model, weights_metadata(training))
    else:
        val = training.data.val
        hits = training.predict(val).argmax(dim=1) == val.labels
        save_array(folder / HITS, hits.cpu().numpy())


def weights_metadata(training: Training) -> dict[str, Any]:
    """What a reader of the weights needs: the recipe, how pixels become the network's input, the scores."""
    return {
        "recipe": training.recipe.model_dump(mode="json"),
        "preprocessing": {"pixels": "RGB in [0, 1]", "mean": training.pixels.mean, "std": training.pixels.std},
        "scores": asdict(training.counted),
    }


def prepare(device: torch.device) -> str:
    """Begin a trial on the device, whose peak memory counts from here; its name."""
    if device.type == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError("Ray gave this trial a GPU that torch cannot use; run with --gpus-per-trial 0.")
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.get_device_name(device)


# What a worker keeps between trials, which mostly share it.


@lru_cache(maxsize=1)
def _feature_cache(folder: Path) -> FeatureCache:
    return FeatureCache(folder)


@lru_cache(maxsize=2)
def _weights(name: str, digest: str | None) -> Weights | None:
    weights = open_weights(name)
    if weights is not None and digest not in (None, weights.digest):
        raise RuntimeError(f"{name} is no longer the file that the search was begun with; bring that back.")
    return weights


_on_device: dict[tuple[str, int, torch.device], DeviceData] = {}


def _place(data: TrainingData, device: torch.device) -> DeviceData:
    """The data on the device, once per worker process; Ray hands the same arrays over anew for every trial."""
    key = (data.digest, len(data.train), device)
    if key not in _on_device:
        _on_device.clear()
        _on_device[key] = DeviceData.place(data, device)
    return _on_device[key]
