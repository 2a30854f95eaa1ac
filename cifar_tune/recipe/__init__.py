"""The vocabulary of a search space: every part of a recipe. Importing it loads no torch."""

from typing import Any


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class
    """`Recipe`, which space files of version 0.1 may import from here; new ones import it from `cifar_tune`."""
    if name != "Recipe":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cifar_tune.recipe.recipe import Recipe

    return Recipe
