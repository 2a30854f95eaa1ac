"""The files of a trial: `state.pt`, from which an interrupted run resumes, `weights.safetensors`, and arrays.

A file is either complete or not there. None is ever unpickled: `torch.load` with `weights_only`, safetensors, numpy.
"""

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from cifar_tune.errors import UserError
from cifar_tune.store import STATE, WEIGHTS, set_usual_mode
from cifar_tune.training.loop import Training
from cifar_tune.training.memory import is_out_of_memory

PARTS = {"recipe", "history", "model", "best", "optimizer", "generator", "cpu_rng"}  # of a state
MAX_WORDS = 12  # of torch's reasons, some of which are a page long


def save_state(folder: Path, state: Mapping[str, Any]) -> int:
    """Replace the folder's state with this one, and return its size in bytes."""
    _write(folder / STATE, lambda path: torch.save(dict(state), path))
    return (folder / STATE).stat().st_size


def load_state(folder: Path) -> dict[str, Any] | None:
    """The folder's state, with its tensors on the CPU; None where none was saved, a UserError for a damaged one."""
    path = folder / STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = PARTS - state.keys()
    except Exception as error:  # a damaged file can raise anything in torch
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # the disk's fault; torch may seek to nowhere
            raise
        raise _damage(path, error) from error
    if missing:
        raise _damage(path, KeyError(*sorted(missing)))
    return state


def resume(training: Training, folder: Path) -> None:
    """Go on from the folder's state where it has one of the same recipe; a UserError for a damaged one."""
    state = load_state(folder)
    try:
        if state is not None and training.can_resume(state):
            training.load_state_dict(state)
    except Exception as error:  # a damaged state can have anything in it
        if is_out_of_memory(error):
            raise
        raise _damage(folder / STATE, error) from error


def _damage(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()[:MAX_WORDS]).rstrip(".:;,") or type(error).__name__
    return UserError(f"The checkpoint {path} is damaged ({reason}); delete it, and the trial starts anew.")


def save_weights(folder: Path, model: torch.nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write the network's tensors, with `metadata` that JSON can hold: the recipe, the preprocessing, the scores."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    _write(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata=texts))


def save_array(path: Path, array: npt.NDArray[np.generic]) -> None:
    """Write an array as a `.npy` file."""

    def save(partial: Path) -> None:
        with partial.open("wb") as file:  # numpy would add a suffix to a path
            np.save(file, array, allow_pickle=False)

    _write(path, save)


def _write(path: Path, save: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save(partial)
    set_usual_mode(partial)
    partial.replace(path)
