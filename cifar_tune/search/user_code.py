"""Running the code of a user's space file with its helpers, and naming the line in which it fails."""

import importlib.util
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, TypeVar

import optuna
from pydantic import ValidationError

from cifar_tune.errors import InvalidRecipeError, UserError
from cifar_tune.recipe.recipe import Recipe, explain
from cifar_tune.search.helpers import SourceLoader, find_helpers, read_source
from cifar_tune.search.search import Search

P = ParamSpec("P")
T = TypeVar("T")


class _HelperFinder(MetaPathFinder, threading.local):
    """Finds the helpers of the space file whose code runs now in the thread that asks; in other threads, nothing.

    It stays in `sys.meta_path`: an import in another thread, which goes through that list, would miss what moves up.
    """

    running: "UserCode | None" = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The place of a helper; importlib calls this."""
        return self.running.find_helper(fullname) if self.running else None


_FINDER = _HelperFinder()


class UserCode:
    """A space file and its helpers, which can be imported only while the file's own code runs.

    So several space files can have helpers of one name, and nothing else in the process ever imports them.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix != ".py":
            raise UserError(
                f"{path} is not a Python file; a search space is one that defines BASELINE and space(trial)."
            )
        self._path = path
        self._space = read_source(path, path.name)
        self._helpers = find_helpers(self._space)
        self._names = {name.partition(".")[0] for name in self._helpers}
        self._modules: dict[str, ModuleType] = {}  # the helpers that were imported so far

    @property
    def source(self) -> str:
        """The text of the space file."""
        return self._space.text

    @property
    def helpers(self) -> dict[str, str]:
        """The texts of the helpers by their paths, which are relative to the space file's folder."""
        return {helper.place: helper.text for helper in self._helpers.values()}

    def run(self) -> ModuleType:
        """The space file as a module; a UserError names the line where it fails."""
        loader = SourceLoader(self._space)
        name = "cifar_tune_space_" + re.sub(r"\W", "_", self._path.stem)  # tracebacks and dataclasses need one
        spec = importlib.util.spec_from_loader(name, loader)
        assert spec is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            with self._importable():
                loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise as_user_error(error, self._path) from error
        return module

    def with_helpers(self, function: Callable[P, T]) -> Callable[P, T]:
        """The function as one that can import helpers whenever it is called."""
        if not self._helpers:
            return function

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._importable():
                return function(*args, **kwargs)

        return call

    def find_helper(self, name: str) -> ModuleSpec | None:
        """The place of a helper, or of a folder of helpers that has no `__init__.py`."""
        if name in self._helpers:
            return importlib.util.spec_from_loader(name, SourceLoader(self._helpers[name]))
        if any(helper.startswith(f"{name}.") for helper in self._helpers):
            return ModuleSpec(name, None, is_package=True)
        return None

    @contextmanager
    def _importable(self) -> Iterator[None]:
        if self._helpers and _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)
        others, outer = self._exchange(self._modules), _FINDER.running
        _FINDER.running = self
        try:
            yield
        finally:
            _FINDER.running = outer
            self._modules = self._exchange(others)

    def _exchange(self, modules: Mapping[str, ModuleType]) -> dict[str, ModuleType]:
        """Replace all modules of the helpers' names by these; returns the modules that were there."""
        if not self._names:
            return {}
        present = list(sys.modules)  # at once, because another thread may import meanwhile
        before = {name: sys.modules.pop(name) for name in present if name.partition(".")[0] in self._names}
        sys.modules.update(modules)
        return before


def as_user_error(error: BaseException, path: Path) -> UserError:
    """`FILE, line N: what is wrong.` for an exception that the code of a space file or of a helper has raised.

    It is an InvalidRecipeError where the values make no recipe together, or where the file skips them by TrialPruned.
    """
    kind = InvalidRecipeError if _is_of_combination(error) else UserError
    return kind(f"{_place(error, path)}: {' '.join(_reason(error).split())}.")


def _is_of_combination(error: BaseException) -> bool:
    """Whether the values are refused together: none of pydantic's errors is about a field of its own."""
    if isinstance(error, ValidationError):
        return error.title == Recipe.__name__ and not any(each["loc"] for each in error.errors())
    return isinstance(error, InvalidRecipeError | optuna.TrialPruned)


def _place(error: BaseException, path: Path) -> str:
    """`FILE, line N`: the innermost line of the user's code in the traceback."""
    folder = path.absolute().parent
    places = [
        (frame.f_code.co_filename, number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if isinstance(frame.f_globals.get("__loader__"), SourceLoader)
    ]
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        places.append((error.filename, error.lineno or 1))
    if not places:
        return str(path)
    file, number = places[-1]
    is_beside = Path(file).is_relative_to(folder)
    return f"{path.parent / Path(file).relative_to(folder) if is_beside else file}, line {number}"


def _reason(error: BaseException) -> str:
    """A clause without a full stop."""
    if isinstance(error, ValidationError):
        return explain(error, Search if error.title == Search.__name__ else Recipe)
    if isinstance(error, UserError):
        return str(error).rstrip(".")
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}".rstrip(".: \n")
