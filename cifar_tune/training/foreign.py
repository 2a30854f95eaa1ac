"""Weights as other programs save them: a checkpoint around the state_dict, a prefix before every name.

Nothing here knows files; weights.py reads them.
"""

from collections.abc import Collection
from typing import TypeGuard

import torch
from torch import Tensor

WRAPPERS = ("state_dict", "model_state_dict", "model")  # of several state_dicts in a checkpoint, the first of these
PREFIXES = {"module", "_orig_mod", "model"}  # of DataParallel, of torch.compile, of Lightning and many others


def unwrap(loaded: object) -> tuple[dict[str, Tensor], str | None] | None:
    """The state_dict in what a file holds, and its key where it lies in a checkpoint; None where it is not certain."""
    if is_state_dict(loaded):
        return dict(loaded), None
    if not isinstance(loaded, dict):
        return None
    inside = {key: value for key, value in loaded.items() if isinstance(key, str) and is_state_dict(value)}
    usual = [key for key in WRAPPERS if key in inside]
    if not usual and len(inside) != 1:
        return None
    key = next(iter(usual or inside))
    return dict(inside[key]), key


def is_state_dict(value: object) -> TypeGuard[dict[str, Tensor]]:
    """Whether it is a dict of ordinary tensors by name."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
        and all(tensor.layout == torch.strided and not tensor.is_quantized for tensor in value.values())
    )


def find_prefix(names: Collection[str], own: Collection[str]) -> str:
    """The prefix before all of a network's `own` names in a file; empty where there is none, or several unusual ones.

    Other names may lie beside them, such as those of a metric or of a second network. Where the network is not there, a
    usual prefix of all names is returned, so that a message can compare the rest of the names.
    """
    if all(name in names for name in own):
        return ""
    first = next(iter(own))
    prefixes = [name.removesuffix(first) for name in names if name.endswith(f".{first}")]
    whole = sorted((p for p in prefixes if all(p + name in names for name in own)), key=len)
    usual = [prefix for prefix in whole if set(prefix.split(".")[:-1]) <= PREFIXES]
    if usual or len(whole) == 1:
        return [*usual, *whole][0]
    return _common_prefix(names)


def _common_prefix(names: Collection[str]) -> str:
    prefix = ""
    while len(parts := {name.removeprefix(prefix).partition(".")[0] for name in names}) == 1 and parts <= PREFIXES:
        prefix += f"{parts.pop()}."
    return prefix
