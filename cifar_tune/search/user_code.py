"""Running the code of a user's space file, and naming the line of the file in which it fails."""

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

import optuna
from pydantic import ValidationError

from cifar_tune.errors import InvalidRecipeError, UserError
from cifar_tune.recipe.recipe import Recipe, explain
from cifar_tune.search.search import Search


def run_file(path: Path) -> ModuleType:
    """The file as a module with a name of its own, which its tracebacks and dataclasses need."""
    name = f"cifar_tune_space_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file; a search space is one that defines BASELINE and space(trial).")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise as_user_error(error, path) from error
    return module


def as_user_error(error: BaseException, path: Path) -> UserError:
    """`FILE, line N: what is wrong.` for an exception that the file's code has raised.

    It is an InvalidRecipeError where the values make no recipe together, or where the file skips them by TrialPruned.
    """
    kind = InvalidRecipeError if _is_of_combination(error) else UserError
    return kind(f"{_place(error, path)}: {_reason(error)}.")


def _is_of_combination(error: BaseException) -> bool:
    """Whether the values are refused together: none of pydantic's errors is about a field of its own."""
    if isinstance(error, ValidationError):
        return error.title == Recipe.__name__ and not any(each["loc"] for each in error.errors())
    return isinstance(error, InvalidRecipeError | optuna.TrialPruned)


def _place(error: BaseException, path: Path) -> str:
    """`FILE, line N`: the innermost line of the file in the traceback."""
    file = str(path.absolute())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _reason(error: BaseException) -> str:
    """One clause without a full stop."""
    if isinstance(error, ValidationError):
        return explain(error, Search if error.title == Search.__name__ else Recipe)
    if isinstance(error, UserError):
        return str(error).rstrip(".")
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(message.split())}".rstrip(".: ")
