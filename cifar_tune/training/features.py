"""A cache of a frozen backbone's features: computed once, then kept in the store for all trials of all searches.

A file's name is the digest of everything that decides its content. A file is either complete or not there, and is
checked when it is read. One process computes it while the others wait. inputs.py decides what is cached.
"""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cifar_tune.store import set_usual_mode

VERSION = 2  # part of every key: raise it when features change and no network's structure does
MAX_BYTES = 8 * 2**30  # of all files together; the least recently used are deleted first
NUM_IN_MEMORY = 2  # the training and the validation features of one run, which the next trials mostly use again


def describe_structure(network: nn.Module) -> list[str]:
    """The layers of a network with their options, in their order, and the name, shape and type of every tensor.

    It changes with the network and with nothing else in the code. What a layer's `forward` computes is not part of it.
    """
    tensors = network.state_dict().items()
    return [repr(network), *(f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors)]


class FeatureCache:
    """Features (views, N, F) by their key: from memory, from the folder, or computed now."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._in_memory: OrderedDict[tuple[str, torch.device], Tensor] = OrderedDict()

    def get(self, key: Mapping[str, Any], device: torch.device, compute: Callable[[], Tensor]) -> Tensor:
        """The features for `key`, which holds anything that JSON does, on the device; `compute` makes missing ones."""
        name = hashlib.sha256(json.dumps([VERSION, key], sort_keys=True).encode()).hexdigest()
        features = self._in_memory.pop((name, device), None)
        if features is None:
            while len(self._in_memory) >= NUM_IN_MEMORY:  # first, because the new ones need the memory
                self._in_memory.popitem(last=False)
            features = self._load_or_compute(self._folder / f"{name}.safetensors", compute).to(device)
        self._in_memory[name, device] = features
        return features

    def _load_or_compute(self, path: Path, compute: Callable[[], Tensor]) -> Tensor:
        """The file's features, or computed ones, which are then written.

        Where the folder cannot be used or the disk is full, nothing is kept and no trial fails.
        """
        with ExitStack() as locks:
            with suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(path.with_suffix(".lock")))
            features = _read(path)
            if features is None:
                features = compute()
                with suppress(OSError, SafetensorError):
                    self._write(path, features)
        return features

    def _write(self, path: Path, features: Tensor) -> None:
        """Write the file and make room for it; features that are larger than `max_bytes` are not kept."""
        if features.nbytes > self._max_bytes:
            return
        with FileLock(self._folder / "room.lock"):
            self._make_room(features.nbytes)
            unfinished = path.with_suffix(".unfinished")
            tensor = features.cpu().contiguous()
            save_file({"features": tensor}, unfinished, metadata={"sha256": _digest(tensor)})
            set_usual_mode(unfinished)
            unfinished.replace(path)

    def _make_room(self, num_bytes: int) -> None:
        for unfinished in self._folder.glob("*.unfinished"):  # left by killed processes: only one writes at a time
            unfinished.unlink()
        files = sorted(self._folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        excess = num_bytes + sum(file.stat().st_size for file in files) - self._max_bytes
        for file in files:
            if excess <= 0:
                return
            excess -= file.stat().st_size
            file.unlink()


def _read(path: Path) -> Tensor | None:
    """The file's features, which then count as used last; None where the file is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            features: Tensor = file.get_tensor("features")
            if file.metadata()["sha256"] != _digest(features):
                return None
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    with suppress(OSError):  # the file can be another user's
        os.utime(path)
    return features


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.flatten().view(torch.uint8).numpy().data).hexdigest()
