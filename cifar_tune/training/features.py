"""The features of a frozen backbone: computed once, kept in the store for every trial of every search, bounded in size.

A file's name is the digest of all that decides its content. It appears whole or not at all, is checked when it is
read, and is written by one process while the others wait for it. No network is known here.
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

VERSION = 2  # part of every key: raise it when anything else than a network's structure changes what is computed
MAX_BYTES = 8 * 2**30  # of all files together; the least recently used go first
NUM_IN_MEMORY = 2  # training and validation of the run at hand; trials that follow mostly share them


def describe_structure(network: nn.Module) -> list[str]:
    """The layers of a network with their options, in their order, and the name, shape and type of every tensor.

    Another network has another description, whatever in the code it came from; how a layer computes is not in it.
    """
    tensors = network.state_dict().items()
    return [repr(network), *(f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors)]


class FeatureCache:
    """Features (views, N, F) by their key, in memory, in the folder, or computed now."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._in_memory: OrderedDict[tuple[str, torch.device], Tensor] = OrderedDict()

    def get(self, key: Mapping[str, Any], device: torch.device, compute: Callable[[], Tensor]) -> Tensor:
        """The features for `key` (anything JSON holds), on the device; `compute` is asked where no file has them."""
        name = hashlib.sha256(json.dumps([VERSION, key], sort_keys=True).encode()).hexdigest()
        known = self._in_memory.pop((name, device), None)
        if known is None:
            while len(self._in_memory) >= NUM_IN_MEMORY:  # before the new ones need the memory
                self._in_memory.popitem(last=False)
            known = self._load_or_compute(self._folder / f"{name}.safetensors", compute).to(device)
        self._in_memory[name, device] = known
        return known

    def _load_or_compute(self, path: Path, compute: Callable[[], Tensor]) -> Tensor:
        """A folder that cannot be used, or a full disk, costs the next worker time and no trial."""
        with ExitStack() as held:
            with suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(path.with_suffix(".lock")))
            features = _read(path)
            if features is None:
                features = compute()
                with suppress(OSError, SafetensorError):
                    self._write(path, features)
        return features

    def _write(self, path: Path, features: Tensor) -> None:
        """Keep the file, and make room for it; features larger than all the room are computed anew by every worker."""
        if features.nbytes > self._max_bytes:
            return
        with FileLock(self._folder / "room.lock"):
            self._make_room(features.nbytes)
            unfinished = path.with_suffix(".unfinished")
            tensor = features.cpu().contiguous()
            save_file({"features": tensor}, unfinished, metadata={"sha256": _digest(tensor)})
            unfinished.replace(path)

    def _make_room(self, num_bytes: int) -> None:
        for left in self._folder.glob("*.unfinished"):  # by a process that was killed: only one writes at a time
            left.unlink()
        files = sorted(self._folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        excess = num_bytes + sum(file.stat().st_size for file in files) - self._max_bytes
        for file in files:
            if excess <= 0:
                return
            excess -= file.stat().st_size
            file.unlink()


def _read(path: Path) -> Tensor | None:
    """The file's features, which then count as just used; None where there is no file, or a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            features: Tensor = file.get_tensor("features")
            if file.metadata()["sha256"] != _digest(features):
                return None
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    with suppress(OSError):  # another user's file
        os.utime(path)
    return features


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.flatten().view(torch.uint8).numpy().data).hexdigest()
