"""Imported by a worker before its first trial arrives: what training needs, and what torch loads with a first step.

It asks for no GPU: which one is this worker's, Ray says with the trial.

Torch's compiler is left out. Every optimizer imports it to tell it what not to compile, which takes a second of the
processor, a fifth of a worker's start; no trial compiles anything.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

import cifar_tune.search.ray_worker  # noqa: F401 - imported in advance

COMPILER = "torch._dynamo"


class NoCompiler(ModuleType):
    """Stands in for torch's compiler, and gives way to it where somebody asks for more than optimizers do."""

    def graph_break(self) -> None:
        """Do nothing, as outside of what is compiled."""

    def disable(self, function: Callable[..., Any], *_: object, **__: object) -> Callable[..., Any]:
        """The function as it is: never to be compiled."""
        return function

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of the module
        if name.startswith("__") and name != "__path__":  # which the import of a submodule reads
            raise AttributeError(name)
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        return getattr(importlib.import_module(COMPILER), name)


if COMPILER not in sys.modules:
    sys.modules[COMPILER] = torch._dynamo = NoCompiler(COMPILER)
torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).step()
