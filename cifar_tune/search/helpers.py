"""The helper modules of a space file: Python files beside it that it imports, and that those import in turn.

A search keeps their text beside its copy of the space file, and the text is part of its identity. So they are found by
reading the code, before any of it runs: also what only a function imports that rarely runs.
"""

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import ExecutionLoader
from itertools import accumulate
from pathlib import Path

from cifar_tune.errors import UserError
from cifar_tune.store import HELPERS

# A file with such a name is no helper: other packages that import the name would get the file.
TAKEN = sys.stdlib_module_names | {"cifar_tune"}


@dataclass(frozen=True)
class Source:
    """A file of the user's code, under its path relative to the folder of the space file."""

    path: Path
    place: str
    text: str

    @property
    def is_package(self) -> bool:
        """Whether it is the code of a package."""
        return self.path.name == "__init__.py"


class SourceLoader(ExecutionLoader):
    """Loads a module from text that was read before: what the record keeps is what runs. No bytecode is written."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def get_filename(self, fullname: str) -> str:
        """The absolute path, for tracebacks and `__file__`."""
        return str(self._source.path)

    def get_source(self, fullname: str) -> str:
        """The text."""
        return self._source.text

    def is_package(self, fullname: str) -> bool:
        """Whether it is the code of a package."""
        return self._source.is_package


def read_source(path: Path, place: str) -> Source:
    """The file as text, by the encoding that it declares; a UserError where it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); correct its rights or the path.") from None
    try:
        text = importlib.util.decode_source(content)
    except (SyntaxError, UnicodeDecodeError):  # running it says why
        text = content.decode("utf-8", errors="replace")
    return Source(path.absolute(), place, text)


def find_helpers(space: Source) -> dict[str, Source]:
    """The helpers by module name: `common`, `package`, `package.part`. They may also lie where a link leads."""
    folders = [place / each for place in (space.path.parent, space.path.resolve().parent) for each in ("", HELPERS)]
    helpers: dict[str, Source] = {}
    waiting = [(space, "")]
    while waiting:
        source, package = waiting.pop()
        for name in _imported_names(source.text, package):
            if name not in helpers and (helper := _find(name, folders)):
                helpers[name] = helper
                waiting.append((helper, name if helper.is_package else name.rpartition(".")[0]))
    return helpers


def _imported_names(text: str, package: str) -> Iterator[str]:
    """All names that the code of a module in `package` may import, and before each the packages around it."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # running it says where
        return
    for node in nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            base = _absolute_name(node, package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
        for name in names:
            yield from accumulate(name.split("."), "{}.{}".format)


def _absolute_name(node: ast.ImportFrom, package: str) -> str:
    """The name of the module that `from` names."""
    parents = package.split(".")[: -node.level + 1 or None] if node.level else []
    return ".".join([*parents, *([node.module] if node.module else [])])


def _find(name: str, folders: Sequence[Path]) -> Source | None:
    """The helper of that name; None where there is none, or where Python or this package has the name."""
    first, *_ = parts = name.split(".")
    if first in TAKEN:
        return None
    for folder in folders:
        for place in (Path(*parts, "__init__.py"), Path(*parts[:-1], f"{parts[-1]}.py")):
            if os.path.isfile(folder / place):  # noqa: PTH113 - which takes a name of any length
                return read_source(folder / place, place.as_posix())
    return None
