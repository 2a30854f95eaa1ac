"""The function that a Ray worker runs, for every Recipe.

A worker process trains many trials, and keeps the data on its device between them. In a trial that is stopped Ray never
runs the code after the last `report`, so everything to keep is written before it.
"""

import gc
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypedDict

import numpy as np
import torch
from ray import tune

from cifar_tune.data.images import TrainingData
from cifar_tune.errors import InvalidRecipeError, MachineError, UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.store import HITS, Keepsake
from cifar_tune.training.checkpoint import resume, save_array, save_state, save_weights
from cifar_tune.training.features import FeatureCache
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import DivergenceError, EpochMetrics, Training
from cifar_tune.training.memory import is_out_of_memory, keep_freed_memory, others_took_memory, peak_memory
from cifar_tune.training.network_size import count_macs
from cifar_tune.training.scores import ScoreName, image_values
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
    NUM_TRAIN_IMAGES,
    NUM_VAL_IMAGES,
    PEAK_MEMORY,
    QUEUED,
    REPLAYS,
    SMALLEST_CLASS,
    STARTUP,
    STATE_BYTES,
    TAKEN_AT,
    WORKER,
    timed,
)
from cifar_tune.trials.trial import State

SECONDS_BETWEEN_STATES = 10.0  # training that an interruption may lose, besides the current epoch


class Assignment(TypedDict):
    """What a worker needs to know of a trial: Ray's `config`."""

    number: int
    recipe: dict[str, Any]
    folder: str  # of the trial, in the store
    num_epochs_recorded: int
    features: str  # the store's folder of cached features
    weights: str  # `model/weights`; a path is absolute
    weights_digest: str | None  # of the file that the driver checked
    num_threads: int
    gpus: float  # of one GPU, or whole ones; 0 trains on the CPU
    keeps: Keepsake
    pauses: Sequence[int]  # epochs after which the trial may be paused, with a checkpoint of that epoch
    score: ScoreName
    watched: Sequence[Sequence[float]] | None  # the validation by epoch of the run to replay; None to validate
    handed_at: float  # when the driver handed the trial out, in seconds since 1970


def train_trial(config: Assignment, data: TrainingData, taken_at: float) -> None:
    """Train one trial, from its checkpoint if there is one; report each epoch, and the state if it breaks down.

    `taken_at` is when the worker received the trial, in seconds since 1970. Ray calls this in a new thread for each
    trial; all are trained in the same one.
    """
    run_in_training_thread(lambda: _train(config, data, taken_at))


def _train(config: Assignment, data: TrainingData, taken_at: float) -> None:
    torch.set_num_threads(config["num_threads"])
    device = torch.device("cuda" if config["gpus"] else "cpu")
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
        facts |= {NUM_TRAIN_IMAGES: len(data.train), NUM_VAL_IMAGES: len(data.val)}
        if config["score"] != "accuracy":
            facts[SMALLEST_CLASS] = int(np.bincount(data.val.labels, minlength=data.num_classes).min())
        with timed(facts, STARTUP):
            cache = _feature_cache(Path(config["features"]))
            weights = _weights(config["weights"], config["weights_digest"])
            training = Training(recipe, placed, weights, cache, config["watched"], config["score"])
            macs = count_macs(training.model, recipe.image_size)
            facts |= {NUM_PARAMETERS: training.num_parameters, NUM_MACS: macs}
        facts |= training.facts
        if config["watched"]:
            facts[REPLAYS] = "the validation losses and scores of the trial that it trains again"
        for metrics in _epochs(training, config, facts):
            tune.report({"metrics": metrics.as_row(), "facts": facts})
    except DivergenceError as error:
        facts |= {ENDED_AT: time.time(), DIVERGED_AT: error.step}
        tune.report({"state": "diverged", "facts": facts})
    except Exception as error:  # reported, so that Ray sees and retries only workers that died
        if "CUDA error" in str(error):
            raise  # this process cannot use its GPU any more; Ray retries with a new worker
        facts[ENDED_AT] = time.time()
        state = _state_after(error, device, config["gpus"])
        if state == "out of memory":
            facts[PEAK_MEMORY] = peak_memory(device)
        tune.report({"state": state, "facts": facts, "error": traceback.format_exc()})


def _state_after(error: Exception, device: torch.device, gpus: float) -> State:
    """How an error ends a trial: as a result of its recipe, or as an interruption where the machine is at fault."""
    if is_out_of_memory(error):
        return "interrupted" if others_took_memory(error, device, gpus) else "out of memory"
    if isinstance(error, UserError) and not isinstance(error, InvalidRecipeError):
        return "interrupted"  # of a file that was there when the search began
    return "interrupted" if isinstance(error, OSError | ImportError | MachineError) else "failed"


