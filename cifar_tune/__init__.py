"""Hyperparameter search for CIFAR classifiers that starts from published recipes and states every gain over them.

A search-space file imports `Recipe`, `Augment`, `Search` and `Trial` (Optuna's) from here, an analysis `load_trials`.
Each loads when it is first asked for, so that `--help` waits for none of them. None loads torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Trial

    from cifar_tune.recipe.augment import Augment
    from cifar_tune.recipe.recipe import Recipe
    from cifar_tune.report.frames import load_trials
    from cifar_tune.search.search import Search

__all__ = ["Augment", "Recipe", "Search", "Trial", "load_trials"]

DEFAULT_STORE = "cifar_tune_store"  # the folder of all results, where neither --store nor CIFAR_TUNE_STORE names one
STORE_VARIABLE = "CIFAR_TUNE_STORE"

_HOMES = {
    "Augment": "cifar_tune.recipe.augment",
    "Recipe": "cifar_tune.recipe.recipe",
    "Search": "cifar_tune.search.search",
    "Trial": "optuna",
    "load_trials": "cifar_tune.report.frames",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