@contextmanager
def _file_access(facts: dict[str, Any]) -> Iterator[None]:
    """Time reading or writing a checkpoint; an error there is the machine's, whichever library raises it."""
    try:
        with timed(facts, CHECKPOINT):
            yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise MachineError(f"A checkpoint cannot be read or written: {error}") from error


def _epochs(training: Training, config: Assignment, facts: dict[str, Any]) -> Iterator[EpochMetrics]:
    """Train and yield the epochs that the record lacks; before each is yielded, its files are on disk."""
    folder = Path(config["folder"])
    with _file_access(facts):
        resume(training, folder)
    facts |= training.facts
    facts[FIRST_EPOCH] = training.epoch
    # The checkpoint may be ahead of the record, and the last recorded epoch may not have been judged.
    yield from training.history[max(0, config["num_epochs_recorded"] - 1) :]
    last_save = time.monotonic()
    for metrics in training.fit():
        if training.is_over:
            with _file_access(facts):
                _write_result(training, folder, config["keeps"])
        elif training.epoch in config["pauses"] or time.monotonic() - last_save > SECONDS_BETWEEN_STATES:
            with _file_access(facts):
                facts[STATE_BYTES] = save_state(folder, training.state_dict())
            last_save = time.monotonic()
        yield metrics


def _write_result(training: Training, folder: Path, keeps: Keepsake) -> None:
    """Write the weights, or each validation image's value: for an accuracy, whether it is classified correctly."""
    if keeps == "weights":
        save_weights(folder, training.model, weights_metadata(training))
    else:
        val = training.data.val
        predictions, labels = training.predict(val).argmax(dim=1).cpu().numpy(), val.labels.cpu().numpy()
        save_array(folder / HITS, image_values(training.score, predictions, labels))


def weights_metadata(training: Training) -> dict[str, Any]:
    """The metadata of a weights file: the recipe, how pixels become the network's input, and the scores."""
    return {
        "recipe": training.recipe.model_dump(mode="json"),
        "preprocessing": {"pixels": "RGB in [0, 1]", "mean": training.pixels.mean, "std": training.pixels.std},
        "scores": training.counted.as_row(),
        "class_names": list(training.data.class_names),
    }


def prepare(device: torch.device) -> str:
    """Start counting the device's peak memory, and return the device's name."""
    if device.type == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise MachineError("Ray gave this trial a GPU that torch cannot use; run with --gpus-per-trial 0.")
    gc.collect()  # what an earlier trial left would be missing to a neighbour on the same GPU
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.get_device_name(device)


# What a worker keeps between trials, most of which share it.


def run_in_training_thread(call: Callable[[], None]) -> None:
    """Run the call in this process's thread for training, and raise here what it raises: SystemExit ends a trial.

    In a new thread for each trial, glibc serves each from another of its heaps, and keeps what all of them have freed:
    workers grew by the memory of a training again and again.
    """
    outcome: Future[None] = Future()
    _calls().put((call, outcome))
    try:
        outcome.result()
    finally:
        del outcome  # an error's frames hold the training, and this frame is one of them


@cache
def _calls() -> "SimpleQueue[tuple[Callable[[], None], Future[None]]]":
    """The queue of the thread for training, which starts with it and lasts as long as the process."""
    calls: SimpleQueue[tuple[Callable[[], None], Future[None]]] = SimpleQueue()

    def serve() -> None:
        keep_freed_memory()
        while True:
            call, outcome = calls.get()
            try:
                call()
                outcome.set_result(None)
            except BaseException as error:
                outcome.set_exception(error)
            del call, outcome  # before it waits for the next

    Thread(target=serve, name="training", daemon=True).start()
    return calls


@lru_cache(maxsize=1)
def _feature_cache(folder: Path) -> FeatureCache:
    return FeatureCache(folder)


@lru_cache(maxsize=2)
def _weights(name: str, digest: str | None) -> Weights | None:
    weights = open_weights(name)
    if weights is not None and digest not in (None, weights.digest, weights.file_digest):
        raise MachineError(f"{name} is no longer the file that the search was started with; restore that file.")
    return weights


_on_device: dict[tuple[str, int, torch.device], DeviceData] = {}


def _place(data: TrainingData, device: torch.device) -> DeviceData:
    """The data on the device, copied once per process; for every trial Ray passes the same arrays again."""
    key = (data.digest, len(data.train), device)
    if key not in _on_device:
        _on_device.clear()
        _on_device[key] = DeviceData.place(data, device)
    return _on_device[key]
